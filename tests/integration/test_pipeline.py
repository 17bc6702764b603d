from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support.golden import golden_case
from toto_core import RuntimeSettings, TotoPipeline, compile_config
from toto_core.device import DeviceError
from toto_core.forecast import Forecast
from toto_core.model_files import CheckpointError, locate
from toto_core.pipeline import PipelineClosedError
from toto_core.requests import RequestError
from toto_core.series import find_series
from toto_core.toto1 import checkpoint
from toto_core.toto1.decode import Decoder

CONTEXT, PATCH = 512, 32


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_config, "_applied", [])
    for name in ("TOTO_COMPILE_MODE", "TOTO_COMPILE", "TOTO_COMPILE_BACKEND", "TOTO_DISABLE_COMPILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def mini() -> TotoPipeline:
    return TotoPipeline.from_pretrained("toto-mini")


def histories(symbol: str, count: int, horizon: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contexts (count, 1, time) and what followed them, (count, 1, horizon), in the last fifth of a series."""
    series = find_series(symbol, None)
    origins = np.linspace(max(series.last_fifth_start(), CONTEXT), len(series) - horizon, count).astype(int)
    contexts = np.stack([series.close[o - CONTEXT : o] for o in origins])
    futures = np.stack([series.close[o : o + horizon] for o in origins])
    return contexts[:, None], futures[:, None]


def samples_of(forecast: Forecast) -> Tensor:
    assert forecast.samples is not None
    return forecast.samples


def assert_same_prices(ours: Tensor, expected: Tensor) -> None:
    # Both are (batch, variate, time, sample). Matrix products of another shape round differently, and a patch
    # that is fed back amplifies that, so only the first one is held to a few float32 steps of the price level.
    assert ours.shape == expected.shape
    level = expected.flatten(1).abs().median(-1).values[:, None, None, None]
    difference = (ours - expected).abs() / level
    assert float(difference[:, :, :PATCH].max()) < 2e-6
    assert float(difference.max()) < 1e-3
    assert float(difference.median()) < 1e-6


def test_the_call_of_earlier_integrations_still_works() -> None:
    context, _ = histories("AMD", 1, 8)
    pipeline = TotoPipeline.from_pretrained("toto-mini", device_map="cpu", torch_compile=False)

    forecasts = pipeline.predict(
        torch.from_numpy(context[0, 0]), prediction_length=8, num_samples=16, samples_per_batch=8
    )

    assert forecasts[0].numpy().shape == (16, 8)
    assert forecasts[0].numpy().dtype == np.float32
    metadata = pipeline.last_run_metadata
    assert set(metadata) >= {
        "torch_compile_success",
        "num_samples_used",
        "graphs",
        "graph_breaks",
        "recompiles",
        "recompile_limit_hit",
        "cudagraph_skips",
        "cold_start_ms",
        "latency_ms",
    }
    assert metadata["torch_compile_success"] is False
    assert metadata["num_samples_used"] == 16
    assert metadata["cold_start_ms"] > metadata["latency_ms"] > 0.0
    assert pipeline.peak_bytes > 50_000_000
    assert json.loads(json.dumps(metadata)) == metadata
    pipeline.unload()
    pipeline.unload()
    with pytest.raises(PipelineClosedError, match="unloaded"):
        pipeline.predict(context)
    assert pipeline.compile_report.requested is False


def test_the_cold_start_is_that_of_the_first_call(mini: TotoPipeline) -> None:
    fresh = TotoPipeline.from_pretrained("toto-mini")
    assert fresh.cold_start_ms is None
    fresh.predict(range(40), 1, 1)
    first = fresh.cold_start_ms
    fresh.predict(range(40), 1, 1)
    assert first is not None
    assert first > fresh.load_ms > 0.0
    assert fresh.cold_start_ms == first


@pytest.mark.parametrize("horizon", [1, 8, 32, 33])
def test_a_forecast_has_the_shape_and_the_level_of_what_was_asked(mini: TotoPipeline, horizon: int) -> None:
    context, _ = histories("AAPL", 3, horizon)
    forecast = mini.predict(context, horizon, num_samples=64)
    assert samples_of(forecast).shape == (3, 1, horizon, 64)
    assert forecast.mean.shape == forecast.median.shape == (3, 1, horizon)
    assert bool(torch.isfinite(samples_of(forecast)).all())
    last = torch.from_numpy(context[:, :, -1:])
    assert float(((forecast.median - last) / last).abs().max()) < 0.25
    path = mini.predict(context, horizon, num_samples=None)
    assert path.mean.shape == (3, 1, horizon)
    assert path.samples is None


@pytest.mark.parametrize("horizon", [8, 70])
def test_the_same_seed_gives_the_same_numbers_and_another_does_not(mini: TotoPipeline, horizon: int) -> None:
    context, _ = histories("ETHUSD", 2, horizon)
    first = samples_of(mini.predict(context, horizon, 32, seed=7))
    torch.manual_seed(123)
    torch.rand(5)
    again = samples_of(mini.predict(context, horizon, 32, seed=7))
    assert torch.equal(first, again)
    assert not torch.equal(first, samples_of(mini.predict(context, horizon, 32, seed=8)))


@pytest.mark.parametrize(("horizon", "per_batch"), [(8, 2), (8, 8), (40, 3)])
def test_a_forecast_does_not_depend_on_the_series_beside_it(horizon: int, per_batch: int) -> None:
    context, _ = histories("BTCUSD", 4, horizon)
    alone = TotoPipeline.from_pretrained("toto-mini")
    together = TotoPipeline.from_pretrained("toto-mini", settings=RuntimeSettings(series_per_batch=per_batch))

    stacked = samples_of(together.predict(context, horizon, 32, seed=3))
    one_by_one = [samples_of(alone.predict(series, horizon, 32, seed=3)) for series in context]

    assert_same_prices(stacked, torch.cat(one_by_one))


@pytest.mark.parametrize("samples_per_batch", [3, 7, 64])
def test_decoding_samples_in_portions_changes_no_number(mini: TotoPipeline, samples_per_batch: int) -> None:
    context, _ = histories("GOOGL", 2, 70)
    whole = samples_of(mini.predict(context, 70, 20, seed=1))
    portions = samples_of(mini.predict(context, 70, 20, seed=1, samples_per_batch=samples_per_batch))
    by_settings = TotoPipeline.from_pretrained(
        "toto-mini", settings=RuntimeSettings(samples_per_batch=samples_per_batch)
    )
    assert_same_prices(portions, whole)
    assert torch.equal(portions, samples_of(by_settings.predict(context, 70, 20, seed=1)))


def test_variates_of_one_group_influence_each_other_and_those_of_two_do_not(mini: TotoPipeline) -> None:
    context, _ = histories("AMD", 1, 8)
    other, _ = histories("AAPL", 1, 8)
    pair = np.concatenate([context[0], other[0]])
    apart = np.stack([np.zeros(CONTEXT), np.ones(CONTEXT)])

    alone = mini.predict(context, 8, num_samples=None).mean
    grouped = mini.predict(pair, 8, num_samples=None).mean[:, :1]
    separate = mini.predict(pair, 8, num_samples=None, id_mask=apart).mean[:, :1]

    assert not torch.allclose(grouped, alone, rtol=1e-5)
    torch.testing.assert_close(separate, alone, rtol=1e-6, atol=0.0)


def test_every_variate_gets_noise_of_its_own(mini: TotoPipeline) -> None:
    context, _ = histories("AMD", 1, 8)
    twice = np.concatenate([context[0], context[0]])
    paths = samples_of(mini.predict(twice, 8, 32))
    assert not torch.equal(paths[0, 0], paths[0, 1])


@pytest.mark.parametrize(
    "asked",
    [
        {"prediction_length": 0},
        {"prediction_length": 2.5},
        {"prediction_length": True},
        {"num_samples": 0},
        {"num_samples": -3},
        {"samples_per_batch": 0},
        {"samples_per_batch": -1},
        {"samples_per_batch": "8"},
        {"seed": 1.5},
        {"seed": 2**70},
        {"seed": None},
    ],
)
def test_sizes_that_make_no_sense_are_refused_by_name(mini: TotoPipeline, asked: dict[str, Any]) -> None:
    (name,) = asked
    with pytest.raises(RequestError, match=f"predict: {name} must be a whole number") as refused:
        mini.predict([1.0, 2.0, 3.0], **asked)
    assert "\n" not in str(refused.value)


def test_a_model_that_is_not_there_and_a_device_that_is_not_known_are_refused() -> None:
    with pytest.raises(CheckpointError, match="no such model folder"):
        TotoPipeline.from_pretrained("nowhere")
    with pytest.raises(DeviceError, match="abacus"):
        TotoPipeline.from_pretrained("toto-mini", device="abacus")


def test_a_folder_forecasts_like_the_model_saved_into_it(mini: TotoPipeline, tmp_path: Path) -> None:
    checkpoint.save(checkpoint.load(locate("toto-mini")), tmp_path / "copy")
    context, _ = histories("AMD", 1, 40)
    copied = TotoPipeline.from_pretrained(str(tmp_path / "copy")).predict(context, 40, 8)
    assert torch.equal(samples_of(copied), samples_of(mini.predict(context, 40, 8)))


def test_bf16_moves_forecasts_of_amd_by_little_of_their_own_spread(mini: TotoPipeline) -> None:
    # Seen on a CPU with bf16 instructions, of the 10-90 % spread: 0.8 % at worst and 0.1 % on average for
    # medians, 3 % at worst for the outer quantiles; mean absolute error moved by 0.03 %.
    context, future = histories("AMD", 24, 8)
    half = TotoPipeline.from_pretrained("toto-mini", settings=RuntimeSettings(precision="bf16"))
    exact, moved = mini.predict(context, 8, 256), half.predict(context, 8, 256)

    spread = exact.quantile(0.9) - exact.quantile(0.1)
    median_shift = (moved.median - exact.median).abs() / spread
    assert 0.0 < float(median_shift.max()) < 0.02
    assert float(median_shift.mean()) < 0.003
    for q in (0.1, 0.25, 0.75, 0.9):
        assert float(((moved.quantile(q) - exact.quantile(q)).abs() / spread).max()) < 0.08, q
    error, error_moved = (np.abs(f.median.numpy() - future).mean() for f in (exact, moved))
    assert abs(error_moved / error - 1.0) < 0.005


def test_only_matrix_products_run_in_bf16() -> None:
    decoder = golden_case("univariate").decoder("bf16")
    exact = {name for name, parameter in decoder.named_parameters() if parameter.dtype == torch.float32}
    assert exact == {name for name in exact if "norm" in name or "patch_embed" in name}
    assert decoder.fold_weight.dtype == torch.float32
    assert {p.dtype for p in Decoder(golden_case("univariate").model).parameters()} == {torch.float32}


THREADS = """
import json, torch, warnings
from toto_core import RuntimeSettings, TotoPipeline
counts = []
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for threads in (1, 1, 2, None):
        TotoPipeline.from_pretrained("toto-mini", settings=RuntimeSettings(num_threads=threads))
        counts.append(torch.get_num_threads())
print(json.dumps([counts, [[str(w.message), w.filename] for w in caught]]))
"""


def test_a_process_keeps_the_thread_count_of_its_first_pipeline() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", THREADS], check=True, capture_output=True, text=True, timeout=120
    )
    counts, caught = json.loads(finished.stdout)
    assert counts == [1, 1, 1, 1]
    assert caught == [
        ["this process already runs 1 threads; settings for 2 hold after a restart", "<string>"]
    ]


def test_many_series_of_any_length_get_the_forecast_each_would_get_alone(mini: TotoPipeline) -> None:
    lengths = {"AMD": 512, "AAPL": 70, "BTCUSD": 512, "GOOGL": 300, "ETHUSD": 32}
    contexts: dict[str, Any] = {name: find_series(name, None).close[-n:] for name, n in lengths.items()}
    contexts["PAIR"] = np.stack([contexts["AMD"], contexts["BTCUSD"]])
    batched = TotoPipeline.from_pretrained("toto-mini", settings=RuntimeSettings(series_per_batch=4))

    together = batched.predict_many(contexts, 40, num_samples=16, seed=2)

    assert list(together) == list(contexts)
    for name, forecast in together.items():
        alone = mini.predict(contexts[name], 40, num_samples=16, seed=2)
        assert_same_prices(samples_of(forecast), samples_of(alone))
    means = batched.predict_many({"AMD": contexts["AMD"]}, 8, num_samples=None)
    assert means["AMD"].samples is None
    assert batched.predict_many({}) == {}


def test_a_series_that_cannot_be_forecast_is_named(mini: TotoPipeline) -> None:
    with pytest.raises(RequestError, match="predict_many: AMD: context holds NaN"):
        mini.predict_many({"AAPL": np.ones(40), "AMD": np.full(40, np.nan)})
    with pytest.raises(RequestError, match=r"predict_many: AMD: context must be \(time,\)"):
        mini.predict_many({"AMD": np.ones((2, 1, 40))})


PEAK = """
import sys
import numpy as np
from toto_core.pipeline import TotoPipeline
pipeline = TotoPipeline.from_pretrained("toto-mini")
before = pipeline.peak_bytes  # what torch itself takes, which differs by build and release
pipeline.predict(100 + np.sin(np.arange(64)), 64, 2048, samples_per_batch=int(sys.argv[1]))
print(pipeline.peak_bytes - before)
"""


def test_samples_per_batch_bounds_the_peak_memory_that_is_reported() -> None:
    def peak_bytes(together: int) -> int:
        command = [sys.executable, "-c", PEAK, str(together)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert peak_bytes(128) < 0.8 * peak_bytes(2048)
