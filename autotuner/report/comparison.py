"""The four tables of a comparison of compile modes: latency, both sigmas, and the difference in MAE."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from autotuner.commands.compare import Comparison, ModeResult
from autotuner.measurement.outcome import Measured
from autotuner.tuning.document import series_document
from autotuner.workload import Workload

Cell = Callable[[Measured, Comparison], str]


def comparison_tables(comparisons: Sequence[Comparison], workload: Workload) -> list[Table]:
    """Tables for people, one row a symbol, one column a compile mode; aliases say what they repeat."""

    def latency(measured: Measured, _: Comparison) -> str:
        ratio, p50 = measured.ratio, _p50(measured, workload)
        return f"{p50:.2f} ms\n{ratio.estimate:.2f}x\n[{ratio.low:.2f}, {ratio.high:.2f}]"

    def sigma_mae(measured: Measured, _: Comparison) -> str:
        return f"{measured.accuracy.sigma_mae:.4g}"

    def sigma_time(measured: Measured, _: Comparison) -> str:
        return f"{_weighted([t.sigma_ms for t in measured.timings], workload):.3f} ms"

    return [
        _table("p50 latency and speed-up over eager fp32 (95 % interval)", comparisons, latency),
        _table("sigma(MAE) over noise seeds, price units", comparisons, sigma_mae),
        _table("sigma(time) in steady state", comparisons, sigma_time),
        _table(
            "MAE difference from eager fp32 on the same noise, and its share of price",
            comparisons,
            _difference,
        ),
    ]


def comparison_document(comparisons: Sequence[Comparison], workload: Workload) -> dict[str, Any]:
    """The same figures as plain values."""
    return {
        "workload": workload.to_dict() | {"signature": workload.signature},
        "symbols": [
            {
                "symbol": comparison.symbol,
                "price_level": comparison.price_level,
                "series": series_document(comparison.series),
                "modes": {mode.mode: _mode_document(mode, workload) for mode in comparison.modes},
            }
            for comparison in comparisons
        ],
    }


def _mode_document(mode: ModeResult, workload: Workload) -> dict[str, Any]:
    common: dict[str, Any] = {"settings": mode.settings.to_dict(), "alias_of": mode.alias_of}
    outcome = mode.outcome
    if not isinstance(outcome, Measured):
        return common | {"outcome": outcome.kind, "detail": outcome.detail}
    return common | {
        "outcome": "measured",
        "p50_ms": _p50(outcome, workload),
        "ratio": dataclasses.asdict(outcome.ratio),
        "sigma_time_ms": _weighted([t.sigma_ms for t in outcome.timings], workload),
        "sigma_mae": outcome.accuracy.sigma_mae,
        "mae": outcome.accuracy.mae,
        "mae_difference": abs(outcome.accuracy.mae - outcome.accuracy.mae_reference),
        "drift": outcome.accuracy.drift,
        "cold_start_ms": outcome.cold_start_ms,
        "compile_report": outcome.report.to_dict(),
    }


def _table(title: str, comparisons: Sequence[Comparison], cell: Cell) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_lines=True)
    table.add_column("symbol")
    for mode in comparisons[0].modes:
        heading = mode.mode if mode.alias_of is None else f"{mode.mode}\n= {mode.alias_of}"
        table.add_column(heading, justify="right", overflow="fold")
    for comparison in comparisons:
        table.add_row(comparison.symbol, *(_cell(mode, comparison, cell) for mode in comparison.modes))
    return table


def _cell(mode: ModeResult, comparison: Comparison, cell: Cell) -> str:
    if not isinstance(mode.outcome, Measured):
        return mode.outcome.kind
    return "same" if mode.alias_of else cell(mode.outcome, comparison)


def _difference(measured: Measured, comparison: Comparison) -> str:
    difference = abs(measured.accuracy.mae - measured.accuracy.mae_reference)
    return f"{difference:.3g}\n{difference / comparison.price_level:.2e}"


def _p50(measured: Measured, workload: Workload) -> float:
    return _weighted([t.p50_ms for t in measured.timings], workload)


def _weighted(values: list[float], workload: Workload) -> float:
    return float(np.average(values, weights=workload.weights))
