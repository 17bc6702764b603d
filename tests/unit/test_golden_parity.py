from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

from tests.support.golden import CASES, QUANTILES, SAMPLES, GoldenCase, golden_case, horizons_of
from toto_core.forecast import Forecast
from toto_core.settings import RuntimeSettings
from toto_core.toto1.cache import empty_suffix
from toto_core.toto1.decode import Context, Prediction
from toto_core.toto1.scaling import Stats

ELEMENTWISE = 1e-4
TYPICAL = 1e-5
BF16_SHARE = 0.02
"""Of the 10-90 % spread of a forecast: what bf16 may move its mean path by."""
every_case = pytest.mark.parametrize("name", CASES)


def assert_parity(ours: Tensor, reference: Tensor, what: str) -> None:
    # An element far below its tensor's usual magnitude is a small difference of large numbers; it is held
    # to the median magnitude, as the maker of the vectors does.
    difference, size = (ours.double() - reference.double()).abs(), reference.double().abs()
    assert ours.shape == reference.shape, what
    assert float((difference / size.clamp_min(float(size.median()))).max()) < ELEMENTWISE, what
    assert float(difference.max() / size.max()) < TYPICAL, what


def assert_same_parameters(ours: dict[str, Tensor], case: GoldenCase, prefix: str, last: int = 0) -> None:
    for name, tensor in ours.items():
        reference = case.vectors[f"{prefix}.{name}"]
        assert_parity(tensor, reference[:, :, -last:] if last else reference, f"{case.name} {prefix}.{name}")


def forced_steps(case: GoldenCase, context: Context) -> list[Prediction]:
    """Predictions after each of the two patches the reference was fed."""
    decoder = case.decoder()
    predictions = []
    with torch.no_grad():
        _, carry = decoder.prefill(context, 1)
        suffix = empty_suffix(carry.prefix, samples=1, slots=2)
        stats = Stats(*(value.unsqueeze(-1) for value in carry.stats))
        for step in (1, 2):
            prediction, stats = decoder.step(case.forced(step), stats, carry, suffix.at(step - 1))
            predictions.append(prediction)
    return predictions


def in_a_bucket(context: Context, added: int, case: GoldenCase) -> Context:
    # values that would show at once if anything read them
    steps = added * case.patch_size
    assert context.groups is not None
    first_groups = context.groups[..., :1].expand(-1, -1, added)
    return Context(
        torch.nn.functional.pad(context.series, (steps, 0), value=1e6),
        torch.nn.functional.pad(context.valid, (steps, 0)),
        torch.cat((first_groups, context.groups), dim=-1),
        torch.tensor([added]),
    )


@functools.cache
def sampled(name: str) -> Forecast:
    case = golden_case(name)
    return case.pipeline().predict(
        case.series, 8, SAMPLES, padding_mask=case.padding_mask, id_mask=case.id_mask
    )


def test_all_seven_cases_are_there() -> None:
    assert CASES == (
        "constant",
        "grouped_padded",
        "jump",
        "long_horizon",
        "open_base_shape",
        "spacewise_first",
        "univariate",
    )


@every_case
def test_the_pass_over_the_context_gives_the_reference_parameters_at_every_step(name: str) -> None:
    case = golden_case(name)
    context = case.context()
    assert context.groups is not None
    with torch.no_grad():
        output = case.model(context.series, context.valid, context.groups)
    by_step = {
        "affine_loc": output.loc.repeat_interleave(case.patch_size, -1),
        "affine_scale": output.scale.repeat_interleave(case.patch_size, -1),
    }
    assert_same_parameters(output.mixture._asdict() | by_step, case, "context")


@every_case
def test_prefill_gives_the_reference_parameters_of_the_next_patch(name: str) -> None:
    case = golden_case(name)
    with torch.no_grad():
        whole, _ = case.decoder().prefill(case.context(), case.patch_size)
        some, _ = case.decoder().prefill(case.context(), 3)
    assert_same_parameters(whole.mixture._asdict(), case, "context", last=case.patch_size)
    assert_parity(whole.loc, case.vectors["context.affine_loc"][..., -1], "affine_loc")
    assert_parity(whole.scale, case.vectors["context.affine_scale"][..., -1], "affine_scale")
    for asked, full in zip(some.mixture, whole.mixture, strict=True):
        torch.testing.assert_close(asked, full[..., :3, :], rtol=1e-5, atol=1e-6)


