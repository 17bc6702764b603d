from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toto_core.requests import ForecastRequest, RequestError, batches, length, read_context
from toto_core.settings import RuntimeSettings
from toto_core.toto1.decode import Context

PATCH = 4


def read(context: Any, padding_mask: Any = None, id_mask: Any = None) -> Context:
    return read_context(context, padding_mask, id_mask, PATCH)


@pytest.mark.parametrize(
    "context",
    [
        [1.0, 2.0, 3.0, 4.0, 5.0],
        (1, 2, 3, 4, 5),
        np.arange(1.0, 6.0),
        np.arange(5.0, 0.0, -1.0)[::-1],
        np.arange(1, 6, dtype=np.int32)[None],
        torch.arange(1.0, 6.0, requires_grad=True),
        torch.arange(1, 6, dtype=torch.float64).reshape(1, 1, 5),
    ],
)
def test_a_context_may_be_anything_array_like_of_one_to_three_dimensions(context: Any) -> None:
    read_in = read(context)
    assert read_in.series.dtype == torch.float32
    assert not read_in.series.requires_grad
    assert torch.equal(read_in.series, torch.tensor([[[0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]]))
    assert torch.equal(read_in.valid, torch.tensor([[[False] * 3 + [True] * 5]]))
    assert read_in.groups is None
    assert read_in.pad_patches is None


def test_a_column_is_one_series() -> None:
    values = np.arange(1.0, 9.0)
    for column in (values[:, None], torch.from_numpy(values)[:, None], pd.DataFrame({"close": values})):
        assert torch.equal(read(column).series, torch.from_numpy(values).float()[None, None])
        assert length(column) == 8
    masked = read(values[:, None], padding_mask=(values > 2.0)[:, None])
    assert masked.valid.flatten().tolist() == [False, False, *[True] * 6]


def test_what_a_masked_array_hides_is_not_real() -> None:
    read_in = read(np.ma.masked_array([1.0, np.nan, 3.0, 4.0], mask=[False, True, False, False]))
    assert torch.equal(read_in.series, torch.tensor([[[1.0, 0.0, 3.0, 4.0]]]))
    assert read_in.valid.flatten().tolist() == [True, False, True, True]


def test_numbers_of_numpy_count_as_whole_numbers() -> None:
    numbers: dict[str, Any] = dict.fromkeys(
        ("steps", "num_samples", "samples_per_batch", "seed"), np.int64(3)
    )
    assert ForecastRequest(patch_size=4, **numbers).patches == 1
    with pytest.raises(RequestError, match="num_samples must be a whole number"):
        ForecastRequest(patch_size=4, **numbers | {"num_samples": np.float64(3)})


def test_dimensions_are_batch_variate_and_time() -> None:
    values = np.arange(2 * 3 * 8).reshape(2, 3, 8)
    assert torch.equal(read(values).series, torch.from_numpy(values).float())
    assert read(values[0]).series.shape == (1, 3, 8)


def test_the_caller_keeps_his_array() -> None:
    values = np.array([1.0, np.nan, 3.0, 4.0])
    read_in = read(values, padding_mask=[1, 0, 1, 1])
    assert torch.equal(read_in.series, torch.tensor([[[1.0, 0.0, 3.0, 4.0]]]))
    assert np.isnan(values[1])


def test_masked_values_are_zero_and_marked() -> None:
    read_in = read([9.0, 8.0, 7.0, 6.0], padding_mask=np.array([False, False, True, True]))
    assert torch.equal(read_in.series, torch.tensor([[[0.0, 0.0, 7.0, 6.0]]]))
    assert torch.equal(read_in.valid, torch.tensor([[[False, False, True, True]]]))


def test_groups_are_read_per_patch_and_padding_joins_the_first_one() -> None:
    ids = np.array([[0.0] * 6, [1.0] * 2 + [2.0] * 4])
    read_in = read(np.ones((2, 6)), id_mask=ids)
    assert read_in.groups is not None
    assert torch.equal(read_in.groups, torch.tensor([[[0, 0], [1, 2]]]))


@pytest.mark.parametrize(
    ("context", "masks", "reason"),
    [
        (3.0, {}, "1 to 3 dimensions, not 0"),
        (np.zeros((1, 1, 1, 4)), {}, "1 to 3 dimensions, not 4"),
        ([], {}, "empty"),
        (np.zeros((0, 1, 4)), {}, "empty"),
        (np.zeros((1, 0, 4)), {}, "empty"),
        (["a", "b"], {}, "not an array of numbers"),
        ([[1.0], [1.0, 2.0]], {}, "not an array of numbers"),
        ([1.0 + 1.0j], {}, "not an array of numbers"),
        (None, {}, "not an array of numbers"),
        ([1.0, 2.0, 3.0, float("nan")], {}, "NaN or infinite"),
        ([1.0, 2.0, 3.0, 1e39], {}, "NaN or infinite"),
        ([1.0, 2.0, 3.0, float("inf")], {"padding_mask": [True] * 4}, "NaN or infinite"),
        ([1.0, 2.0, 3.0, 4.0], {"padding_mask": [True]}, "padding_mask must have the shape of context"),
        ([1.0, 2.0, 3.0, 4.0], {"id_mask": [[0, 0], [0, 0]]}, "id_mask must have the shape of context"),
        ([1.0, 2.0, 3.0, 4.0], {"id_mask": [0, 0, 0, 1]}, "id_mask changes inside a patch"),
        ([1.0, 2.0, 3.0], {}, "3 time steps, fewer than one patch of 4: give a longer history"),
        (np.ones((40, 5)), {}, "40 variates of 5 time steps: time comes last"),
        (np.ones(8), {"padding_mask": [False] * 8}, "padding_mask is false throughout"),
        (np.ma.masked_array(np.ones(8), mask=True), {}, "padding_mask is false throughout"),
        (np.ones((2, 1, 8)), {"padding_mask": np.arange(16).reshape(2, 1, 8) < 8}, "padding_mask is false"),
    ],
)
def test_what_cannot_be_forecast_is_refused_in_one_line(
    context: Any, masks: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RequestError, match=reason) as refused:
        read(context, **masks)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("predict: ")


def some_context(series: int, variates: int, length: int, *, groups: bool) -> Context:
    values = torch.arange(1.0, 1.0 + series * variates * length).reshape(series, variates, length)
    ids = torch.arange(variates)[None, :, None].expand(series, variates, length) if groups else None
    return read(values, id_mask=ids)


@settings(max_examples=100)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 2), st.integers(PATCH, 30)),
    st.booleans(),
    st.integers(1, 4),
    st.integers(0, 20),
)
def test_compiled_calls_have_one_shape_and_lose_nothing(
    shape: tuple[int, int, int], groups: bool, per_batch: int, bucket: int
) -> None:
    series, variates, length = shape
    context = some_context(series, variates, length, groups=groups)
    chosen = RuntimeSettings(
        compile_mode="default", series_per_batch=per_batch, context_bucket=bucket, recompile_limit=8
    )
    calls = list(batches(context, chosen, PATCH))

    assert len({tuple(part.series.shape) for part, _ in calls}) == 1
    whole = context.series.shape[-1]
    rebuilt = []
    for part, real in calls:
        assert part.series.shape[0] == per_batch
        assert part.series.shape == part.valid.shape
        added = part.series.shape[-1] - whole
        assert (added == 0) if bucket == 0 else 0 <= added < bucket + PATCH
        assert not bool(part.valid[..., :added].any())
        assert (part.groups is None) == (not groups)
        if part.groups is not None:
            assert part.groups.shape == (per_batch, variates, part.series.shape[-1] // PATCH)
        if bucket == 0:
            assert part.pad_patches is None
        else:
            assert part.pad_patches is not None
            assert part.pad_patches.tolist() == [added // PATCH] * per_batch
        rebuilt.append(part.series[:real, :, added:])
    assert torch.equal(torch.cat(rebuilt), context.series)


def test_an_eager_call_is_not_padded() -> None:
    context = some_context(3, 1, 8, groups=False)
    calls = list(batches(context, RuntimeSettings(series_per_batch=2, context_bucket=64), PATCH))
    assert [(part.series.shape[0], real) for part, real in calls] == [(2, 2), (1, 1)]
    assert all(part.series.shape[-1] == 8 and part.pad_patches is None for part, _ in calls)


def test_a_missing_series_is_filled_with_the_last_one() -> None:
    context = some_context(3, 1, 4, groups=True)
    chosen = RuntimeSettings(compile_mode="default", series_per_batch=2)
    (_, first), (part, real) = batches(context, chosen, PATCH)
    assert (first, real) == (2, 1)
    assert torch.equal(part.series, context.series[2:].repeat(2, 1, 1))
