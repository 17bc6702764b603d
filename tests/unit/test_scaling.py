from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from toto_core.toto1.scaling import MINIMUM_SCALE, Stats, patches, scale_context, scale_step

PATCH = 4
Floats = NDArray[np.float64]

prices = st.floats(min_value=2.0**-10, max_value=1e6, width=32)
masked_series = st.integers(1, 5).flatmap(
    lambda count: st.tuples(
        st.lists(prices, min_size=PATCH * count, max_size=PATCH * count),
        st.lists(st.booleans(), min_size=PATCH * count, max_size=PATCH * count),
    )
)
new_patches = st.lists(st.lists(prices, min_size=PATCH, max_size=PATCH), min_size=1, max_size=3)


def naive(seen: Floats, whole: Floats, *, stabilize: bool, exponent: float) -> tuple[float, float]:
    """Location and scale of the values seen so far, with the bounds the whole context sets."""
    if not seen.size:
        loc, variance = 0.0, 0.0
    else:
        loc = float(seen.mean())
        variance = float(((seen - loc) ** 2).sum()) / max(seen.size - 1, 1)
    scale = math.sqrt(variance + MINIMUM_SCALE)
    if not stabilize:
        return loc, scale
    overall = math.sqrt((float(whole.var()) if whole.size else 0.0) + MINIMUM_SCALE)
    low, high = max(overall * 10.0**-exponent, MINIMUM_SCALE), overall * 10.0**exponent
    return loc, min(max(scale, low), high)


@settings(max_examples=150)
@given(masked_series, new_patches, st.booleans(), st.sampled_from((0.0, 0.25, 10.0)))
def test_every_patch_is_scaled_by_all_values_up_to_its_end(
    masked: tuple[list[float], list[bool]], following: list[list[float]], stabilize: bool, exponent: float
) -> None:
    values, real = np.array(masked[0]), np.array(masked[1])
    series = patches(torch.tensor(values, dtype=torch.float32)[None, None], PATCH)
    valid = patches(torch.from_numpy(real)[None, None], PATCH)

    scaled, stats = scale_context(series, valid, stabilize_with_global=stabilize, exponent=exponent)
    ours = [(float(scaled.loc[0, 0, i]), float(scaled.scale[0, 0, i])) for i in range(series.shape[2])]
    stats = Stats(*(value.unsqueeze(-1) for value in stats))
    for patch in following:
        step, stats = scale_step(torch.tensor(patch, dtype=torch.float32)[None, None, None], stats)
        ours.append((float(step.loc), float(step.scale)))

    whole = values[real]
    seen = [values[: PATCH * i][real[: PATCH * i]] for i in range(1, series.shape[2] + 1)]
    fed_back = (np.array(following[:count]).ravel() for count in range(1, len(following) + 1))
    seen.extend(np.concatenate([whole, values]) for values in fed_back)
    expected = [naive(part, whole, stabilize=stabilize, exponent=exponent) for part in seen]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@settings(max_examples=50)
@given(masked_series)
def test_values_are_scaled_by_the_rounded_statistics(masked: tuple[list[float], list[bool]]) -> None:
    series = patches(torch.tensor(masked[0])[None, None], PATCH)
    valid = patches(torch.tensor(masked[1])[None, None], PATCH)

    scaled, _ = scale_context(series, valid, stabilize_with_global=True, exponent=10.0)

    assert scaled.values.dtype == scaled.loc.dtype == scaled.scale.dtype == torch.float32
    expected = (series - scaled.loc.unsqueeze(-1)) / scaled.scale.unsqueeze(-1)
    assert torch.equal(scaled.values, expected)


@pytest.mark.parametrize("price", [0.004, 1.0, 250.0, 109000.3, 8e6])
def test_a_constant_series_gets_the_smallest_scale_whatever_its_price(price: float) -> None:
    series = torch.full((1, 1, 32, PATCH), price)
    scaled, _ = scale_context(
        series, torch.ones_like(series, dtype=torch.bool), stabilize_with_global=True, exponent=10.0
    )
    assert torch.equal(scaled.scale, torch.full_like(scaled.scale, math.sqrt(MINIMUM_SCALE)))
    assert torch.equal(scaled.values, torch.zeros_like(series))


def test_masked_values_have_no_influence_on_the_statistics() -> None:
    generator = torch.Generator().manual_seed(1)
    series = 50.0 + torch.randn((2, 3, 6, PATCH), generator=generator)
    valid = torch.rand((2, 3, 6, PATCH), generator=generator) > 0.4
    other = torch.where(valid, series, torch.full_like(series, 1e7))

    first, _ = scale_context(series, valid, stabilize_with_global=True, exponent=10.0)
    second, _ = scale_context(other, valid, stabilize_with_global=True, exponent=10.0)

    assert torch.equal(first.loc, second.loc)
    assert torch.equal(first.scale, second.scale)


def test_patches_are_cut_in_order() -> None:
    series = torch.arange(12.0).reshape(1, 1, 12)
    assert torch.equal(patches(series, 4)[0, 0], torch.arange(12.0).reshape(3, 4))
