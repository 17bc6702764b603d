"""Knobs: what only one engine's settings have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.search.gain_model import Tried, outlooks
from autotuner.search.space import search_space
from autotuner.workload import RequestShape, Workload
from toto_core.settings import RuntimeSettings, SettingsError, SettingsFacts, canonical

WORKLOAD = Workload(shapes=(RequestShape(context_length=512, prediction_length=96),))
OWN = {"block": (None, 32, 96), "masks": (True, False)}
FACTS = WORKLOAD.facts(
    device="cpu",
    threads=1,
    patch_size=32,
    knobs=OWN,
    ignored=("freezing", "compile_scope"),
    one_pass=True,
    samples=False,
)
VALUE = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters().filter(str.isprintable), max_size=64)
)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True).filter(
    lambda name: name not in RuntimeSettings.__dataclass_fields__
)


@given(st.dictionaries(NAMES, VALUE, max_size=16))
def test_settings_with_knobs_survive_json_and_flattening(knobs: dict[str, Any]) -> None:
    settings = RuntimeSettings(knobs=knobs)  # type: ignore[arg-type]
    assert RuntimeSettings.from_json(settings.to_json()) == settings
    assert RuntimeSettings.of(settings.flat) == settings
    assert hash(RuntimeSettings.from_dict(json.loads(settings.to_json()))) == hash(settings)


def test_settings_without_knobs_are_written_as_they_were_before_there_were_any() -> None:
    assert "knobs" not in RuntimeSettings().to_json()
    assert "knobs" not in RuntimeSettings().key
    assert RuntimeSettings().label == "eager fp32"


def test_a_knob_is_part_of_the_key_and_of_the_label() -> None:
    settings = RuntimeSettings(knobs=(("block", 32),))
    assert settings.label == "eager fp32 block=32"
    assert settings.key.endswith(" block=32")
    assert settings.value("block") == 32
    assert settings.value("masks") is None
    assert settings.complexity > RuntimeSettings().complexity


@pytest.mark.parametrize(
    "knobs",
    [
        {"no name": 1},
        {"": 1},
        {"precision": "fp32"},
        {"block": [1]},
        {"block": float("nan")},
        {"block": 2**80},
        {"block": "x" * 65},
        {f"k{number}": 1 for number in range(17)},
        "block",
        5,
        [1],
    ],
    ids=repr,
)
def test_what_is_no_knob_is_refused_in_one_line(knobs: Any) -> None:
    with pytest.raises(SettingsError) as refused:
        RuntimeSettings.from_dict({"knobs": knobs})
    assert "\n" not in str(refused.value)


def test_a_knob_at_its_default_and_one_that_the_engine_does_not_know_are_left_out() -> None:
    settings = RuntimeSettings(knobs=(("block", None), ("masks", False), ("other", 1)))
    assert canonical(settings, FACTS).knobs == (("masks", False),)
    assert canonical(settings.replace(knobs=(("masks", True),)), FACTS).knobs == ()


def test_what_an_engine_ignores_makes_no_difference() -> None:
    frozen = RuntimeSettings(compile_mode="default", freezing=True, compile_scope="layer")
    plain = RuntimeSettings(compile_mode="default")
    assert canonical(frozen, FACTS) == canonical(plain, FACTS)


def test_a_graph_of_a_whole_horizon_is_another_one_for_another_horizon() -> None:
    shapes = tuple(RequestShape(context_length=512, prediction_length=steps) for steps in (8, 96, 720))
    by_patch = Workload(shapes=shapes).facts(device="cpu", threads=1, patch_size=32)
    whole = Workload(shapes=shapes).facts(device="cpu", threads=1, patch_size=32, one_pass=True)
    assert (by_patch.graphs_needed(0), whole.graphs_needed(0)) == (2, 3)


def test_a_space_holds_every_combination_of_the_knobs_once() -> None:
    space = search_space(WORKLOAD, FACTS)
    found = {(key.value("block"), key.value("masks")) for key in space.keys if not key.compiled}
    assert found == {(block, masks) for block in (None, 32, 96) for masks in (None, False)}
    assert space.reference.knobs == ()
    for key in space.keys:
        assert space.canonical(key) == key
        assert space.key_of(space.values_of(key)) == key
        assert not key.freezing


def test_what_a_knob_gained_is_expected_of_others_with_it() -> None:
    space = search_space(WORKLOAD, FACTS)
    eager = space.reference
    quick = eager.replace(knobs=(("masks", False),))
    compiled = eager.replace(compile_mode="default")
    wanted = (compiled, compiled.replace(knobs=(("masks", False),)))
    tried = {eager: Tried(score=1.0, seconds=5.0), quick: Tried(score=0.4, seconds=5.0)}
    plain, with_knob = outlooks(wanted, tried)
    assert with_knob.gain > plain.gain


def test_facts_of_an_engine_without_samples_leave_no_batch_of_them() -> None:
    assert isinstance(FACTS, SettingsFacts)
    assert {key.samples_per_batch for key in search_space(WORKLOAD, FACTS).keys} == {None}
