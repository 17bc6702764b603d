"""``autotune recheck``: do a symbol's settings keep their accuracy limits on today's prices?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from autotuner.cli.options import COUNT, answer, clear_up_first, measuring_options, note, one_symbol
from autotuner.cli.price_options import price_options
from autotuner.paths import store_location

if TYPE_CHECKING:
    from autotuner.serving.spool import Recheck

_SHOWN = ("symbol", "settings", "series_digest", "failed", "kept")
_LIMITS = ("broken", "drift", "quantile_shift", "drift_budget")


@click.command()
@one_symbol
@price_options
@click.option(
    "--profile", "profile_name", help="Profile whose settings are meant [default: the one promoted last]."
)
@click.option("--threads", type=COUNT, help="Most CPU threads [default: all CPUs but one].")
@click.option("--exit-code", is_flag=True, help="Exit with 3 when a limit is broken.")
@measuring_options(120.0, "Seconds in all.")
def recheck_command(symbol: str, exit_code: bool, as_json: bool, db: str | None, **options: Any) -> None:
    """Compare a symbol's settings with uncompiled fp32 on the prices as they are now.

    The daemon does this by itself when prices change, and takes back what breaks a limit.

    \b
    autotune recheck AMD
    autotune recheck AMD --data ./prices --exit-code
    """
    from autotuner.commands.recheck import recheck
    from autotuner.store import Store
    from autotuner.tuning.document import series_document

    with Store(store_location(db), create=False) as store:
        clear_up_first(store.location)
        found, series = recheck(symbol, store, say=note, **options)
    document = {name: getattr(found, name) for name in _SHOWN + _LIMITS} | {"series": series_document(series)}
    answer(document, _line(found), as_json=as_json)
    if exit_code and not found.kept:
        raise click.exceptions.Exit(3)


def _line(found: Recheck) -> str:
    name = f"{found.symbol}: {found.settings}"
    if found.kept:
        return f"{name} keeps its limits: drift {found.drift:.3%} of at most {found.drift_budget:.3%}"
    return (
        f"{name} breaks a limit: {'; '.join(found.broken)}\n"
        f"next: autotune run --symbol {found.symbol} --fresh finds what keeps it, "
        f"autotune rollback {found.symbol} goes back at once"
    )
