"""What a run draws on a terminal while it goes on."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.console import Console

from autotuner.cli.live_progress import LiveProgress
from autotuner.measurement.outcome import Failed, Interval, Outcome
from autotuner.promotion.duel_plan import DuelLook
from autotuner.search.gain_model import LeftOpen
from autotuner.search.scoring import Judged
from autotuner.search.search import TrialEvent
from tests.support.outcomes import measured
from toto_core.settings import RuntimeSettings

EAGER, COMPILED = RuntimeSettings(), RuntimeSettings(compile_mode="default")


def ratio(low: float, estimate: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high)


def trial(number: int, settings: RuntimeSettings, outcome: Outcome, score: float | None) -> TrialEvent:
    judged = Judged(feasible=score is not None, score=score)
    return TrialEvent(number=number, settings=settings, outcome=outcome, judged=judged, seconds=1.0)


def drawn(progress: LiveProgress, console: Console) -> list[str]:
    with console.capture() as capture:
        console.print(progress._draw())
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in capture.get().splitlines()]


def under_way(console: Console) -> LiveProgress:
    progress = LiveProgress(console)
    progress.trial(trial(1, EAGER, replace(measured(), ratio=ratio(0.98, 1.0, 1.02)), 1.0))
    progress.trial(trial(2, COMPILED, replace(measured(), ratio=ratio(2.1, 2.4, 2.8)), 0.42))
    failed = Failed(kind="compile_error", detail="no g++")
    progress.trial(trial(3, COMPILED.replace(precision="bf16"), failed, None))
    progress.still_open(LeftOpen(configurations=9, likeliest=COMPILED, chance=0.375, seconds=144.0))
    return progress


def test_trials_are_drawn_with_their_intervals_the_best_is_named_and_the_rest_is_said() -> None:
    console = Console(width=140, force_terminal=True, no_color=True, legacy_windows=False)
    lines = drawn(under_way(console), console)

    assert "0.9x" in lines[0]
    assert "2.8x" in lines[0]
    assert "●" in lines[1]
    assert "├─" in lines[2]
    assert "┊" in lines[2]
    assert "compile_error" in lines[3]
    assert "●" not in lines[3]
    assert lines[4].startswith("best so far: default fp32, 2.40x [2.10, 2.80]; 9 not tried, about 38% chance")


def test_a_narrow_terminal_gets_no_bars_and_no_line_is_cut() -> None:
    console = Console(width=80, force_terminal=True, no_color=True)
    progress = under_way(console)
    lines = drawn(progress, console)
    assert "├" not in "".join(lines)

    progress.looked(DuelLook(launch=2, launches=5, verdict="ambiguous", gain=ratio(-4.0, 0.66, 0.98)))
    lines = drawn(progress, console)
    assert all(len(line) <= 80 and "…" not in line for line in lines)
    assert "2.40x [2.10, 2.80]" in "\n".join(lines)


def test_the_interval_of_the_duel_is_drawn_after_every_launch() -> None:
    console = Console(width=120, force_terminal=True, no_color=True)
    progress = under_way(console)
    for launch, (low, high) in enumerate([(-4.0, 0.98), (0.44, 0.8), (0.6, 0.7)], start=2):
        gain, verdict = ratio(low, 0.66, high), "better" if low > 0 else "ambiguous"
        progress.looked(DuelLook(launch=launch, launches=5, verdict=verdict, gain=gain))

    duel = [line for line in drawn(progress, console) if line.startswith("after launch")]
    widths = [line.rindex("┤") - line.index("├") for line in duel]
    assert widths == sorted(widths, reverse=True)
    assert duel[0].endswith("66.0% [-400.0%, 98.0%] ambiguous")
    assert duel[2].startswith("after launch 4 of 5")
    assert duel[2].endswith("66.0% [60.0%, 70.0%] better")


def test_what_is_done_now_stands_last_after_what_was_done_before() -> None:
    console = Console(width=120, force_terminal=True, no_color=True)
    progress = LiveProgress(console)
    for line in ("compiling A, B", "compiled A in 12.0 s; still B", "compiled A in 12.0 s; still B"):
        progress.say(line)

    lines = drawn(progress, console)
    assert lines[0] == "  compiling A, B"
    assert lines[1].startswith("> compiled A in 12.0 s; still B · for 0 s")
    assert len(lines) == 2


@pytest.mark.parametrize("no_color", ["1", "0", "anything"])
def test_no_color_leaves_the_words(no_color: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    console = Console(width=140, force_terminal=True)
    with console.capture() as capture:
        console.print(under_way(console)._draw())
    assert not re.search(r"\x1b\[(3|4|9|10)\d", capture.get())
    assert "best so far: default fp32" in capture.get()
