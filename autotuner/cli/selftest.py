"""``autotune selftest``: how often this machine would crown a false winner, and the smallest gain it can prove."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from autotuner.cli.options import SYMBOL, db_option, json_option, location, note, print_json

if TYPE_CHECKING:
    from autotuner.commands.selftest import SelfTest
    from autotuner.environment import Environment


@click.command()
@click.option("--symbol", type=SYMBOL, default="AMD", show_default=True, help="Whose prices to forecast.")
@click.option("--model", default="toto-mini", show_default=True, help="toto-mini, a folder, or a hub id.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds for everything.",
)
@click.option(
    "--launches",
    type=click.IntRange(min=5),
    default=10,
    show_default=True,
    help="Fresh starts of both arms; more tell more.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the relabelling.")
@json_option
@db_option
def selftest_command(
    symbol: str,
    model: str,
    timeout: float,
    launches: int,
    device: str,
    seed: int,
    as_json: bool,
    db: str | None,
) -> None:
    """Pit the reference against itself and say how far this machine's verdicts can be trusted.

    Two arms that are the same thing under distinct names are really launched and timed. Reports how often a
    duel would promote one of them, and the smallest gain that four duels in five would prove. The result is
    stored and shown with every later run.

    \b
    autotune selftest
    autotune selftest --timeout 600 --json
    """
    import numpy as np

    from autotuner.commands.selftest import self_test
    from autotuner.device_lock import alone
    from autotuner.environment import current_environment
    from autotuner.search.profiles import Limits, profile
    from autotuner.store import Store
    from autotuner.tuning.measuring import effective_cost, prepare, process_bench
    from autotuner.workload import Workload

    end = time.monotonic() + timeout
    workload = Workload(model=model)
    prepared = prepare(symbol, workload, data=None, device=device)
    environment = current_environment(device)
    wanted = profile("production")
    bench = process_bench(
        workload=workload,
        profile=wanted,
        limits=Limits(),
        device=device,
        series=prepared.series,
        patch_size=prepared.patch_size,
        seed=seed,
    )
    with Store(location(db)) as store, alone(store.records, device, seconds=timeout, say=note):
        runner = bench.make_runner(lambda _: None)
        try:
            result = self_test(
                runner,
                bench.space.reference,
                cost=effective_cost(workload, wanted),
                seconds=max(0.0, end - time.monotonic()),
                clock=time.monotonic,
                say=note,
                rng=np.random.default_rng(seed),
                launches=launches,
            )
        finally:
            runner.close()
        store.remember_setting(workload, environment)
        document = _document(result, environment)
        store.remember_selftest(environment, document, at=datetime.now(UTC))
    if as_json:
        print_json(document)
        return
    for line in _lines(result):
        click.echo(line)


def _document(result: SelfTest, environment: Environment) -> dict[str, Any]:
    return dataclasses.asdict(result) | {"environment": json.loads(environment.to_json())}


def _lines(result: SelfTest) -> list[str]:
    gain = result.smallest_detectable_gain
    proven = "not even half of the time saved" if gain is None else f"{gain:.0%} less time"
    return [
        f"false winners: {result.false_winner_rate:.2%} of duels between equals (at most "
        f"{result.false_winner_bound:.2%}, one-sided 95 %)",
        f"smallest gain that four duels in five prove: {proven}",
        f"{result.launches} launches of both arms, {result.disturbed_blocks} of {result.blocks} blocks disturbed "
        "by others",
        "next: autotune run --symbol AMD shows this beside its verdict",
    ]
