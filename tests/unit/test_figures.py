from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.figures import (
    Figures,
    FiguresError,
    SharedFrom,
    figures_from_json,
    parse_figures,
    trial_figures,
    with_trial,
)
from autotuner.measurement.outcome import Conditions, Interval, ShapeTiming
from autotuner.serving.canary import Canary
from autotuner.workload import RequestShape, Workload
from tests.support.any_json import ANY_JSON
from tests.support.outcomes import measured, timing
from toto_core.compile_report import CompileReport
from toto_core.settings import RuntimeSettings

numbers = st.floats(allow_nan=False, allow_infinity=False)
intervals = st.builds(Interval, estimate=numbers, low=numbers, high=numbers)
maybe = st.none() | numbers
timings = st.builds(
    ShapeTiming, p50_ms=numbers, p95_ms=numbers, sigma_ms=numbers, calls=st.integers(0, 9), p99_ms=maybe
)
figures = st.builds(
    Figures,
    stage=st.sampled_from([None, "search", "duel", "shared"]),
    launches=st.none() | st.integers(0, 99),
    ratio=st.none() | intervals,
    p50_ms=maybe,
    p95_ms=maybe,
    p99_ms=maybe,
    sigma_time_ms=maybe,
    shapes=st.lists(
        st.builds(
            ShapeTiming,
            p50_ms=numbers,
            p95_ms=numbers,
            sigma_ms=numbers,
            calls=st.integers(0, 9),
            p99_ms=maybe,
        )
    ).map(tuple),
    drift=maybe,
    quantile_shift=maybe,
    mae=maybe,
    mae_reference=maybe,
    sigma_mae=maybe,
    cold_start_ms=maybe,
    warm_start_ms=maybe,
    peak_bytes=st.none() | st.integers(0, 2**63 - 1),
    compile_report=st.none()
    | st.builds(CompileReport, graphs=st.integers(0, 9), cudagraph_skips=st.just(("x",))),
    conditions=st.none() | st.builds(Conditions, load_average=numbers, blocks=st.integers(0, 9)),
    shared_from=st.none()
    | st.builds(SharedFrom, symbol=st.just("AMD"), ratio=intervals, promotion=st.none()),
    because=st.none()
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20),
    triggers=st.lists(st.sampled_from(["latency", "age"])).map(tuple),
    canary=st.none() | st.builds(Canary, share=st.floats(0, 1), previous=st.just(RuntimeSettings())),
)


@given(figures)
def test_what_is_stored_is_read_back(given_figures: Figures) -> None:
    assert figures_from_json(given_figures.to_json()) == given_figures


def read_or_said(value: Any) -> Figures | str:
    try:
        return parse_figures(value)
    except FiguresError as error:
        return str(error)


@given(ANY_JSON)
def test_any_json_is_figures_or_one_line(value: Any) -> None:
    found = read_or_said(value)

    assert found == Figures() or len(str(found).splitlines()) == 1


@given(st.sampled_from(dataclasses.fields(Figures)), ANY_JSON)
def test_any_value_of_a_field_is_read_as_that_field_or_refused_by_its_name(
    field: dataclasses.Field[Any], value: Any
) -> None:
    found = read_or_said({field.name: value})

    if isinstance(found, Figures):
        assert figures_from_json(found.to_json()) == found
    else:
        assert f"figures.{field.name}" in found


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"p50_ms": NaN}', '{"p50_ms": 1e999}', "9" * 5000])
def test_text_that_holds_no_figures_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(FiguresError) as refused:
        figures_from_json(text)
    assert len(str(refused.value).splitlines()) == 1


def test_fields_of_a_later_version_are_left_out() -> None:
    assert parse_figures({"p50_ms": 2, "watts": 90}) == Figures(p50_ms=2.0)


def test_a_version_that_stored_no_triggers_is_understood_by_its_words() -> None:
    slow = {"because": "last tuned 8 days ago; live p50 of 3 ms is past the promised 2 ms"}

    assert parse_figures(slow).triggers == ("latency",)
    assert parse_figures({"because": "last tuned 8 days ago"}).triggers == ()
    assert parse_figures(slow | {"triggers": ["age"]}).triggers == ("age",)


def test_figures_of_a_trial_weigh_request_shapes() -> None:
    shapes = (RequestShape(weight=3.0), RequestShape(context_length=256, weight=1.0))
    trial = dataclasses.replace(measured(timing(10.0), drift=0.004), timings=(timing(10.0), timing(20.0)))

    found = trial_figures(trial, Workload(shapes=shapes))

    assert (found.stage, found.launches, found.ratio) == ("search", 1, trial.ratio)
    assert found.p50_ms == 0.75 * 10.0 + 0.25 * 20.0
    assert found.shapes == trial.timings
    assert (found.drift, found.peak_bytes) == (0.004, trial.peak_bytes)


def test_a_percentile_that_one_shape_lacks_is_not_made_up() -> None:
    trial = dataclasses.replace(
        measured(timing(10.0)), timings=(dataclasses.replace(timing(10.0), p99_ms=None),)
    )

    assert trial_figures(trial, Workload()).p99_ms is None


def test_launches_keep_their_start_and_conditions_and_take_accuracy_from_the_trial() -> None:
    launches = Figures(stage="duel", launches=5, warm_start_ms=3.0, conditions=Conditions(blocks=120))

    found = with_trial(launches, measured(timing(10.0), drift=0.004, cold_start_ms=900.0))

    assert (found.stage, found.launches, found.warm_start_ms, found.cold_start_ms) == ("duel", 5, 3.0, 900.0)
    assert (found.drift, found.conditions) == (0.004, Conditions(blocks=120))


def test_a_promise_is_the_upper_end_of_what_the_interval_leaves_open() -> None:
    ratio = Interval(estimate=2.0, low=1.6, high=2.4)

    assert Figures(ratio=ratio, p50_ms=8.0, p99_ms=16.0).promised_ms == (10.0, 20.0)
    assert Figures(ratio=ratio, p50_ms=8.0).promised_ms == (10.0, None)
    assert Figures(p50_ms=8.0).promised_ms == (None, None)
    assert Figures(ratio=dataclasses.replace(ratio, low=0.0), p50_ms=8.0).promised_ms == (None, None)


def test_stored_figures_are_plain_json() -> None:
    stored = json.loads(trial_figures(measured(timing(10.0)), Workload()).to_json())

    assert stored["ratio"].keys() == {"estimate", "low", "high"}
    assert not {"because", "canary", "triggers", "shared_from"} & stored.keys()
    assert all(math.isfinite(stored[name]) for name in ("p50_ms", "p95_ms", "sigma_time_ms", "mae"))
