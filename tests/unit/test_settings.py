from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toto_core.settings import (
    COMPILE_MODES,
    COMPILE_SCOPES,
    DEFAULT_RECOMPILE_LIMIT,
    PRECISIONS,
    RuntimeSettings,
    SettingsError,
    SettingsFacts,
    canonical,
    round_up,
)

all_settings = st.builds(
    RuntimeSettings,
    compile_mode=st.sampled_from(COMPILE_MODES),
    precision=st.sampled_from(PRECISIONS),
    recompile_limit=st.integers(1, 100_000),
    series_per_batch=st.integers(1, 65_536),
    samples_per_batch=st.none() | st.integers(1, 1_000_000),
    context_bucket=st.integers(0, 1_000_000),
    dynamic=st.booleans(),
    freezing=st.booleans(),
    compile_scope=st.sampled_from(COMPILE_SCOPES),
    num_threads=st.none() | st.integers(1, 4096),
)
lengths = st.integers(1, 1_000_000) | st.integers(1, 700)
all_facts = st.builds(
    SettingsFacts,
    device=st.sampled_from(("cpu", "cuda")),
    threads=st.integers(1, 256),
    patch_size=st.integers(1, 128),
    shapes=st.lists(st.tuples(lengths, lengths), min_size=1, max_size=12, unique=True).map(tuple),
    most_samples=st.integers(0, 1_000_000),
    series_per_call=st.integers(1, 65_536),
)
ONE_SHAPE = SettingsFacts(device="cpu", threads=4, patch_size=64, shapes=((512, 8),), most_samples=256)
CUDA = SettingsFacts(device="cuda", threads=4, patch_size=64, shapes=((512, 8),), most_samples=256)


def facts(
    *shapes: tuple[int, int], device: str = "cuda", most_samples: int = 256, fp16_units: bool = False
) -> SettingsFacts:
    return SettingsFacts(
        device=device,
        threads=4,
        patch_size=64,
        shapes=shapes,
        most_samples=most_samples,
        fp16_units=fp16_units,
    )


@given(all_settings, all_facts)
def test_canonical_form_is_its_own_canonical_form(settings: RuntimeSettings, rules: SettingsFacts) -> None:
    once = canonical(settings, rules)

    assert canonical(once, rules) == once


def test_a_field_that_stands_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="'precision' stands there twice"):
        RuntimeSettings.from_json('{"precision": "fp32", "precision": "bf16"}')


@given(all_settings)
def test_settings_survive_json(settings: RuntimeSettings) -> None:
    assert RuntimeSettings.from_json(settings.to_json()) == settings


@given(all_settings, all_settings)
def test_keys_are_equal_exactly_for_equal_settings(one: RuntimeSettings, other: RuntimeSettings) -> None:
    assert (one.key == other.key) == (one == other)
    assert one.key == one.replace().key


@given(all_facts, lengths, st.integers(0, 1_000_000))
def test_a_padded_context_holds_the_context_in_whole_patches(
    rules: SettingsFacts, context: int, bucket: int
) -> None:
    padded = rules.padded(context, bucket)

    assert padded >= context
    assert padded % rules.patch_size == 0
    if bucket:
        assert padded % round_up(bucket, rules.patch_size) == 0
    else:
        assert padded - context < rules.patch_size


@given(st.integers(0, 10**9), st.integers(1, 10**6))
def test_rounding_up_gives_the_next_multiple(value: int, multiple: int) -> None:
    assert value <= round_up(value, multiple) < value + multiple
    assert round_up(value, multiple) % multiple == 0


@pytest.mark.parametrize(
    ("alias", "mode"),
    [("reduce-overhead", "default"), ("max-autotune-no-cudagraphs", "max-autotune"), ("eager", "eager")],
)
def test_without_cuda_graphs_two_modes_are_aliases(alias: str, mode: str) -> None:
    asked = RuntimeSettings(compile_mode=alias)

    assert canonical(asked, ONE_SHAPE).compile_mode == mode
    assert canonical(asked, CUDA).compile_mode == alias


def test_tf32_is_fp32_on_a_cpu_and_a_precision_of_its_own_on_a_gpu() -> None:
    asked = RuntimeSettings(precision="tf32")

    assert canonical(asked, ONE_SHAPE).precision == "fp32"
    assert canonical(asked, CUDA).precision == "tf32"


@pytest.mark.parametrize(
    ("device", "fp16_units", "expected"),
    [
        ("cpu", False, ("fp32", "bf16")),
        ("cpu", True, ("fp32", "bf16", "fp16")),
        ("cuda", False, ("fp32", "tf32", "bf16", "fp16")),
    ],
)
def test_precisions_are_tried_where_they_can_differ(
    device: str, fp16_units: bool, expected: tuple[str, ...]
) -> None:
    assert facts((512, 8), device=device, fp16_units=fp16_units).precisions == expected


def test_threads_are_named_on_a_cpu_and_left_alone_on_a_gpu() -> None:
    assert canonical(RuntimeSettings(), ONE_SHAPE).num_threads == 4
    assert canonical(RuntimeSettings(num_threads=2), ONE_SHAPE).num_threads == 2
    assert canonical(RuntimeSettings(num_threads=2), CUDA).num_threads is None


@given(all_settings, st.integers(1, 4096), st.integers(1, 64))
def test_one_request_shape_leaves_nothing_to_bucket_or_recompile(
    settings: RuntimeSettings, context: int, prediction: int
) -> None:
    key = canonical(settings, facts((context, prediction)))

    assert (key.context_bucket, key.dynamic, key.recompile_limit) == (0, False, DEFAULT_RECOMPILE_LIMIT)


