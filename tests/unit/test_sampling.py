from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from toto_core.toto1.sampling import (
    EXTREME,
    Mixture,
    draw_noise,
    mixture,
    mixture_mean,
    sample,
    without_extremes,
)

DRAWS = 200_000
Floats = NDArray[np.float64]
Cdf = Callable[[Floats], Floats]


def cdf_of_3_degrees(t: Floats) -> Floats:
    root = t / math.sqrt(3.0)
    return np.asarray(0.5 + (root / (1.0 + root**2) + np.arctan(root)) / math.pi)


def cdf_of_4_degrees(t: Floats) -> Floats:
    ratio = t**2 / (1.0 + t**2 / 4.0)
    return np.asarray(0.5 + 0.375 * t / np.sqrt(1.0 + t**2 / 4.0) * (1.0 - ratio / 12.0))


def normal_cdf(t: Floats) -> Floats:
    return 0.5 * (1.0 + np.array([math.erf(value / math.sqrt(2.0)) for value in t]))


def parameters(*components: tuple[float, float, float, float]) -> Mixture:
    """A mixture from (weight, degrees of freedom, location, scale) of each component, one row."""
    return Mixture(*(column.unsqueeze(0) for column in torch.tensor(components).unbind(1)))


def draws(mixed: Mixture, seed: int = 1) -> Tensor:
    noise = draw_noise(seed, num_samples=DRAWS, variates=1, steps=1)
    return sample(mixed, *(uniform[0] for uniform in noise))[0]


def furthest_from(cdf: Cdf, values: Tensor) -> float:
    """The Kolmogorov-Smirnov distance of the draws from a distribution."""
    ordered = np.sort(values.double().numpy())
    expected, rank = cdf(ordered), np.arange(ordered.size)
    return float(
        max(np.abs(expected - rank / ordered.size).max(), np.abs(expected - (rank + 1) / ordered.size).max())
    )


# The Kolmogorov-Smirnov distance of right draws exceeds this once in a thousand seeds; the seeds are fixed.
KS_LIMIT = 1.95 / math.sqrt(DRAWS)


@pytest.mark.parametrize(("df", "cdf"), [(3.0, cdf_of_3_degrees), (4.0, cdf_of_4_degrees), (1e7, normal_cdf)])
def test_draws_of_one_component_are_student_t(df: float, cdf: Cdf) -> None:
    values = draws(parameters((1.0, df, 0.0, 1.0)))
    assert furthest_from(cdf, values) < KS_LIMIT


def test_draws_of_a_mixture_have_its_distribution() -> None:
    values = draws(parameters((0.5, 3.0, -2.0, 0.5), (0.3, 4.0, 1.0, 2.0), (0.2, 1e7, 5.0, 0.1)))

    def cdf(t: Floats) -> Floats:
        return (
            0.5 * cdf_of_3_degrees((t + 2.0) / 0.5)
            + 0.3 * cdf_of_4_degrees((t - 1.0) / 2.0)
            + 0.2 * normal_cdf((t - 5.0) / 0.1)
        )

    assert furthest_from(cdf, values) < KS_LIMIT


def test_the_distance_notices_a_wrong_distribution() -> None:
    assert furthest_from(cdf_of_4_degrees, draws(parameters((1.0, 3.0, 0.0, 1.0)))) > KS_LIMIT


def test_a_mixture_has_the_mean_it_says() -> None:
    mixed = parameters((0.7, 8.0, -1.0, 0.5), (0.3, 12.0, 4.0, 2.0))
    values = draws(mixed)
    assert float(mixture_mean(mixed)) == pytest.approx(0.5, abs=1e-6)
    assert float(values.mean()) == pytest.approx(0.5, abs=5.0 * float(values.std()) / math.sqrt(DRAWS))


def test_components_are_chosen_as_often_as_their_weights_say() -> None:
    weights = (0.6, 0.0, 0.25, 0.15)
    values = draws(parameters(*((w, 30.0, 1000.0 * i, 1e-3) for i, w in enumerate(weights))))
    for index, weight in enumerate(weights):
        share = float(((values - 1000.0 * index).abs() < 1.0).double().mean())
        assert abs(share - weight) <= 5.0 * math.sqrt(weight * (1.0 - weight) / DRAWS), index


