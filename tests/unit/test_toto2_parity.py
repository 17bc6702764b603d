from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.toto2_golden import FOLDERS, all_requests, toto2_case
from toto_core.exact_toto2 import ExactToto2Pipeline
from toto_core.settings import RuntimeSettings
from toto_core.toto2 import checkpoint

PARITY = 2e-6
"""Of the largest value; what is promised is 1e-4."""
BF16_SHARE = 0.02
"""Of the 10-90 % spread of a forecast: what bf16 may move a quantile by."""
every_request = pytest.mark.parametrize(("name", "horizon", "block"), all_requests())


def share_of_largest(ours: Tensor, expected: Tensor) -> float:
    assert ours.shape == expected.shape
    return float((ours - expected).abs().max() / expected.abs().max())


def test_all_cases_are_there() -> None:
    assert set(FOLDERS) == {
        "one_series",
        "groups_missing",
        "gqa_scaled_norms",
        "xpos",
        "known_inputs",
        "short_start",
        "capped",
        "every_switch",
    }


@every_request
def test_the_quantiles_are_the_reference_ones(name: str, horizon: int, block: int) -> None:
    case = toto2_case(name)
    ours = case.pipeline().predict(**case.asked(horizon, block)).quantiles
    assert share_of_largest(ours, case.expected(horizon, block)) < PARITY


@every_request
def test_bf16_moves_a_quantile_by_a_small_part_of_what_the_forecast_spreads_over(
    name: str, horizon: int, block: int
) -> None:
    # random weights are worse than trained ones
    case = toto2_case(name)
    ours = case.pipeline(RuntimeSettings(precision="bf16")).predict(**case.asked(horizon, block)).quantiles
    expected = case.expected(horizon, block)
    spread = (expected[-1] - expected[0]).amax()
    assert float((ours - expected).abs().max() / spread) < BF16_SHARE


@every_request
def test_hiding_what_is_missing_changes_nothing_where_nothing_is(name: str, horizon: int, block: int) -> None:
    case = toto2_case(name)
    asked = case.asked(horizon, block)
    ours = case.pipeline().predict(**asked, has_missing_values=True).quantiles
    assert share_of_largest(ours, case.expected(horizon, block)) < PARITY


@pytest.mark.parametrize("name", ["groups_missing", "xpos", "every_switch"])
def test_a_bucket_never_changes_a_forecast(name: str) -> None:
    case = toto2_case(name)
    settings = RuntimeSettings(compile_mode="default", context_bucket=112, series_per_batch=3)
    pipeline = case.pipeline(settings)
    pipeline.hold_compilation()  # the shapes of a compiled call, run eagerly
    horizon, block = case.requests[-1]

    ours = pipeline.predict(**case.asked(horizon, block)).quantiles

    assert pipeline.compile_report.eager_calls > 1
    assert share_of_largest(ours, case.expected(horizon, block)) < PARITY


def test_every_level_of_a_forecast_is_above_the_one_before() -> None:
    case = toto2_case("one_series")
    quantiles = case.pipeline().predict(**case.asked(96, 32)).quantiles
    assert bool((quantiles.diff(dim=0) >= 0).all())


def test_one_pass_and_blocks_differ_so_both_are_really_taken() -> None:
    case = toto2_case("one_series")
    whole, blocks = (case.pipeline().predict(**case.asked(96, block)).quantiles for block in (0, 32))
    assert (
        torch.equal(whole[..., :32], blocks[..., :32])
        or share_of_largest(whole[..., :32], blocks[..., :32]) < PARITY
    )
    assert share_of_largest(whole[..., 32:], blocks[..., 32:]) > 1e-5


@pytest.mark.parametrize("name", ["known_inputs", "every_switch"])
def test_float64_is_nearer_to_the_reference_than_what_is_promised(name: str, tmp_path: Path) -> None:
    case = toto2_case(name)
    checkpoint.save(case.config, case.weights, tmp_path)
    horizon, block = case.requests[-1]
    ours = ExactToto2Pipeline.load(str(tmp_path), options=case.options).predict(**case.asked(horizon, block))
    assert ours.quantiles.dtype == ours.median.dtype == torch.float64
    assert share_of_largest(ours.quantiles, case.expected(horizon, block).double()) < PARITY