@every_case
def test_each_cached_step_gives_the_reference_parameters(name: str) -> None:
    case = golden_case(name)
    for step, prediction in enumerate(forced_steps(case, case.context()), start=1):
        affine = {"affine_loc": prediction.loc, "affine_scale": prediction.scale}
        by_step = {key: value.expand(-1, -1, case.patch_size) for key, value in affine.items()}
        ours = {key: value.squeeze(2) for key, value in prediction.mixture._asdict().items()}
        assert_same_parameters(ours | by_step, case, f"cached_step{step}")


@pytest.mark.parametrize(("name", "horizon"), [(n, h) for n in CASES for h in horizons_of(n)])
def test_the_mean_path_is_the_reference_one(name: str, horizon: int) -> None:
    case = golden_case(name)
    reference = case.vectors[f"mean.cached.h{horizon}"]
    ours = (
        case.pipeline()
        .predict(case.series, horizon, None, padding_mask=case.padding_mask, id_mask=case.id_mask)
        .mean
    )

    assert ours.shape == reference.shape == (1, case.series.shape[0], horizon)
    difference = (ours - reference).abs().double()
    if name == "constant":
        # one float32 step of the price is a fortieth of the scale, so only a few steps can be asked for
        assert float(difference.max()) < 0.03
        return
    assert float((difference / reference.abs()).max()) < TYPICAL
    # the price level would hide an error, so it is held to the scale, plus rounding of the price to float32
    allowed = case.vectors["context.affine_scale"][..., -1:] * ELEMENTWISE + reference.abs() * 2.0**-22
    assert bool((difference < allowed).all())


@every_case
def test_sampled_quantiles_agree_to_monte_carlo_error(name: str) -> None:
    # The rank of a stored quantile among our samples is p plus the errors of both sample sets, each of
    # variance p(1-p)/n. Prices are float32, so a quantile can fall on ties: p must lie between the ranks.
    samples = sampled(name).samples
    assert samples is not None
    for p, reference in zip(QUANTILES, golden_case(name).vectors["sampled.quantiles"], strict=True):
        below = (samples < reference.unsqueeze(-1)).double().mean(-1)
        up_to = (samples <= reference.unsqueeze(-1)).double().mean(-1)
        tolerance = 5.0 * math.sqrt(2.0 * p * (1.0 - p) / SAMPLES)
        assert float((below - p).max()) < tolerance, (name, p)
        assert float((p - up_to).max()) < tolerance, (name, p)


def test_the_quantile_comparison_notices_samples_that_are_two_tenths_too_wide() -> None:
    samples = sampled("univariate").samples
    assert samples is not None
    centre = samples.median(-1, keepdim=True).values
    wide = centre + 1.2 * (samples - centre)
    reference = golden_case("univariate").vectors["sampled.quantiles"][0]
    rank = (wide <= reference.unsqueeze(-1)).double().mean(-1)
    assert float((rank - 0.1).max()) > 5.0 * math.sqrt(2.0 * 0.1 * 0.9 / SAMPLES)


@every_case
@pytest.mark.parametrize("added", [0, 1, 5])
def test_padding_a_bucket_adds_never_changes_a_forecast(name: str, added: int) -> None:
    case = golden_case(name)
    context = case.context()
    for plain, bucketed in zip(
        forced_steps(case, context), forced_steps(case, in_a_bucket(context, added, case)), strict=True
    ):
        assert_parity(bucketed.loc, plain.loc, f"{name} loc")
        assert_parity(bucketed.scale, plain.scale, f"{name} scale")
        for ours, expected in zip(bucketed.mixture, plain.mixture, strict=True):
            assert_parity(ours, expected, name)


def test_padding_that_is_not_marked_as_a_bucket_does_change_a_forecast() -> None:
    case = golden_case("univariate")
    context = case.context()
    padded = in_a_bucket(context, 5, case)._replace(pad_patches=None)
    plain, attended = forced_steps(case, context)[0], forced_steps(case, padded)[0]
    assert float((plain.mixture.loc - attended.mixture.loc).abs().max()) > 1e-3


@every_case
def test_bf16_moves_a_forecast_by_a_small_part_of_what_it_spreads_over(name: str) -> None:
    # random weights are worse than trained ones; what bf16 costs those is in benchmarks/results/
    case = golden_case(name)
    ours = case.pipeline(RuntimeSettings(precision="bf16")).predict(
        case.series, 8, num_samples=None, padding_mask=case.padding_mask, id_mask=case.id_mask
    )
    expected = case.pipeline().predict(
        case.series, 8, num_samples=None, padding_mask=case.padding_mask, id_mask=case.id_mask
    )
    low, high = case.vectors["sampled.quantiles"][[0, -1]]
    assert float(((ours.mean - expected.mean).abs() / (high - low)).max()) < BF16_SHARE
