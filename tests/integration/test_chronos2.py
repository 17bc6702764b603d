"""Chronos-2 behind the engine seam: the package's own numbers, compiled by us."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autotuner.engines.chronos2 import ATTENTION, Chronos2
from autotuner.engines.protocol import Pipeline
from autotuner.engines.registry import engine_for, installed
from autotuner.errors import AutotuneError
from autotuner.measurement.accuracy import LEVELS
from tests.support.chronos2_model import QUANTILES, write_chronos2
from toto_core.model_files import EMBEDDED, CheckpointError, locate
from toto_core.requests import RequestError
from toto_core.settings import RuntimeSettings

RNG = np.random.default_rng(3)
PRICES = (100.0 * np.exp(np.cumsum(RNG.normal(scale=0.01, size=(3, 2, 200)), axis=-1))).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chronos2(tmp_path_factory.mktemp("chronos2"))


@pytest.fixture(scope="module")
def package(model: Path) -> Any:
    from chronos import Chronos2Pipeline

    return Chronos2Pipeline.from_pretrained(str(model), device_map="cpu")


def load(model: Path, **settings: Any) -> Pipeline:
    return Chronos2().load(
        str(model), revision=None, settings=RuntimeSettings(**settings), device="cpu", artifacts=None
    )


def expected(package: Any, contexts: Any, steps: int) -> torch.Tensor:
    """(level, batch, variate, time), as the package gives it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = package.predict(torch.as_tensor(contexts), steps, batch_size=64)
    return torch.stack(list(found)).permute(2, 0, 1, 3)


@pytest.mark.parametrize("steps", [8, 16, 50, 64], ids="{} steps".format)
def test_forecasts_are_those_of_the_package(model: Path, package: Any, steps: int) -> None:
    forecast = load(model, series_per_batch=2).predict(PRICES, steps)
    wanted = expected(package, PRICES, steps)
    torch.testing.assert_close(forecast.quantiles, wanted, rtol=1e-5, atol=1e-4)
    assert forecast.levels == tuple(QUANTILES)


@pytest.mark.filterwarnings("ignore:We recommend keeping prediction length")
def test_a_horizon_beyond_one_call_is_the_package_s_own_way(model: Path, package: Any) -> None:
    forecast = load(model).predict(PRICES[:1], 100)
    torch.testing.assert_close(forecast.quantiles, expected(package, PRICES[:1], 100), rtol=1e-5, atol=1e-4)


def test_values_that_are_missing_are_left_to_the_model(model: Path, package: Any) -> None:
    gappy = PRICES[:1].copy()
    gappy[..., :30] = np.nan
    gappy[..., 90:95] = np.nan
    torch.testing.assert_close(
        load(model).predict(gappy, 16).quantiles, expected(package, gappy, 16), rtol=1e-5, atol=1e-4
    )


def test_quantiles_between_the_model_s_are_interpolated(model: Path) -> None:
    forecast = load(model).predict(PRICES[0, 0], 8)
    low, high = forecast.quantile(0.2), forecast.quantile(0.3)
    torch.testing.assert_close(forecast.quantile(0.25), (low + high) / 2)
    assert forecast.quantile(torch.tensor(LEVELS)).shape == (5, 1, 1, 8)
    with pytest.raises(ValueError, match=r"0.01 to 0.99"):
        forecast.quantile(0.001)


def test_compiled_and_bucketed_it_gives_the_same_from_one_graph_for_all_lengths(
    model: Path, package: Any
) -> None:
    pipeline = load(model, compile_mode="default", context_bucket=256, series_per_batch=2)
    for length in (200, 170, 96):
        contexts = PRICES[..., -length:]
        found = pipeline.predict(contexts, 16).quantiles
        torch.testing.assert_close(found, expected(package, contexts, 16), rtol=1e-4, atol=1e-3)
    report = pipeline.compile_report
    assert report.really_compiled
    assert (report.graphs, report.graph_breaks, report.recompiles) == (1, 0, 0)
    assert pipeline.last_run_metadata["torch_compile_success"]


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"knobs": ((ATTENTION, "eager"),)}], ids=str)
def test_other_settings_move_a_forecast_by_little(
    model: Path, package: Any, settings: dict[str, Any]
) -> None:
    wanted = expected(package, PRICES, 16)
    moved = (load(model, **settings).predict(PRICES, 16).quantiles - wanted).abs() / wanted.abs()
    assert float(moved.max()) < 0.01


def test_it_claims_its_own_models_and_no_others(model: Path, tmp_path: Path) -> None:
    assert engine_for(str(model)).name == "chronos2"
    assert not Chronos2().claims(locate(EMBEDDED))
    assert engine_for(EMBEDDED).name == "toto1"
    identity = Chronos2().identity(str(model))
    assert identity.weights_bytes == (model / "model.safetensors").stat().st_size
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"], "n_layer": 1}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="no engine here takes this model"):
        engine_for(str(tmp_path))


def test_without_its_package_it_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chronos", None)
    assert [each.name for each in installed()] == ["toto1", "toto2", "chronos2"]
    assert Chronos2().claims(model)
    with pytest.raises(AutotuneError, match=r"pip install 'toto-autotune\[chronos2\]'"):
        load(model)


@pytest.mark.parametrize(
    ("context", "steps"),
    [([], 8), ("prices", 8), ([[[[1.0]]]], 8), ([1.0, np.inf], 8), ([np.nan, np.nan], 8), ([1.0, 2.0], 0)],
    ids=["nothing", "text", "four dimensions", "infinite", "all missing", "no steps"],
)
def test_what_cannot_be_forecast_is_refused_in_one_line(model: Path, context: Any, steps: int) -> None:
    with pytest.raises(RequestError) as refused:
        load(model).predict(context, steps)
    assert "\n" not in str(refused.value)
