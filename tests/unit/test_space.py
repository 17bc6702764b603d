from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.search.space import SearchSpace, search_space
from autotuner.workload import RequestShape, Workload
from toto_core.settings import RuntimeSettings, SettingsFacts, canonical

ONE_SHAPE = Workload()
SEVERAL = Workload(
    shapes=(
        RequestShape(context_length=128, prediction_length=8),
        RequestShape(context_length=512, prediction_length=8),
        RequestShape(context_length=512, prediction_length=96, num_samples=64),
    ),
    series_per_call=6,
)


def facts(workload: Workload, device: str = "cpu", threads: int = 2) -> SettingsFacts:
    return workload.facts(device=device, threads=threads, patch_size=64)


def space(workload: Workload, device: str = "cpu", threads: int = 2) -> SearchSpace:
    return search_space(workload, facts(workload, device, threads))


shapes = st.builds(
    RequestShape,
    context_length=st.integers(1, 300),
    prediction_length=st.sampled_from((1, 8, 96)),
    num_samples=st.sampled_from((None, 3, 64)),
)
workloads = st.builds(
    Workload, shapes=st.lists(shapes, min_size=1, max_size=3).map(tuple), series_per_call=st.integers(1, 3)
)


@settings(max_examples=15)
@given(workloads, st.sampled_from(("cpu", "cuda")), st.integers(1, 2))
def test_the_keys_are_the_canonical_forms_of_every_combination(
    workload: Workload, device: str, threads: int
) -> None:
    rules = facts(workload, device, threads)
    found = search_space(workload, rules)
    names = list(found.choices)
    combinations = itertools.product(*found.choices.values())
    everything = (RuntimeSettings(**dict(zip(names, c, strict=True))) for c in combinations)  # type: ignore[arg-type]

    assert set(found.keys) == {canonical(one, rules) for one in everything}
    assert len(set(found.keys)) == len(found.keys)


@settings(max_examples=15)
@given(workloads, st.sampled_from(("cpu", "cuda")))
def test_every_key_has_raw_values_that_come_back_to_it(workload: Workload, device: str) -> None:
    found = space(workload, device)

    for key in found.keys:
        values = found.values_of(key)
        assert all(value in found.sampled[name] for name, value in values.items())
        assert found.key_of(values) == key


def test_one_request_shape_on_a_cpu_leaves_twenty_eight_keys() -> None:
    found = space(ONE_SHAPE)

    assert found.describe() == "960 combinations, 28 distinct keys on cpu for this workload"
    assert set(found.sampled) == {"compile_mode", "precision", "freezing", "compile_scope", "num_threads"}
    assert found.sampled["compile_mode"] == ("eager", "default", "max-autotune")


def test_eager_keys_differ_in_precision_threads_and_batches_alone() -> None:
    eager = [key for key in space(SEVERAL).keys if not key.compiled]
    default = RuntimeSettings()

    for name in ("recompile_limit", "context_bucket", "dynamic", "freezing", "compile_scope"):
        assert {getattr(key, name) for key in eager} == {getattr(default, name)}
    for name in ("precision", "num_threads", "series_per_batch", "samples_per_batch"):
        assert len({getattr(key, name) for key in eager}) > 1, name


def test_a_cuda_space_has_all_modes_and_no_threads() -> None:
    found = space(ONE_SHAPE, "cuda")

    assert len({key.compile_mode for key in found.keys}) == 5
    assert found.choices["num_threads"] == (None,)


def test_every_precision_of_the_device_is_in_the_space() -> None:
    assert {key.precision for key in space(ONE_SHAPE, "cuda").keys} == {"fp32", "tf32", "bf16", "fp16"}
    assert {key.precision for key in space(ONE_SHAPE).keys} == {"fp32", "bf16"}


def test_series_are_batched_in_powers_of_two_up_to_all_of_a_call() -> None:
    assert space(SEVERAL).choices["series_per_batch"] == (1, 2, 4, 6)
    assert space(ONE_SHAPE).choices["series_per_batch"] == (1,)


def test_threads_are_powers_of_two_and_all_of_them() -> None:
    assert space(ONE_SHAPE, threads=6).choices["num_threads"] == (1, 2, 4, 6)


