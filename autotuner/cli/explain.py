"""``autotune explain``: why a symbol runs what it runs, and what would change that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from autotuner.cli.options import one_symbol, opened_store, print_json, print_table, store_options
from autotuner.errors import AutotuneError
from autotuner.paths import store_location

if TYPE_CHECKING:
    from autotuner.search.profiles import Profile
    from autotuner.store import Promotion


@click.command()
@one_symbol
@click.option(
    "--profile", metavar="NAME", help="Profile to explain [default: what the symbol was last promoted for]."
)
@store_options
def explain_command(symbol: str, profile: str | None, as_json: bool, db: str | None) -> None:
    """Say why SYMBOL runs what it runs: how sure that is, what came second, what was ruled out and why.

    Also which settings matter most, and what would change the answer. Nothing is measured.

    \b
    autotune explain AMD
    autotune explain AMD --json
    """
    from autotuner.commands.explain import explain
    from autotuner.record_mapping import stored_of
    from autotuner.report.why import why
    from autotuner.search.profiles import profile as known_profile

    if profile is not None:
        known_profile(profile)
    with opened_store(store_location(db)) as store:
        promotion = store.active(symbol, profile)
        if promotion is None:
            under = f" for {profile}" if profile else ""
            remedy = f"`autotune run --symbol {symbol}` finds out what it should run"
            raise AutotuneError(f"{symbol} was never promoted{under}: {remedy}")
        with stored_of(symbol):
            document = explain(store, promotion, _profile_of(promotion))
    if as_json:
        print_json(document)
    else:
        print_table(why(document))


def _profile_of(promotion: Promotion) -> Profile:
    """The profile it was promoted for. Raises ``AutotuneError`` for one that only another version knows."""
    from autotuner.search.profiles import PROFILES

    known = PROFILES.get(promotion.profile)
    if known is None:
        raise AutotuneError(
            f"{promotion.symbol}: its promotion is for a profile that this version does not know, "
            f"{promotion.profile!a}: `autotune rollback {promotion.symbol}` takes it back"
        )
    return known
