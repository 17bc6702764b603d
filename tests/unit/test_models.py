"""Which of several models a symbol runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autotuner.measurement.model_accuracy import Losses
from autotuner.measurement.outcome import Interval
from autotuner.tuning.models import ModelLimits, of_equals


def times(low: float, estimate: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high)


SAME = times(1.0, 1.0, 1.0)


def test_of_equals_the_one_that_is_proven_faster_is_chosen() -> None:
    speeds = {"a": SAME, "b": times(1.05, 1.1, 1.15), "c": times(0.9, 1.3, 1.9)}
    model, why = of_equals(speeds, stays="a", runs="a")
    assert model == "b"
    assert "1.10 [1.05, 1.15] times as fast" in why


@pytest.mark.parametrize("low", [0.2, 0.99, 1.0, 1.02])
def test_without_proof_of_three_percent_the_one_that_runs_stays(low: float) -> None:
    speeds = {"a": SAME, "b": times(low, low + 0.5, low + 1.0)}
    assert of_equals(speeds, stays="a", runs="a") == (
        "a",
        "none is proven more accurate or faster, and what it ran before stays",
    )
    assert of_equals(speeds, stays="a", runs=None)[1].endswith("the first named stays")


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (ModelLimits(), None),
        (ModelLimits(mae=2.0, wql=0.02), None),
        (ModelLimits(mae=1.0), "MAE 1.5 is above the limit of 1"),
        (ModelLimits(wql=0.001), "quantile loss 0.01 is above the limit of 0.001"),
    ],
)
def test_a_limit_rules_a_model_out_with_its_figure(limits: ModelLimits, said: str | None) -> None:
    found = Losses(absolute=(np.full(9, 1.5),), quantile=(np.ones(9),), weights=(1.0,), level=100.0)
    assert limits.broken_by(found) == said
    assert math.isclose(found.wql, 0.01)