def test_a_uniform_beyond_the_rounded_sum_of_the_weights_takes_the_last_component() -> None:
    mixed = Mixture(
        torch.tensor([[0.5, 0.4999]]),
        torch.full((1, 2), 5.0),
        torch.tensor([[0.0, 7.0]]),
        torch.full((1, 2), 1e-9),
    )
    last = torch.tensor([[1.0 - 2.0**-24]])
    value = sample(mixed, last, torch.tensor([[0.5]]), torch.tensor([[0.25]]))
    assert float(value) == pytest.approx(7.0)


def test_location_and_scale_only_shift_and_stretch() -> None:
    plain = draws(parameters((1.0, 5.0, 0.0, 1.0)))
    moved = draws(parameters((1.0, 5.0, 100.0, 3.0)))
    torch.testing.assert_close(moved, 100.0 + 3.0 * plain, rtol=1e-6, atol=1e-5)


raw = st.floats(min_value=-60.0, max_value=60.0, width=32)
uniform = st.floats(
    min_value=0.0, max_value=1.0, width=32, exclude_min=True, exclude_max=True, allow_subnormal=False
)


@settings(max_examples=400)
@given(st.lists(raw, min_size=12, max_size=12), uniform, uniform, uniform)
def test_samples_are_finite_for_all_uniforms(
    heads: list[float], component: float, radius: float, angle: float
) -> None:
    mixed = mixture(torch.tensor(heads)[None])
    value = sample(mixed, *(torch.tensor([[number]]) for number in (component, radius, angle)))
    assert bool(torch.isfinite(value).all())


@settings(max_examples=200)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=12, max_size=12))
def test_any_output_of_the_heads_becomes_a_proper_mixture(heads: list[float]) -> None:
    mixed = mixture(torch.tensor(heads, dtype=torch.bfloat16))
    assert all(part.dtype == torch.float32 for part in mixed)
    assert float(mixed.probs.sum()) == pytest.approx(1.0, abs=1e-5)
    assert bool((mixed.df >= 2.0).all())
    assert bool((mixed.scale > 0.0).all())


def test_the_heads_are_read_in_the_order_df_loc_scale_weights() -> None:
    mixed = mixture(torch.tensor([3.0, -3.0, 10.0, 20.0, 1.0, 2.0, math.log(3.0), 0.0]))
    softplus = torch.nn.functional.softplus
    torch.testing.assert_close(mixed.df, 2.0 + softplus(torch.tensor([3.0, -3.0])))
    torch.testing.assert_close(mixed.loc, torch.tensor([10.0, 20.0]))
    torch.testing.assert_close(mixed.scale, softplus(torch.tensor([1.0, 2.0])))
    torch.testing.assert_close(mixed.probs, torch.tensor([0.75, 0.25]))


def test_noise_is_a_function_of_the_seed_alone() -> None:
    first = draw_noise(3, num_samples=5, variates=2, steps=4)
    torch.manual_seed(99)
    again = draw_noise(3, num_samples=5, variates=2, steps=4)
    other = draw_noise(4, num_samples=5, variates=2, steps=4)
    for one, same, different in zip(first, again, other, strict=True):
        assert one.shape == (2, 4, 5)
        assert torch.equal(one, same)
        assert not torch.equal(one, different)


def test_noise_never_reaches_zero_or_one() -> None:
    for uniforms in draw_noise(0, num_samples=500_000, variates=1, steps=2):
        assert 0.0 < float(uniforms.min()) < 1e-5
        assert 1.0 - 1e-5 < float(uniforms.max()) < 1.0


def test_values_that_are_not_finite_or_extreme_become_zero() -> None:
    values = torch.tensor([math.nan, math.inf, -math.inf, EXTREME, -EXTREME, EXTREME / 2.0, -3.0])
    expected = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, EXTREME / 2.0, -3.0])
    assert torch.equal(without_extremes(values), expected)