@given(all_settings, all_facts)
def test_eager_settings_differ_in_precision_threads_and_batches_alone(
    settings: RuntimeSettings, rules: SettingsFacts
) -> None:
    eager = canonical(settings.replace(compile_mode="eager"), rules)
    default = RuntimeSettings()

    for name in ("recompile_limit", "context_bucket", "dynamic", "freezing", "compile_scope"):
        assert getattr(eager, name) == getattr(default, name)


def test_several_contexts_keep_a_bucket_that_saves_graphs() -> None:
    rules = facts((128, 8), (500, 8))
    compiled = RuntimeSettings(compile_mode="default", recompile_limit=2, dynamic=True)

    assert canonical(compiled.replace(context_bucket=512), rules).context_bucket == 512
    assert canonical(compiled.replace(context_bucket=512), rules).dynamic is False
    assert canonical(compiled.replace(context_bucket=64), rules).context_bucket == 0
    assert canonical(compiled, rules).dynamic is True


def test_a_recompile_limit_matters_only_below_the_graphs_needed() -> None:
    rules = facts(*((64 * patches, 8) for patches in range(1, 11)))
    compiled = RuntimeSettings(compile_mode="default")

    assert canonical(compiled.replace(recompile_limit=2), rules).recompile_limit == 2
    assert canonical(compiled.replace(recompile_limit=9), rules).recompile_limit == 9
    assert canonical(compiled.replace(recompile_limit=10), rules).recompile_limit == 10
    assert canonical(compiled.replace(recompile_limit=64), rules).recompile_limit == 10


def test_samples_per_batch_matters_only_beyond_one_patch() -> None:
    some = RuntimeSettings(samples_per_batch=16)

    assert canonical(some, facts((512, 64))).samples_per_batch is None
    assert canonical(some, facts((512, 65))).samples_per_batch == 16
    assert canonical(some, facts((512, 65), most_samples=16)).samples_per_batch is None
    assert canonical(some, facts((512, 65), most_samples=0)).samples_per_batch is None


def test_more_series_per_batch_than_a_call_has_is_all_of_them() -> None:
    assert canonical(RuntimeSettings(series_per_batch=64), ONE_SHAPE).series_per_batch == 1


def test_simpler_settings_sort_first() -> None:
    simple_to_complex = [
        RuntimeSettings(),
        RuntimeSettings(num_threads=2),
        RuntimeSettings(precision="bf16"),
        RuntimeSettings(compile_mode="default"),
        RuntimeSettings(compile_mode="default", freezing=True),
        RuntimeSettings(compile_mode="default", precision="bf16"),
        RuntimeSettings(compile_mode="reduce-overhead"),
        RuntimeSettings(compile_mode="max-autotune"),
    ]

    shuffled = simple_to_complex[::-1]

    assert sorted(shuffled, key=lambda s: s.complexity) == simple_to_complex


def test_a_label_names_what_differs_from_the_default() -> None:
    assert RuntimeSettings().label == "eager fp32"
    assert RuntimeSettings(compile_mode="default", freezing=True).label == "default fp32 freezing=True"


WRONG: list[dict[str, Any]] = [
    {"compile_mode": "fast"},
    {"compile_mode": None},
    {"precision": "int8"},
    {"compile_scope": "half"},
    {"recompile_limit": 0},
    {"recompile_limit": True},
    {"recompile_limit": 8.0},
    {"recompile_limit": None},
    {"series_per_batch": "4"},
    {"series_per_batch": 65_537},
    {"samples_per_batch": 0},
    {"samples_per_batch": False},
    {"context_bucket": -1},
    {"context_bucket": []},
    {"num_threads": 0},
    {"num_threads": 4097},
    {"dynamic": 1},
    {"dynamic": "false"},
    {"freezing": None},
]


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_a_value_of_the_wrong_type_or_range_is_refused_by_name(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(SettingsError, match=f"settings: {name} must be") as caught:
        RuntimeSettings.from_dict(values)
    assert "\n" not in str(caught.value)


def test_an_unknown_field_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"unknown field 'mode'; known are compile_mode, compile_scope"):
        RuntimeSettings.from_dict({"mode": "eager"})


def test_absent_fields_take_their_default() -> None:
    assert RuntimeSettings.from_json('{"precision": "bf16"}') == RuntimeSettings(precision="bf16")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"eager"', '{"dynamic": NaN}'])
def test_text_that_is_no_settings_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="settings: "):
        RuntimeSettings.from_json(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
field_names = st.sampled_from(tuple(RuntimeSettings().to_dict())) | st.text(max_size=8)


@given(st.dictionaries(field_names, json_values, max_size=4))
def test_any_json_object_is_settings_or_a_refusal_of_one_line(values: dict[str, Any]) -> None:
    refusal = ""
    try:
        assert RuntimeSettings.from_json(json.dumps(values)).to_dict().items() >= values.items()
    except SettingsError as error:
        refusal = str(error)

    assert "\n" not in refusal


def test_settings_need_no_torch() -> None:
    code = "import sys, toto_core.settings; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_longest_bucket_has_a_canonical_form_whatever_the_patch() -> None:
    rules = SettingsFacts(device="cpu", threads=1, patch_size=6, shapes=((1, 1), (99, 1)), most_samples=0)
    longest = RuntimeSettings(compile_mode="default", context_bucket=1_000_000)

    assert canonical(longest, rules).context_bucket == 1_000_000
    assert canonical(longest.replace(context_bucket=999_997), rules) == canonical(longest, rules)
