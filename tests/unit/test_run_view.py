from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autotuner.cli.progress import PlainProgress
from autotuner.report.run_view import run_lines
from autotuner.search.gain_model import LeftOpen
from autotuner.search.scoring import Judged
from autotuner.search.search import TrialEvent
from tests.support.outcomes import measured
from toto_core.settings import RuntimeSettings

COMPILED = RuntimeSettings(compile_mode="default", freezing=True)


def document(**changes: Any) -> dict[str, Any]:
    return {
        "symbol": "AMD",
        "workload": {"calls_per_process": 10_000},
        "settings": RuntimeSettings().to_dict(),
        "stage": "duel",
        "launches": 5,
        "ratio": {"estimate": 1.0, "low": 1.0, "high": 1.0},
        "p50_ms": 4.0,
        "p95_ms": 5.0,
        "sigma_time_ms": 0.5,
        "trials": {
            "measured": 4,
            "failed": {"timeout": 1},
            "reused": 0,
            "distinct_keys": 20,
            "ended_because": "seconds",
        },
        "decision": {"verdict": "first", "reason": "Nothing was proven faster."},
        "promoted": True,
        "left_open": None,
        "fastest_once_running": {
            "settings": COMPILED.to_dict(),
            "ratio": {"estimate": 1.5, "low": 1.4, "high": 1.6},
            "start_ms": 15_000.0,
            "break_even_calls": 12_345,
        },
        **changes,
    }


def test_what_would_be_faster_in_a_longer_lived_process_is_said() -> None:
    text = "\n".join(run_lines(document()))
    assert "AMD now runs eager fp32" in text
    assert "default fp32 freezing=True, 1.50x [1.40, 1.60]" in text
    assert "after 12,345 calls" in text


def test_nothing_is_added_when_the_fastest_is_what_was_chosen() -> None:
    text = "\n".join(run_lines(document(settings=COMPILED.to_dict(), promoted=False)))
    assert "AMD still runs default fp32 freezing=True" in text
    assert "fastest once running" not in text


@pytest.mark.parametrize(
    ("cold_ms", "warm_ms", "said"),
    [
        (27_300.0, None, "starts in 27.3 s"),
        (27_300.0, 310.0, "starts in 27.3 s with nothing stored, 0.31 s from the stored artifacts"),
        (None, 310.0, "starts in 0.31 s from the stored artifacts"),
    ],
)
def test_the_start_is_told_with_what_was_measured_of_it(
    cold_ms: float | None, warm_ms: float | None, said: str
) -> None:
    accuracy = {"mae": 1.0, "mae_reference": 1.0, "drift": 0.0, "quantile_shift": 0.0}
    lines = run_lines(document(**accuracy, cold_start_ms=cold_ms, warm_start_ms=warm_ms))
    assert f"  {said}" in lines


def test_a_cold_start_that_others_compiled_beside_is_marked() -> None:
    accuracy = {"mae": 1.0, "mae_reference": 1.0, "drift": 0.0, "quantile_shift": 0.0}
    lines = run_lines(document(**accuracy, cold_start_ms=27_300.0, built_beside=2))
    assert "  starts in 27.3 s (compiled beside 2 others)" in lines


@pytest.mark.parametrize(
    ("cold_ms", "warm_ms", "said"),
    [
        (27_300.0, None, "starts in 27.3 s"),
        (27_300.0, 310.0, "starts in 27.3 s cold, 0.3 s warm"),
        (None, 310.0, "starts in 0.3 s warm"),
    ],
)
def test_a_trial_under_way_is_told_with_its_starts(
    cold_ms: float | None, warm_ms: float | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = replace(measured(), cold_start_ms=cold_ms, warm_start_ms=warm_ms)
    judged = Judged(feasible=True, score=0.5)
    PlainProgress().trial(
        TrialEvent(number=1, settings=COMPILED, outcome=outcome, judged=judged, seconds=1.0)
    )
    assert capsys.readouterr().err.strip().endswith(f"drift 0.00%, {said}")


def test_what_a_search_had_no_time_for_is_said_with_what_would_tell() -> None:
    left_open = {"configurations": 9, "likeliest": COMPILED.to_dict(), "chance": 0.375, "timeout": 240}
    trials = document()["trials"]

    text = "\n".join(run_lines(document(left_open=left_open)))
    settled = "\n".join(
        run_lines(document(left_open=left_open, trials=trials | {"ended_because": "settled"}))
    )

    assert (
        "not tried: 9, about 38% chance that one is 2 % better or more; the likeliest is default fp32 freezing=True"
        in text
    )
    assert "to find out: the same command with --timeout 240" in text
    as_good_as_known = document(left_open=left_open | {"timeout": None})
    assert "not tried" not in "\n".join(run_lines(as_good_as_known))
    assert "not tried" not in settled


def test_a_log_says_the_best_so_far_and_what_can_still_be_found(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlainProgress()
    left = LeftOpen(configurations=9, likeliest=COMPILED, chance=0.375, seconds=144.0)
    progress.still_open(left)
    judged = Judged(feasible=True, score=0.5)
    progress.trial(TrialEvent(number=1, settings=COMPILED, outcome=measured(), judged=judged, seconds=1.0))
    progress.still_open(replace(left, chance=0.001))

    before, _, after = capsys.readouterr().err.splitlines()
    assert before == "  nothing within the limits so far; 9 not tried, about 38% chance that one is better"
    assert after.startswith("  best so far: default fp32 freezing=True, ")
    assert after.endswith("; 9 not tried, hardly any chance that one is better")


def test_a_log_says_only_what_changes(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlainProgress()
    leaders = ("default fp32", "default fp32", "default bf16", "default fp32", "default fp32")
    for number, leader in enumerate(leaders, start=1):
        progress.say("timing 3 settings side by side")
        progress.say(f"stage 1: {leader} leads 3 challengers after launch {number}")
    progress.say("stage 2: after launch 1 of 10: ambiguous, gain 5 %")
    progress.say("stage 2: after launch 2 of 10: ambiguous, gain 5 %")

    assert capsys.readouterr().err.splitlines() == [
        "  timing 3 settings side by side",
        "  stage 1: default fp32 leads 3 challengers after launch 1",
        "  stage 1: default bf16 leads 3 challengers after launch 3",
        "  stage 1: default fp32 leads 3 challengers after launch 4",
        "  stage 2: after launch 1 of 10: ambiguous, gain 5 %",
        "  stage 2: after launch 2 of 10: ambiguous, gain 5 %",
    ]