@pytest.mark.parametrize(
    ("prediction_length", "num_samples", "expected"),
    [
        (64, 256, (None,)),
        (65, 256, (None, 64, 16)),
        (65, 3, (None, 1)),
        (65, None, (None,)),
        (65, 1, (None,)),
    ],
)
def test_samples_are_split_only_where_that_can_matter(
    prediction_length: int, num_samples: int | None, expected: tuple[int | None, ...]
) -> None:
    workload = Workload(shapes=(RequestShape(prediction_length=prediction_length, num_samples=num_samples),))

    assert space(workload).choices["samples_per_batch"] == expected


def test_several_contexts_get_a_bucket_between_the_shortest_and_the_longest() -> None:
    assert space(SEVERAL).choices["context_bucket"] == (0, 256, 512)
    assert space(ONE_SHAPE).choices["context_bucket"] == (0, 512)


def aliases(found: SearchSpace, settings: RuntimeSettings) -> list[RuntimeSettings]:
    """Settings that differ from the key of ``settings`` in one field and still are the same thing."""
    key = found.canonical(settings)
    changed = (key.replace(**{name: value}) for name, values in found.choices.items() for value in values)
    return [other for other in changed if other != key and found.canonical(other) == key]


def test_reduce_overhead_is_an_alias_of_default_on_a_cpu_only() -> None:
    default = RuntimeSettings(compile_mode="default")
    on_cpu = {alias.compile_mode for alias in aliases(space(ONE_SHAPE), default)}

    assert "reduce-overhead" in on_cpu
    assert {alias.compile_mode for alias in aliases(space(ONE_SHAPE, "cuda"), default)} == {"default"}


def test_aliases_are_the_same_thing_and_never_the_key_itself() -> None:
    found = space(SEVERAL)
    key = found.keys[-1]

    assert aliases(found, key)
    assert all(found.canonical(alias) == key and alias != key for alias in aliases(found, key))


def test_one_layer_is_tried_as_well_as_the_whole_graph_and_only_that_can_be_frozen() -> None:
    scopes = {(key.compile_scope, key.freezing) for key in space(ONE_SHAPE).keys if key.compiled}

    assert scopes == {("full", False), ("full", True), ("layer", False)}


def test_a_hundred_thousand_combinations_come_to_far_fewer_keys() -> None:
    workload = Workload(shapes=SEVERAL.shapes, series_per_call=256)
    found = search_space(workload, facts(workload, threads=64))

    assert found.raw_size >= 100_000
    assert len(found.keys) < found.raw_size


def test_the_reference_is_a_key() -> None:
    found = space(SEVERAL)

    assert found.reference == canonical(RuntimeSettings(), facts(SEVERAL))
    assert found.reference in found


def test_a_space_of_given_settings_holds_exactly_those() -> None:
    given_settings = (
        RuntimeSettings(),
        RuntimeSettings(compile_mode="default"),
        RuntimeSettings(compile_mode="max-autotune", precision="bf16"),
    )
    found = SearchSpace.of((*given_settings, *given_settings))

    assert found.keys == given_settings
    assert set(found.sampled) == {"compile_mode", "precision"}
    assert [found.key_of(found.values_of(key)) for key in given_settings] == list(given_settings)
    assert found.key_of({"compile_mode": "default", "precision": "bf16"}) is None
    assert found.describe() == "3 given configurations"


def test_a_space_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one configuration"):
        SearchSpace.of(())


def test_equal_spaces_have_equal_digests() -> None:
    explicit = SearchSpace.of((RuntimeSettings(),))
    spaces = [space(ONE_SHAPE), space(SEVERAL), space(ONE_SHAPE, "cuda"), explicit]

    assert len({found.digest for found in spaces}) == len(spaces)
    assert space(SEVERAL).digest == space(SEVERAL).digest


def test_no_more_samples_are_decoded_together_than_production_had_memory_for() -> None:
    workload = Workload(shapes=(RequestShape(prediction_length=65, num_samples=256),))
    limited = search_space(workload, workload.facts(device="cpu", threads=2, patch_size=64, most_together=32))
    assert {key.samples_per_batch for key in limited.keys} == {32, 16}
    assert limited.reference.samples_per_batch == 32
    assert limited.reference in limited
    assert limited.canonical(RuntimeSettings(samples_per_batch=64)) == limited.reference
