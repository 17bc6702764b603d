"""A run's document in a few lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toto_core.settings import RuntimeSettings


def run_lines(document: Mapping[str, Any]) -> list[str]:
    """What was decided, with the figures it rests on, and what to do next."""
    settings = RuntimeSettings.from_dict(document["settings"])
    symbol, ratio, trials = document["symbol"], document["ratio"], document["trials"]
    failed = sum(trials["failed"].values())
    reused = f", {trials['reused']} taken up" if trials["reused"] else ""
    verb = "now runs" if document["promoted"] else "still runs"
    lines = [
        f"{symbol} {verb} {settings.label}",
        f"  {ratio['estimate']:.2f}x the speed of eager fp32, 95 % interval {ratio['low']:.2f} to "
        f"{ratio['high']:.2f} ({document['launches']} launches each, {document['stage']})",
        f"  p50 {document['p50_ms']:.2f} ms, p95 {document['p95_ms']:.2f} ms, "
        f"sigma {document['sigma_time_ms']:.2f} ms",
    ]
    if "drift" in document:
        lines.append(
            f"  MAE {document['mae']:.4g} beside {document['mae_reference']:.4g} of the reference; drift at most "
            f"{document['drift']:.3%}; cold start {document['cold_start_ms'] / 1000:.1f} s"
        )
    lines += _fastest_line(document)
    lines += [
        f"  trials: {trials['measured']} measured, {failed} failed{reused}, of {trials['distinct_keys']} "
        f"distinct settings ({trials['ended_because']})",
        f"  {document['decision']['verdict']}: {document['decision']['reason']}",
        f"  next: autotune show --symbol {symbol}; autotune forecast --symbol {symbol}",
    ]
    return lines


def _fastest_line(document: Mapping[str, Any]) -> list[str]:
    """What would be faster in a process that lives longer, when that is not what was chosen."""
    fastest = document.get("fastest_once_running")
    if not fastest or fastest["settings"] == document["settings"]:
        return []
    ratio, calls = fastest["ratio"], document["workload"]["calls_per_process"]
    return [
        f"  fastest once running: {RuntimeSettings.from_dict(fastest['settings']).label}, "
        f"{ratio['estimate']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}] in the search; its start of "
        f"{fastest['start_ms'] / 1000:.1f} s is paid back after {fastest['break_even_calls']:,} calls of a process "
        f"(--calls-per-process is {calls:,})"
    ]
