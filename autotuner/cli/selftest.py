"""``autotune selftest``: how often this machine would crown a false winner, and the smallest gain it can prove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from autotuner.cli.options import SYMBOL, answer, clear_up_first, measuring_options, note
from autotuner.paths import store_location


@click.command()
@click.option("--symbol", type=SYMBOL, default="AMD", show_default=True, help="Whose prices to forecast.")
@click.option("--model", default="toto-mini", show_default=True, help="toto-mini, a folder, or a hub id.")
@click.option(
    "--launches",
    type=click.IntRange(min=5),
    default=10,
    show_default=True,
    help="Fresh starts of both arms; more tell more.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the relabelling.")
@measuring_options(300.0, "Seconds for everything.")
def selftest_command(symbol: str, model: str, as_json: bool, db: str | None, **options: Any) -> None:
    """Pit the reference against itself and say how far this machine's verdicts can be trusted.

    Two arms that are the same thing under distinct names are really launched and timed. Reports how often a
    duel would promote one of them, and the smallest gain that four duels in five would prove. The result is
    stored and shown with every later run.

    \b
    autotune selftest
    autotune selftest --timeout 600 --json
    """
    from autotuner.commands.selftest import self_test_machine
    from autotuner.workload import Workload

    place = store_location(db)
    clear_up_first(place)
    document = self_test_machine(symbol, Workload(model=model), place, say=note, **options)
    answer(document, *_lines(document), as_json=as_json)


def _lines(found: Mapping[str, Any]) -> list[str]:
    gain = found["smallest_detectable_gain"]
    proven = "not even half of the time saved" if gain is None else f"{gain:.0%} less time"
    return [
        f"false winners: {found['false_winner_rate']:.2%} of duels between equals (at most "
        f"{found['false_winner_bound']:.2%}, one-sided 95 %)",
        f"smallest gain that four duels in five prove: {proven}",
        f"{found['launches']} launches of both arms, {found['disturbed_blocks']} of {found['blocks']} blocks "
        "disturbed by others",
        "next: autotune run --symbol AMD shows this beside its verdict",
    ]
