from __future__ import annotations

import numpy as np
import pytest
import torch

from toto_core.forecast import Forecast


def sampled(series: int = 3, variates: int = 1, time: int = 4, samples: int = 101) -> Forecast:
    paths = torch.randn((series, variates, time, samples), generator=torch.Generator().manual_seed(2))
    return Forecast(mean=paths.mean(-1), samples=paths)


def test_quantiles_are_those_of_the_samples() -> None:
    forecast = sampled(variates=2)
    assert forecast.samples is not None
    paths = forecast.samples.double().numpy()
    for q in (0.0, 0.1, 0.5, 0.93, 1.0):
        np.testing.assert_allclose(forecast.quantile(q).numpy(), np.quantile(paths, q, axis=-1), atol=1e-6)
    np.testing.assert_allclose(forecast.median.numpy(), np.median(paths, axis=-1), atol=1e-6)
    np.testing.assert_allclose(forecast.std.numpy(), paths.std(axis=-1, ddof=1), atol=1e-5)


def test_several_quantiles_come_first() -> None:
    forecast = sampled()
    both = forecast.quantile(torch.tensor([0.1, 0.9]))
    assert both.shape == (2, 3, 1, 4)
    assert torch.equal(both[1], forecast.quantile(0.9))


def test_a_single_series_is_samples_by_time() -> None:
    forecast = sampled()
    assert forecast.samples is not None
    assert len(forecast) == 3
    assert forecast[1].shape == (101, 4)
    assert torch.equal(forecast[1], forecast.samples[1, 0].T)
    assert [forecast[i].shape for i in range(-3, 3)] == [(101, 4)] * 6


def test_several_variates_stay_between_samples_and_time() -> None:
    forecast = sampled(variates=2)
    assert forecast.samples is not None
    assert forecast[0].shape == (101, 2, 4)
    assert torch.equal(forecast[0][5], forecast.samples[0, :, :, 5])


def test_a_mean_path_counts_as_one_sample() -> None:
    forecast = Forecast(mean=torch.arange(8.0).reshape(2, 1, 4))
    assert forecast[1].shape == (1, 4)
    assert torch.equal(forecast[1][0], forecast.mean[1, 0])


@pytest.mark.parametrize("name", ["median", "std"])
def test_a_mean_path_has_no_distribution(name: str) -> None:
    with pytest.raises(ValueError, match="ask predict for num_samples"):
        getattr(Forecast(mean=torch.zeros(1, 1, 4)), name)


def test_a_series_that_is_not_there_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        sampled()[3]


def test_a_large_forecast_has_quantiles_too() -> None:
    # torch.quantile once refused inputs of more than 16 million numbers
    paths = torch.zeros((40, 1, 100, 4200))
    paths[..., 2100:] = 1.0
    assert torch.equal(Forecast(mean=paths.mean(-1), samples=paths).quantile(0.25), torch.zeros(40, 1, 100))
