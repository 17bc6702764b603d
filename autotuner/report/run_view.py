"""A run's document in a few lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuner.measurement.outcome import Conditions
from autotuner.report.tables import interval
from toto_core.compile_report import CompileReport
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
        f"{ratio['high']:.2f} ({_origin(document)})",
        f"  p50 {document['p50_ms']:.2f} ms, p95 {document['p95_ms']:.2f} ms, "
        f"sigma {document['sigma_time_ms']:.2f} ms",
    ]
    if "drift" in document:
        lines.append(
            f"  MAE {document['mae']:.4g} beside {document['mae_reference']:.4g} of the reference; drift at most "
            f"{document['drift']:.3%}, quantile shift at most {document['quantile_shift']:.3%}"
        )
        lines.append(f"  {_start(document)}")
    lines += [
        *_certificate(document),
        *_fastest_line(document),
        f"  trials: {trials['measured']} measured, {failed} failed{reused}, of {trials['distinct_keys']} "
        f"distinct settings ({trials['ended_because']})",
        *_left_open(document),
        f"  {document['decision']['verdict']}: {document['decision']['reason']}",
        f"  {_trust(document)}",
        f"  next: autotune explain {symbol}; autotune forecast --symbol {symbol}",
    ]
    return lines


def _left_open(document: Mapping[str, Any]) -> list[str]:
    """What was not tried when the search ended before it was settled, and what would tell whether it is better."""
    left_open, ended = document["left_open"], document["trials"]["ended_because"]
    if left_open is None or left_open["timeout"] is None or ended not in ("seconds", "trials"):
        return []
    likeliest = RuntimeSettings.from_dict(left_open["likeliest"]).label
    return [
        f"  not tried: {left_open['configurations']}, {chance(left_open['chance'])} that one is 2 % better or more; "
        f"the likeliest is {likeliest}",
        f"  to find out: the same command with --timeout {left_open['timeout']}",
    ]


def chance(probability: float) -> str:
    """A probability in words that promise no more than the model that gave it."""
    return (
        f"about {probability:.0%} chance"
        if 0.01 <= probability <= 0.99
        else ("hardly any chance" if probability < 0.01 else "almost certain")
    )


def _origin(document: Mapping[str, Any]) -> str:
    launches = document["launches"]
    if document["stage"] == "shared":
        return f"one launch, which agrees with the duel of {document['shared_from']['symbol']}"
    return f"{launches} launch{'es' if launches > 1 else ''} each, {document['stage']}"


def _start(document: Mapping[str, Any]) -> str:
    """How long a process takes to start."""
    cold, warm = document["cold_start_ms"], document.get("warm_start_ms")
    beside = document.get("built_beside")
    others = f" (compiled beside {beside} other{'s' if beside > 1 else ''})" if beside else ""
    empty = "" if cold is None else f"{cold / 1000:.1f} s{others}"
    if warm is None:
        return f"starts in {empty}"
    stored = f"{warm / 1000:.2f} s from the stored artifacts"
    return f"starts in {empty} with nothing stored, {stored}" if empty else f"starts in {stored}"


def _certificate(document: Mapping[str, Any]) -> list[str]:
    """Whether it really compiled, and under which load the verdict holds."""
    lines = []
    if document.get("compile_report") is not None:
        lines.append(f"  compiled: {CompileReport.from_dict(document['compile_report']).summary}")
    if document.get("conditions") is not None:
        lines.append(f"  measured under {Conditions(**document['conditions'])}")
    return lines


def _trust(document: Mapping[str, Any]) -> str:
    """What the machine's self-test says of such verdicts."""
    found = document.get("selftest")
    if found is None:
        return "this machine was never put to the test: autotune selftest"
    gain = found["smallest_detectable_gain"]
    proven = "not even half the time saved" if gain is None else f"a gain of {gain:.0%}"
    return (
        f"self-test here: {found['false_winner_rate']:.1%} false winners (at most "
        f"{found['false_winner_bound']:.1%}), proves {proven} or more"
    )


def _fastest_line(document: Mapping[str, Any]) -> list[str]:
    """What would be faster in a process that lives longer, when that is not what was chosen."""
    fastest = document.get("fastest_once_running")
    if not fastest or fastest["settings"] == document["settings"]:
        return []
    calls = document["workload"]["calls_per_process"]
    if fastest["break_even_calls"] <= calls:  # it was in the duel, and a longer life would not change that
        return []
    return [
        f"  fastest once running: {RuntimeSettings.from_dict(fastest['settings']).label}, "
        f"{interval(fastest)} in the search; its start of "
        f"{fastest['start_ms'] / 1000:.1f} s is paid back after {fastest['break_even_calls']:,} calls of a process "
        f"(--calls-per-process is {calls:,})"
    ]
