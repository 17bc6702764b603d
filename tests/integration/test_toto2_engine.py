"""Toto 2.0 behind the engine seam: its models, its knobs, its forecasts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autotuner.engines.protocol import first_quantiles, has_spread, numbers
from autotuner.engines.registry import engine_for
from autotuner.engines.toto2 import BLOCK, MASKED, Toto2
from autotuner.measurement.accuracy import LEVELS
from autotuner.search.space import search_space
from autotuner.workload import RequestShape, Workload
from tests.support.toto2_model import TINY, save_toto2_model
from toto_core.model_files import EMBEDDED, CheckpointError, locate
from toto_core.settings import RuntimeSettings
from toto_core.toto2 import Toto2Pipeline

PRICES = np.linspace(90.0, 110.0, 64, dtype=np.float32)
ENGINE = Toto2()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_toto2_model(tmp_path_factory.mktemp("toto2"))


def load(model: str, **settings: object) -> Toto2Pipeline:
    asked = RuntimeSettings(**settings)  # type: ignore[arg-type]
    found = ENGINE.load(model, revision=None, settings=asked, device="cpu", artifacts=None)
    assert isinstance(found, Toto2Pipeline)
    return found


def test_it_claims_its_own_models_in_one_file_or_in_shards(model: str, tmp_path: Path) -> None:
    sharded = save_toto2_model(tmp_path / "sharded", shards=3)
    assert engine_for(model).name == engine_for(sharded).name == "toto2"
    assert not ENGINE.claims(locate(EMBEDDED))
    whole, parts = ENGINE.identity(model), ENGINE.identity(sharded)
    assert whole.patch_size == TINY.patch_size
    assert parts.weights_bytes == pytest.approx(whole.weights_bytes, rel=0.01)
    (tmp_path / "sharded" / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="fetch all shards"):
        ENGINE.identity(sharded)


def test_blocks_shorter_than_the_horizon_are_knobs_and_samples_are_none(model: str) -> None:
    workload = Workload(model=model, shapes=(RequestShape(context_length=64, prediction_length=20),))
    traits = ENGINE.traits(workload)
    assert traits.knobs[BLOCK] == (0, 8)
    facts = workload.facts(device="cpu", threads=1, patch_size=8, **vars(traits))
    space = search_space(workload, facts)
    eager = {(key.value(BLOCK), key.value(MASKED)) for key in space.keys if not key.compiled}
    assert eager == {(None, None), (None, True), (8, None), (8, True)}
    assert space.reference == RuntimeSettings(num_threads=1)


def test_knobs_decide_how_a_horizon_is_decoded(model: str) -> None:
    plain, blocks, masked = (load(model, knobs=knobs) for knobs in ((), ((BLOCK, 8),), ((MASKED, True),)))
    assert (plain.options.decode_block_size, blocks.options.decode_block_size) == (0, 8)
    assert masked.options.has_missing_values
    one_pass, by_block, same = (each.predict(PRICES, 24).quantiles for each in (plain, blocks, masked))
    assert not torch.allclose(one_pass, by_block)
    torch.testing.assert_close(one_pass, same, rtol=1e-5, atol=1e-4)


def test_it_is_called_as_every_engine_is_and_judged_by_its_quantiles(model: str) -> None:
    forecast = load(model).predict(PRICES, 24, 256, 7)
    assert has_spread(forecast)
    assert numbers(forecast) is forecast.quantiles
    quantiles = first_quantiles(forecast, LEVELS)
    assert [len(each) for each in quantiles] == [24] * len(LEVELS)
    assert all(np.all(np.diff([level[step] for level in quantiles]) >= 0) for step in range(24))


def test_in_float64_it_differs_by_rounding_alone(model: str) -> None:
    exact = ENGINE.exact(model, revision=None, device="cpu")
    assert exact is not None
    found, plain = exact.predict(PRICES, 24).quantiles, load(model).predict(PRICES, 24).quantiles
    assert found.dtype is torch.float64
    torch.testing.assert_close(found.float(), plain, rtol=1e-5, atol=1e-4)
