from __future__ import annotations

import torch

from toto_core.exact import ExactPipeline
from toto_core.pipeline import TotoPipeline
from toto_core.series import find_series
from toto_core.settings import RuntimeSettings

CLOSE = find_series("AMD", None).close[-512:]


def test_float64_forecasts_differ_from_float32_by_rounding_alone() -> None:
    exact = ExactPipeline.load("toto-mini").predict(CLOSE, 80, 64, seed=3)
    plain = TotoPipeline.from_pretrained("toto-mini", settings=RuntimeSettings()).predict(
        CLOSE, 80, 64, seed=3
    )

    assert exact.samples is not None
    assert plain.samples is not None
    assert exact.samples.dtype == torch.float64
    assert not torch.equal(exact.samples.float(), plain.samples)
    torch.testing.assert_close(exact.median.float(), plain.median, rtol=1e-4, atol=0.0)


def test_the_mean_path_is_float64_too() -> None:
    exact = ExactPipeline.load("toto-mini").predict(CLOSE, 8, None)
    plain = TotoPipeline.from_pretrained("toto-mini", settings=RuntimeSettings()).predict(CLOSE, 8, None)

    assert exact.mean.dtype == torch.float64
    torch.testing.assert_close(exact.mean.float(), plain.mean, rtol=1e-5, atol=0.0)


def test_other_pipelines_stay_float32_afterwards() -> None:
    ExactPipeline.load("toto-mini").predict(CLOSE, 8, 4)

    assert torch.ones(2).float().dtype == torch.float32
    assert TotoPipeline.from_pretrained("toto-mini").predict(CLOSE, 8, 4).mean.dtype == torch.float32
