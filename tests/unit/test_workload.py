from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.errors import UsageError
from autotuner.workload import RequestShape, Workload, read_workload

shapes = st.builds(
    RequestShape,
    context_length=st.integers(1, 5000),
    prediction_length=st.integers(1, 500),
    num_samples=st.none() | st.integers(1, 1000),
    variates=st.integers(1, 4),
    weight=st.floats(1e-3, 1e3),
)
PRINTABLE = st.characters().filter(str.isprintable)
workloads = st.builds(
    Workload,
    model=st.text(PRINTABLE, min_size=1, max_size=20),
    revision=st.none() | st.text(PRINTABLE, max_size=20),
    shapes=st.lists(shapes, min_size=1, max_size=5).map(tuple),
    series_per_call=st.integers(1, 100),
    calls_per_process=st.integers(1, 10**9),
    concurrency=st.integers(1, 1000),
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "workload.toml"
    path.write_text(text, encoding="utf-8")
    return path


@given(workloads)
def test_a_workload_survives_plain_values(workload: Workload) -> None:
    assert Workload.from_dict(workload.to_dict()) == workload


@given(workloads, st.randoms())
def test_the_signature_does_not_depend_on_the_order_of_shapes(workload: Workload, rng: random.Random) -> None:
    shuffled = list(workload.shapes)
    rng.shuffle(shuffled)
    fields = workload.to_dict() | {"requests": [shape.__dict__ for shape in shuffled]}

    assert Workload.from_dict(fields).signature == workload.signature


@given(workloads, st.sampled_from((2, 0.25, 1024)))
def test_the_signature_depends_on_shares_not_on_the_scale_of_weights(
    workload: Workload, scale: float
) -> None:
    requests = [shape.__dict__ | {"weight": shape.weight * scale} for shape in workload.shapes]

    assert Workload.from_dict(workload.to_dict() | {"requests": requests}).signature == workload.signature


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other"},
        {"revision": "abc"},
        {"series_per_call": 2},
        {"calls_per_process": 5},
        {"concurrency": 2},
        {"requests": [{"context_length": 64}]},
        {"requests": [{"num_samples": None}]},
        {"requests": [{"variates": 2}]},
        {"requests": [{"weight": 3}, {"prediction_length": 9, "weight": 1}]},
    ],
    ids=str,
)
def test_whatever_production_asks_changes_the_signature(changes: dict[str, Any]) -> None:
    assert Workload.from_dict(changes).signature != Workload().signature


def test_the_signature_is_the_same_in_every_process() -> None:
    assert Workload().signature == "e40781d05b94b61c"


def test_processes_at_once_are_said_where_there_is_more_than_one() -> None:
    assert "at once" not in Workload().summary
    assert Workload(concurrency=4).summary.endswith(", 4 processes at once")
    assert "concurrency" not in Workload().to_dict()
    with pytest.raises(UsageError, match="concurrency must be a whole number from 1 to 1000, not 0"):
        Workload(concurrency=0)


@given(workloads)
def test_weights_are_shares_of_one(workload: Workload) -> None:
    assert sum(workload.weights) == pytest.approx(1.0)
    assert len(workload.weights) == len(workload.shapes)


def test_facts_hold_what_decides_which_settings_differ() -> None:
    workload = Workload(
        shapes=(
            RequestShape(context_length=512, num_samples=None),
            RequestShape(context_length=64, prediction_length=96, num_samples=32),
            RequestShape(context_length=512, num_samples=100),
        ),
        series_per_call=3,
    )
    found = workload.facts(device="cpu", threads=2, patch_size=64)

    assert found.shapes == ((64, 96), (512, 8))
    assert (found.most_samples, found.series_per_call, found.device, found.threads) == (100, 3, "cpu", 2)
    assert (workload.longest_context, workload.longest_prediction) == (512, 96)
    assert (
        Workload(shapes=(RequestShape(num_samples=None),))
        .facts(device="cuda", threads=1, patch_size=8)
        .most_samples
        == 0
    )


def test_a_workload_is_read_from_toml(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        model = "Datadog/Toto-Open-Base-1.0"
        series_per_call = 8

        [[requests]]
        context_length = 1024
        weight = 3

        [[requests]]
        prediction_length = 96
        num_samples = 0
        """,
    )

    assert read_workload(path) == Workload(
        model="Datadog/Toto-Open-Base-1.0",
        series_per_call=8,
        shapes=(
            RequestShape(context_length=1024, weight=3),
            RequestShape(prediction_length=96, num_samples=None),
        ),
    )


def test_an_empty_file_is_the_default_workload(tmp_path: Path) -> None:
    assert read_workload(written(tmp_path, "")) == Workload()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model = ", "is not TOML"),
        ("contexts = 3", "unknown field 'contexts'; known are calls_per_process, concurrency, model"),
        ("shapes = 3", "unknown field 'shapes'"),
        ("requests = 3", "requests must be a list of tables"),
        ("requests = [3]", "requests must be a list of tables"),
        ("requests = []", "needs at least one request shape"),
        ("[requests]\ncontext_length = 3", "requests must be a list of tables"),
        ("[[requests]]\nlength = 3", "requests: unknown field 'length'"),
        (
            "[[requests]]\ncontext_length = 0",
            "context_length must be a whole number from 1 to 1000000, not 0",
        ),
        ("[[requests]]\ncontext_length = 1.5", "context_length must be a whole number"),
        ("[[requests]]\nvariates = true", "variates must be a whole number"),
        ("[[requests]]\nnum_samples = -1", "num_samples must be a whole number"),
        ("[[requests]]\nweight = 0", "weight must be a number above 0"),
        ("[[requests]]\nweight = nan", "weight must be a number above 0"),
        ("[[requests]]\nweight = inf", "weight must be finite"),
        ("[[requests]]\nweight = '1'", "weight must be a number above 0"),
        ("model = ''", "model must be a name"),
        ("model = 3", "model must be a name"),
        ("revision = 3", "revision must be text"),
        ("series_per_call = 0", "series_per_call must be a whole number"),
        ("calls_per_process = 2000000000000", "calls_per_process must be a whole number from 1 to 10000"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_with_its_name(tmp_path: Path, text: str, reason: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_workload(path)

    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: cannot be read: No such file"):
        read_workload(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"binary\.toml: is not TOML"):
        read_workload(tmp_path / "binary.toml")


def test_the_summary_says_what_is_asked() -> None:
    mixed = Workload(
        shapes=(RequestShape(weight=3), RequestShape(context_length=64, num_samples=None, variates=2)),
        series_per_call=8,
    )

    assert Workload().summary == "toto-mini: context 512 · horizon 8 · 256 samples"
    assert mixed.summary == (
        "toto-mini: context 512 · horizon 8 · 256 samples (75%); "
        "context 64 · horizon 8 · mean path · 2 variates (25%), 8 series per call"
    )
