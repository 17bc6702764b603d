from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.measurement.outcome import (
    FAILURE_KINDS,
    Accuracy,
    ArmLaunch,
    Conditions,
    Failed,
    Interval,
    Launch,
    Measured,
    ShapeTiming,
    effective_ms,
    measured_from_json,
    measured_to_json,
)
from tests.support.absurd_store import changed
from tests.support.outcomes import measured, timing
from toto_core.compile_report import CompileReport
from toto_core.settings import RuntimeSettings

numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10**12)
intervals = st.builds(Interval, estimate=numbers, low=numbers, high=numbers)
timings = st.lists(
    st.builds(ShapeTiming, p50_ms=numbers, p95_ms=numbers, sigma_ms=numbers, calls=counts), max_size=3
).map(tuple)
raw_blocks = st.lists(
    st.lists(st.lists(numbers, max_size=4).map(tuple), max_size=4).map(tuple), max_size=3
).map(tuple)
accuracies = st.builds(
    Accuracy,
    mae=numbers,
    mae_reference=numbers,
    sigma_mae=numbers,
    drift=numbers,
    quantile_shift=numbers,
    windows=counts,
    seeds=counts,
)
reports = st.builds(
    CompileReport,
    requested=st.booleans(),
    graphs=counts,
    graph_breaks=counts,
    recompiles=counts,
    recompile_limit_hit=st.booleans(),
    cudagraph_skips=st.lists(st.text(), max_size=3).map(tuple),
    compile_seconds=numbers,
    cache_hits=counts,
)
all_conditions = st.builds(
    Conditions,
    load_average=numbers,
    foreign_cpu_seconds=numbers,
    disturbed_blocks=counts,
    blocks=counts,
)


def measurements_with(
    cold: st.SearchStrategy[float | None], warm: st.SearchStrategy[float | None]
) -> st.SearchStrategy[Measured]:
    return st.builds(
        Measured,
        timings=timings,
        reference_timings=timings,
        ratio=intervals,
        cold_start_ms=cold,
        warm_start_ms=warm,
        reference_cold_start_ms=numbers,
        peak_bytes=counts,
        accuracy=accuracies,
        report=reports,
        conditions=all_conditions,
        blocks=raw_blocks,
        reference_blocks=raw_blocks,
    )


measurements = measurements_with(numbers, st.none() | numbers) | measurements_with(st.none(), numbers)


@given(measurements)
def test_a_measurement_survives_json(outcome: Measured) -> None:
    text = measured_to_json(outcome)

    assert "\n" not in text
    assert measured_from_json(text) == outcome


def without(name: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(measured_to_json(measured()))
    del fields[name]
    return fields


@pytest.mark.parametrize(
    ("cold_ms", "warm_ms", "start_ms"), [(900.0, None, 900.0), (900.0, 30.0, 30.0), (None, 30.0, 30.0)]
)
def test_a_process_in_production_pays_the_warm_start_where_there_is_one(
    cold_ms: float | None, warm_ms: float | None, start_ms: float
) -> None:
    outcome = replace(measured(), cold_start_ms=cold_ms, warm_start_ms=warm_ms)

    assert (outcome.start_ms, outcome.was_warm) == (start_ms, warm_ms is not None)


def test_a_measurement_without_any_start_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a cold or a warm start"):
        replace(measured(), cold_start_ms=None)


@pytest.mark.parametrize("name", list(json.loads(measured_to_json(measured()))))
def test_a_measurement_without_one_of_its_fields_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a measurement"):
        measured_from_json(json.dumps(without(name)))


@pytest.mark.parametrize("name", ["timings", "ratio", "accuracy", "report", "conditions", "blocks"])
@pytest.mark.parametrize("wrong", [3, "text", [3], {"colour": 1}])
def test_a_measurement_with_a_field_of_another_form_is_refused(name: str, wrong: object) -> None:
    with pytest.raises(ValueError, match="not a measurement"):
        measured_from_json(json.dumps({**without(name), name: wrong}))


@given(st.text(max_size=50))
def test_text_that_is_no_measurement_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a measurement"):
        measured_from_json(text)


@pytest.mark.parametrize("kind", FAILURE_KINDS)
def test_a_failure_keeps_its_kind_and_one_line_of_cause(kind: str) -> None:
    failed = Failed(kind=kind, detail="first\n  second\t" + "x" * 1_000)

    assert failed.kind == kind
    assert failed.detail.startswith("first second x")
    assert len(failed.detail) == 500


def test_an_unknown_kind_of_failure_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"timeout, out_of_memory, .* not 'slow'"):
        Failed(kind="slow")


def test_the_arm_of_a_launch_is_found_by_its_settings() -> None:
    settings = (RuntimeSettings(), RuntimeSettings(precision="bf16"))
    arms = (ArmLaunch(start_ms=1.0, blocks=()), Failed(kind="timeout"))
    launch = Launch(settings=settings, arms=arms)

    assert [launch.arm(asked) for asked in settings] == list(arms)
    with pytest.raises(KeyError, match="default fp32"):
        launch.arm(RuntimeSettings(compile_mode="default"))


def test_an_interval_reads_as_estimate_and_bounds() -> None:
    assert str(Interval(estimate=1.23456, low=1.0, high=1.5)) == "1.23 [1, 1.5]"


def test_whatever_else_stands_in_a_stored_measurement_it_is_read_or_none() -> None:
    blocks = (tuple((1.0, 2.0, 1.5) for _ in range(3)),)
    whole = json.loads(measured_to_json(measured(timing(50.0, 1.0), blocks=blocks)))
    chance = random.Random(0)
    refused = 0
    for _ in range(2_000):
        text = json.dumps(changed(whole, chance))
        try:
            found = measured_from_json(text)
        except ValueError:
            refused += 1
            continue
        assert math.isfinite(effective_ms(found.timings, [1.0] * len(found.timings), 0.05))
    assert 500 < refused < 2_000
