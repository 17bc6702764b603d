"""``autotune select``, ``rollback``, ``pin`` and ``unpin``: change what a symbol runs without measuring."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from autotuner.cli.options import answer, one_symbol, opened_store, say, store_options
from autotuner.errors import UsageError
from autotuner.paths import store_location
from autotuner.serving.lookup import Resolution, lookup

if TYPE_CHECKING:
    from storage.records import PromotionRecord
    from toto_core.settings import RuntimeSettings


@click.command()
@one_symbol
@click.option(
    "--profile", required=True, metavar="NAME", help="production, accuracy, throughput or research."
)
@store_options
def select_command(symbol: str, profile: str, as_json: bool, db: str | None) -> None:
    """Score the stored measurements of SYMBOL under another profile and promote the best; nothing is measured.

    Settings that won a duel under that profile are not overruled by figures of a search.

    \b
    autotune select AMD --profile accuracy
    """
    from autotuner.commands.select import select
    from autotuner.report.documents import active_document
    from autotuner.search.profiles import profile as known_profile

    wanted, place = known_profile(profile), store_location(db)
    with opened_store(place) as store:
        selection = select(store, symbol, wanted, at=datetime.now(UTC))
    now, before = selection.now, selection.before
    served = lookup(symbol, db=place, device=now.environment.device)
    previous, was = None, "nothing was promoted before"
    if before is not None:
        previous = {"profile": before.profile, "settings": before.settings.to_dict()}
        was = f"before: {before.settings.label} under {before.profile}"
    if not selection.changed and not as_json:
        say(f"{symbol} runs {now.settings.label} under {profile} already: nothing changed")
        return
    _tell(
        active_document(now, None) | {"promoted": selection.changed, "previous": previous},
        served,
        f"{symbol}: promoted to {now.settings.label} under {profile} ({was})",
        now.reason,
        _served_line(served),
        f"prove it: autotune run --symbol {symbol} --profile {profile}",
        f"undo: autotune rollback {symbol}",
        as_json=as_json,
    )


@click.command()
@one_symbol
@click.option("--reason", default="by hand", show_default=True, help="Kept in the history.")
@store_options
def rollback_command(symbol: str, reason: str, as_json: bool, db: str | None) -> None:
    """Take back the newest promotion of SYMBOL; what was active before it is active again.

    \b
    autotune rollback AMD --reason "slow since the driver update"
    """
    from autotuner.report.documents import promotion_event

    place = store_location(db)
    with opened_store(place) as store:
        # By the records, so that a promotion nobody can read can be taken back as well.
        taken, active = store.records.roll_back(symbol, reason, datetime.now(UTC))
    served = lookup(symbol, db=place)
    now = active and promotion_event(active)
    _tell(
        {"symbol": symbol, "rolled_back": promotion_event(taken), "active": now},
        served,
        f"{symbol}: took back {_promoted(taken)}",
        f"active again: {_promoted(active)}" if active else "no other promotion is active",
        _served_line(served),
        f"undo: {_pin_again(symbol, taken.settings_json)}; autotune run --symbol {symbol} decides anew",
        as_json=as_json,
    )


@click.command()
@one_symbol
@click.option("--settings", metavar="JSON", help="Fields of the settings; those left out take their default.")
@click.option("--mode", metavar="MODE", help="Compile mode alone, instead of --settings.")
@click.option("--precision", metavar="NAME", help="fp32, tf32, bf16 or fp16, with --mode [default: fp32].")
@click.option("--reason", default="by hand", show_default=True, help="Kept in the history.")
@store_options
def pin_command(symbol: str, reason: str, as_json: bool, db: str | None, **given: str | None) -> None:
    """Fix what SYMBOL runs, whatever is promoted, until it is unpinned.

    \b
    autotune pin AMD --mode eager --reason "earnings week"
    autotune pin AMD --settings '{"compile_mode": "default", "freezing": true}'
    """

    wanted, place = _wanted(**given), store_location(db)
    with opened_store(place, create=True) as store:
        store.pin(symbol, wanted, reason)
    served = lookup(symbol, db=place)
    lines = (f"{symbol}: pinned to {wanted.label}", _served_line(served), f"undo: autotune unpin {symbol}")
    _tell({"symbol": symbol, "pinned": wanted.to_dict()}, served, *lines, as_json=as_json)


@click.command()
@one_symbol
@click.option("--reason", default="by hand", show_default=True, help="Kept in the history.")
@store_options
def unpin_command(symbol: str, reason: str, as_json: bool, db: str | None) -> None:
    """Let go of SYMBOL's pin: its promotion decides again.

    \b
    autotune unpin AMD
    """

    place = store_location(db)
    with opened_store(place) as store:
        # By the records, so that a pin nobody can read can be let go of as well.
        pin = store.records.unpin(symbol, reason, datetime.now(UTC))
    served = lookup(symbol, db=place)
    first = f"{symbol}: no longer pinned to {_label(pin.settings_json)}"
    lines = (first, _served_line(served), f"undo: {_pin_again(symbol, pin.settings_json)}")
    _tell({"symbol": symbol, "pinned": None}, served, *lines, as_json=as_json)


def _wanted(*, settings: str | None, mode: str | None, precision: str | None) -> RuntimeSettings:
    from toto_core.settings import RuntimeSettings

    if (settings is None) == (mode is None):
        raise UsageError("say what to pin with either --mode or --settings")
    if settings is not None and precision is not None:
        raise UsageError("--precision goes with --mode; with --settings it is one of its fields")
    if settings is not None:
        return RuntimeSettings.from_json(settings)
    fields = {"compile_mode": mode, "precision": precision}
    return RuntimeSettings.from_dict({name: value for name, value in fields.items() if value is not None})


def _served_line(served: Resolution) -> str:
    return f"served here now: {served.settings.label} (from: {served.source})"


def _promoted(record: PromotionRecord) -> str:
    when = f"{record.promoted_at:%Y-%m-%d %H:%M} UTC"
    return f"{_label(record.settings_json)} under {record.profile}, of {when}"


def _label(settings_json: str) -> str:
    from autotuner.record_mapping import read_settings

    settings = read_settings(settings_json)
    return settings.label if settings else "unreadable settings"


def _pin_again(symbol: str, settings_json: str) -> str:
    return f"autotune pin {symbol} --settings {shlex.quote(settings_json)}"


def _tell(document: dict[str, Any], served: Resolution, first: str, *rest: str, as_json: bool) -> None:
    from autotuner.report.documents import lookup_document

    lines = (f"  {line}" for line in rest)
    answer(document | {"lookup": lookup_document(served)}, first, *lines, as_json=as_json)
