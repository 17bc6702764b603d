from __future__ import annotations

from dataclasses import replace

import pytest

from autotuner.measurement.outcome import Failed, Interval, Measured, Outcome
from autotuner.search.profiles import Limits, profile
from autotuner.search.scoring import judge
from autotuner.tuning.takeover import Proven, objection, shared_decision
from autotuner.workload import Workload
from tests.support.outcomes import measured, timing
from toto_core.settings import RuntimeSettings

WORKLOAD = Workload()
SETTINGS = RuntimeSettings(compile_mode="default", freezing=True)
PROVEN = Proven(
    symbol="AMD",
    promotion_id=1,
    settings=SETTINGS,
    ratio=Interval(estimate=2.0, low=1.9, high=2.1),
    measured=measured(timing(50.0)),
)


def seen(low: float, high: float, *, drift: float = 0.0) -> Measured:
    return replace(
        measured(timing(50.0), drift=drift), ratio=Interval(estimate=(low + high) / 2, low=low, high=high)
    )


def objected(outcome: Outcome) -> str | None:
    return objection(PROVEN, outcome, judge(outcome, WORKLOAD, profile("production"), Limits()))


@pytest.mark.parametrize(("low", "high"), [(1.95, 2.05), (1.5, 1.88), (2.15, 2.6), (1.2, 3.0)])
def test_a_launch_that_meets_the_promise_lets_it_stand(low: float, high: float) -> None:
    assert objected(seen(low, high)) is None


@pytest.mark.parametrize(("low", "high"), [(1.5, 1.8), (2.2, 2.4), (1.02, 3.0), (0.5, 2.0)])
def test_a_launch_that_disagrees_or_is_not_surely_faster_does_not(low: float, high: float) -> None:
    reason = objected(seen(low, high))

    assert reason is not None
    assert "AMD proved 2 [1.9, 2.1]" in reason


def test_forecasts_that_break_a_limit_here_are_refused() -> None:
    assert "drift" in (objected(seen(1.95, 2.05, drift=0.5)) or "")


def test_settings_that_fail_here_are_refused_with_the_cause() -> None:
    assert "compile_error: no g++" in (objected(Failed(kind="compile_error", detail="no g++")) or "")


def test_the_decision_names_whose_proof_it_rests_on() -> None:
    decision = shared_decision(seen(1.95, 2.05), PROVEN)

    assert (decision.verdict, decision.promoted, decision.settings) == ("first", True, SETTINGS)
    assert decision.reason.startswith("AMD proved default fp32 freezing=True 2 [1.9, 2.1]")
