"""Progress of a run as plain lines, and the words that both they and a terminal show."""

from __future__ import annotations

import re

from autotuner.cli.options import note
from autotuner.measurement.outcome import Failed, Measured
from autotuner.promotion.duel_plan import DuelLook
from autotuner.report.run_view import chance
from autotuner.search.gain_model import LeftOpen
from autotuner.search.search import TrialEvent
from autotuner.search.space import SearchSpace
from autotuner.workload import Workload

_COUNT = re.compile(r" after launch \d+$")
"""All that differs between lines of stage 1 while the same challenger leads as many others."""


class PlainProgress:
    """One line on standard error for each thing that changes; what a log or a pipe gets."""

    def __init__(self) -> None:
        self._events: list[TrialEvent] = []
        self._said: dict[str, str] = {}

    def begin(self, symbol: str, workload: Workload, space: SearchSpace, known: int, seconds: float) -> None:
        """The search of a symbol begins."""
        self._events.clear()
        for line in opening_lines(symbol, workload, space, known, seconds):
            note(line)

    def say(self, line: str) -> None:
        """What is being done now, unless it is what was last said of that topic since the last trial."""
        said = _COUNT.sub("", line)
        topic = said.partition(":")[0]
        if said != self._said.get(topic):
            note(f"  {line}")
        self._said[topic] = said

    def trial(self, event: TrialEvent) -> None:
        """A trial has an outcome."""
        self._said.clear()
        what, score, detail = cells(event)
        line = f"  trial {event.number}: {event.settings.label}: {what} {score} {detail}"
        note(line.rstrip())
        self._events.append(event)

    def still_open(self, left_open: LeftOpen) -> None:
        """What is not tried yet."""
        note(f"  {standing(best_of(self._events), left_open)}")

    def looked(self, look: DuelLook) -> None:
        """What the duel shows after another launch: the duel says it as a line, too."""


def opening_lines(
    symbol: str, workload: Workload, space: SearchSpace, known: int, seconds: float
) -> tuple[str, ...]:
    """What will be searched, and for how long."""
    taken_up = f"; {known} outcomes are known already" if known else ""
    return (
        f"{symbol}: {workload.summary}",
        f"{space.describe()}{taken_up}; searching for about {seconds:.0f} s",
    )


def standing(best: TrialEvent | None, left_open: LeftOpen | None) -> str:
    """The best so far with its interval, and what the rest of the search can still find."""
    said = "nothing within the limits so far"
    if best is not None and isinstance(best.outcome, Measured):
        said = f"best so far: {best.settings.label}, {_speed_up(best.outcome)}"
    if left_open is None:
        return said
    return f"{said}; {left_open.configurations} not tried, {chance(left_open.chance)} that one is better"


def best_of(events: list[TrialEvent]) -> TrialEvent | None:
    """The trial with the best score within the limits, None where there is none."""
    scored = [e for e in events if e.judged.feasible and e.judged.score is not None]
    return min(scored, key=lambda e: e.judged.score or 0.0, default=None)


def cells(event: TrialEvent) -> tuple[str, str, str]:
    """Latency or failure kind, speed-up with its interval, and drift with cold start or the cause."""
    outcome = event.outcome
    if isinstance(outcome, Failed):
        return outcome.kind, "", outcome.detail
    latency = " / ".join(f"{timing.p50_ms:.2f}" for timing in outcome.timings) + " ms"
    conditions = outcome.conditions
    remarks = [f"drift {outcome.accuracy.drift:.2%}", f"starts in {_start(outcome)}"]
    if conditions.disturbed_blocks:
        remarks.append(f"{conditions.disturbed_blocks} of {conditions.blocks} blocks disturbed")
    return latency, _speed_up(outcome), ", ".join((*remarks, *event.judged.reasons))


def _speed_up(measured: Measured) -> str:
    ratio = measured.ratio
    return f"{ratio.estimate:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"


def _start(measured: Measured) -> str:
    start = f"{measured.start_ms / 1000:.1f} s"
    if not measured.was_warm:
        return start
    cold = "" if measured.cold_start_ms is None else f"{measured.cold_start_ms / 1000:.1f} s cold, "
    return f"{cold}{start} warm"
