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
    lines += [
        f"  trials: {trials['measured']} measured, {failed} failed{reused}, of {trials['distinct_keys']} "
        f"distinct settings ({trials['ended_because']})",
        f"  {document['decision']['verdict']}: {document['decision']['reason']}",
        f"  next: autotune show --symbol {symbol}; autotune forecast --symbol {symbol}",
    ]
    return lines
