"""``autotune compare``: the plain compile modes of one or more symbols, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from autotuner.cli.options import SYMBOL, clear_up_first, measuring_options, note, print_json, workload_option
from autotuner.cli.price_options import price_options
from autotuner.paths import store_location


@click.command()
@click.argument("symbols", type=SYMBOL, nargs=-1, required=True)
@price_options
@click.option("--model", default="toto-mini", show_default=True, help="toto-mini, a folder, or a hub id.")
@workload_option
@measuring_options(300.0, "Seconds for each symbol.")
def compare_command(
    symbols: tuple[str, ...],
    model: str,
    workload_file: Path | None,
    as_json: bool,
    db: str | None,
    **options: Any,
) -> None:
    """Measure every compile mode of SYMBOLS in fp32 beside eager, and print four tables.

    Latency and speed-up, sigma(MAE), sigma(time) and MAE difference per mode. Modes that cannot differ on this
    device are measured once and marked. What is stored for the same prices is not measured again.

    \b
    autotune compare AMD BTCUSD
    """
    import dataclasses

    from autotuner.commands.compare import compare
    from autotuner.report.comparison import comparison_document, comparison_tables
    from autotuner.store import Store
    from autotuner.workload import Workload, read_workload

    workload = read_workload(workload_file) if workload_file else Workload()
    workload = dataclasses.replace(workload, model=model)
    with Store(store_location(db)) as store:
        clear_up_first(store.location)
        comparisons = compare(
            symbols, workload, store, say=lambda symbol, line: note(f"{symbol}: {line}"), **options
        )
    if as_json:
        print_json(comparison_document(comparisons, workload))
        return
    from autotuner.cli.safe_console import SafeConsole

    console = SafeConsole()
    for table in comparison_tables(comparisons, workload):
        console.print(table)
