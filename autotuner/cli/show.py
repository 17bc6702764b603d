"""``autotune show``, ``list`` and ``history``: what symbols run, why, and how that came about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from autotuner.cli.options import (
    answer,
    maybe_symbol,
    note,
    one_symbol,
    opened_store,
    print_json,
    print_rows,
    print_table,
    say,
    say_left_out,
    store_options,
)
from autotuner.errors import AutotuneError
from autotuner.paths import snapshot_path, store_location

if TYPE_CHECKING:
    from autotuner.serving.resolution import Resolution
    from autotuner.store import Store


@click.command()
@one_symbol
@click.option(
    "--profile", metavar="NAME", help="Profile to show [default: what the symbol was last promoted for]."
)
@store_options
def show_command(symbol: str, profile: str | None, as_json: bool, db: str | None) -> None:
    """Show what SYMBOL runs, the figures it was promoted for, and the reason.

    Also says what a lookup on this machine would answer when that is something else: a pin, the kill switch,
    or another environment than the one that was measured.

    \b
    autotune show AMD
    autotune show --symbol AMD --profile accuracy --json
    """
    from autotuner.record_mapping import stored_of
    from autotuner.report.documents import active_document, differs, lookup_document
    from autotuner.search.profiles import profile as known_profile
    from autotuner.serving.lookup import lookup
    from storage.errors import StoreUnavailable

    if profile is not None:
        known_profile(profile)
    place = store_location(db)
    try:
        with opened_store(place) as store, stored_of(symbol):
            promotion = store.active(symbol, profile)
            pin = next((pin for pin in store.records.pins() if pin.symbol == symbol), None)
    except (AutotuneError, StoreUnavailable) as error:
        if not _was_fetched(place):
            raise
        _show_fetched(lookup(symbol, profile=profile, db=place), error, as_json=as_json)
        return
    if promotion is None:
        raise AutotuneError(_never_promoted(symbol, profile, pinned=pin is not None))
    with stored_of(symbol):
        found = lookup(symbol, profile=profile, db=place, device=promotion.environment.device)
        here = lookup_document(found) | {"differs": differs(found, promotion)}
        document = active_document(promotion, pin) | {"lookup": here}
        if as_json:
            print_json(document)
            return
        from autotuner.report.tables import card

        print_table(card(document))


@click.command()
@store_options
def list_command(as_json: bool, db: str | None) -> None:
    """List every symbol that has active settings or a pin.

    \b
    autotune list
    autotune list --json
    """
    from autotuner.store import Store

    with Store(store_location(db), create=False) as store:
        documents = _listed(store, brief=not as_json)
    say_left_out(store, but=[document["symbol"] for document in documents if "error" in document])
    for document in documents:
        if "error" in document:
            note(document["error"])
    if as_json:
        print_json({"symbols": documents})
    elif documents:
        from autotuner.report.tables import LISTING, listing

        print_rows(LISTING, listing(documents))
    else:
        say("no symbol has active settings yet: `autotune run --symbol AMD` tunes one")


@click.command()
@maybe_symbol
@store_options
def history_command(symbol: str | None, as_json: bool, db: str | None) -> None:
    """List promotions, pins and runs that promoted nothing, oldest first, of SYMBOL or of all.

    \b
    autotune history
    autotune history AMD --json
    """
    from autotuner.report.documents import history

    with opened_store(store_location(db)) as store:
        events = history(
            store.records.promotions(symbol), store.records.pin_history(symbol), store.records.runs(symbol)
        )
    if as_json:
        print_json({"symbol": symbol, "history": events})
    elif events:
        from autotuner.report.tables import TIMELINE, timeline

        print_rows(TIMELINE, timeline(events))
    else:
        say(f"nothing has happened to {symbol or 'any symbol'} yet: {_run(symbol or 'AMD')} begins")


def _listed(store: Store, *, brief: bool) -> list[dict[str, Any]]:
    from autotuner.report.documents import brief_document, pinned_document, stored_document

    read = brief_document if brief else stored_document
    pins = {pin.symbol: pin for pin in store.records.pins()}
    newest = {record.symbol: record for record in store.records.active_promotions()}  # the last of each stays
    found = {
        symbol: read(store, newest[symbol], pins.get(symbol))
        if symbol in newest
        else pinned_document(pins[symbol])
        for symbol in newest.keys() | pins.keys()
    }
    for each in store.records.damage:
        if each.symbol:
            found.setdefault(each.symbol, {"symbol": each.symbol, "error": str(each)})
    return [found[symbol] for symbol in sorted(found)]


def _was_fetched(place: str) -> bool:
    """Whether the snapshot here was fetched, as on a host that only trades: its store lies elsewhere."""
    from storage.errors import StorageError
    from storage.snapshot import read_document

    try:
        return read_document(snapshot_path(place))[1] is not None
    except StorageError:
        return False


def _show_fetched(found: Resolution, error: Exception, *, as_json: bool) -> None:
    """What a look-up answers from a fetched snapshot, whose store cannot be opened here."""
    from autotuner.report.documents import lookup_document

    document = {"symbol": found.symbol, "profile": found.profile, "model": found.model}
    settings = f"{found.symbol} runs {found.settings.label}, by its {found.source}" + (
        f" of {found.since}" if found.since else ""
    )
    answer(
        document | {"lookup": lookup_document(found), "store": str(error)},
        settings,
        *(f"  {reason}" for reason in found.reasons),
        f"  store: {error}",
        as_json=as_json,
    )


def _never_promoted(symbol: str, profile: str | None, *, pinned: bool) -> str:
    under = "" if profile is None else f" for profile {profile}"
    held = f"; until then it runs what it is pinned to, `autotune unpin {symbol}` lets go" if pinned else ""
    remedy = f"{_run(symbol, profile)} finds and proves settings"
    return f"{symbol}: nothing is promoted yet{under}; {remedy}{held}"


def _run(symbol: str, profile: str | None = None) -> str:
    return f"`autotune run --symbol {symbol}{'' if profile is None else f' --profile {profile}'}`"
