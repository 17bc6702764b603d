from __future__ import annotations

import pytest
import torch

from toto_core.quantile_forecast import QuantileForecast

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.fixture
def forecast() -> QuantileForecast:
    levels = torch.tensor(LEVELS).reshape(-1, 1, 1, 1)
    return QuantileForecast(quantiles=(10.0 * levels).expand(-1, 2, 3, 4), levels=LEVELS)


@pytest.mark.parametrize("index", range(9))
def test_a_trained_level_is_given_as_the_model_gave_it(forecast: QuantileForecast, index: int) -> None:
    assert torch.equal(forecast.quantile(LEVELS[index]), forecast.quantiles[index])
    assert torch.equal(forecast.quantile(torch.tensor(LEVELS[index])), forecast.quantiles[index])


@pytest.mark.parametrize("level", [0.15, 0.25, 0.333, 0.899])
def test_between_two_levels_it_is_interpolated(forecast: QuantileForecast, level: float) -> None:
    assert forecast.quantile(level).shape == (2, 3, 4)
    assert float(forecast.quantile(level).amax()) == pytest.approx(10.0 * level, rel=1e-5)


def test_several_levels_come_first(forecast: QuantileForecast) -> None:
    several = forecast.quantile(torch.tensor([0.1, 0.25, 0.5]))
    assert several.shape == (3, 2, 3, 4)
    assert torch.equal(several[2], forecast.median)


@pytest.mark.parametrize("level", [0.05, 0.95, -1.0, float("nan")])
def test_what_the_model_says_nothing_of_is_refused(forecast: QuantileForecast, level: float) -> None:
    with pytest.raises(ValueError, match=r"outside of what the model is trained for, 0\.1 to 0\.9"):
        forecast.quantile(level)


def test_there_are_as_many_entries_as_series(forecast: QuantileForecast) -> None:
    assert len(forecast) == 2
    assert forecast.samples is None
    assert torch.equal(forecast.mean, forecast.median)
