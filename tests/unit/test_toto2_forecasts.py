from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.toto2_model import EVERYTHING, TINY, random_weights
from toto_core.base_pipeline import NoForecastError, PipelineClosedError
from toto_core.memory_ladder import ForecastMemoryError
from toto_core.requests import RequestError
from toto_core.settings import RuntimeSettings
from toto_core.toto2.decode import Decoder
from toto_core.toto2.folding import folded
from toto_core.toto2.model_config import Toto2Config
from toto_core.toto2.options import Toto2Options
from toto_core.toto2.pipeline import Toto2Pipeline
from toto_core.toto2.quantiles import prices
from toto_core.toto2.scaling import Scale

PATCH = TINY.patch_size
few = settings(max_examples=15, derandomize=True)


def pipeline(config: Toto2Config = EVERYTHING, **options: Any) -> Toto2Pipeline:
    decoder = Decoder(config, folded(random_weights(config), config)).eval().requires_grad_(False)
    return Toto2Pipeline(
        decoder, RuntimeSettings(), torch.device("cpu"), 0.0, options=Toto2Options(**options)
    )


PIPELINE = pipeline()


def walk(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 100.0 + torch.randn(shape, generator=generator).cumsum(-1)


def close(ours: Tensor, expected: Tensor, share: float = 1e-4) -> None:
    spread = float((expected[-1] - expected[0]).amax())
    torch.testing.assert_close(ours, expected, rtol=0.0, atol=share * spread)


@pytest.mark.parametrize("context", [walk(48).numpy(), walk(48).tolist(), walk(1, 48), walk(1, 1, 48)])
def test_a_context_may_be_an_array_a_list_or_a_tensor_of_one_to_three_dimensions(context: Any) -> None:
    forecast = PIPELINE.predict(context, 11)
    assert forecast.quantile(0.5).shape == (1, 1, 11)
    assert torch.equal(forecast.quantiles, PIPELINE.predict(walk(48), 11).quantiles)


@few
@given(
    shift=st.floats(-1e3, 1e3),
    power=st.integers(-2, 3),
    block=st.sampled_from([0, PATCH]),
    seed=st.integers(0, 99),
)
def test_a_series_in_other_units_has_the_same_forecast_in_these_units(
    shift: float, power: int, block: int, seed: int
) -> None:
    series, factor = walk(2, 48, seed=seed).double(), 10.0**power
    plain = PIPELINE.predict(series, 20, decode_block_size=block).quantiles.double()
    other = PIPELINE.predict(factor * series + shift, 20, decode_block_size=block).quantiles.double()
    # float32 cannot hold a small move beside a large shift
    share = 1e-3 + 1e-5 * abs(shift) / factor
    close((other - shift) / factor, plain, share)


@few
@given(patches=st.integers(1, 5), block=st.sampled_from([0, PATCH, 2 * PATCH]), steps=st.integers(1, 30))
def test_whole_patches_of_padding_before_a_series_change_nothing(
    patches: int, block: int, steps: int
) -> None:
    plain = pipeline(TINY)
    series = walk(1, 1, 40)
    padded = torch.cat((torch.full((1, 1, patches * PATCH), 7e8), series), dim=-1)
    mask = torch.arange(padded.shape[-1]) >= patches * PATCH
    ours = plain.predict(padded, steps, padding_mask=mask.expand_as(padded), decode_block_size=block)
    close(ours.quantiles, plain.predict(series, steps, decode_block_size=block).quantiles)


@few
@given(seed=st.integers(0, 99), block=st.sampled_from([0, PATCH]))
def test_a_group_is_forecast_as_if_the_others_were_not_there(seed: int, block: int) -> None:
    series = walk(1, 3, 40, seed=seed)
    together = PIPELINE.predict(series, 20, id_mask=[4, 9, 4], decode_block_size=block).quantiles
    close(together[:, :, [0, 2]], PIPELINE.predict(series[:, [0, 2]], 20, decode_block_size=block).quantiles)
    close(together[:, :, 1:2], PIPELINE.predict(series[:, 1:2], 20, decode_block_size=block).quantiles)


def test_variates_of_one_group_read_each_other() -> None:
    series = walk(1, 2, 40)
    changed = torch.stack((series[0, 0], series[0, 1].flip(0))).unsqueeze(0)
    ours, other = (PIPELINE.predict(each, 8).quantiles[:, :, 0] for each in (series, changed))
    assert float((ours - other).abs().max()) > 1e-3


def test_series_of_a_batch_do_not_read_each_other() -> None:
    series = walk(3, 2, 40)
    together = PIPELINE.predict(series, 20, decode_block_size=PATCH).quantiles
    for index in range(3):
        alone = PIPELINE.predict(series[index], 20, decode_block_size=PATCH).quantiles
        close(together[:, index : index + 1], alone)


def test_a_forecast_does_not_depend_on_how_many_series_are_forecast_together() -> None:
    settings_of_two = RuntimeSettings(series_per_batch=2)
    decoder = PIPELINE.model
    assert decoder is not None
    by_two = Toto2Pipeline(decoder, settings_of_two, torch.device("cpu"), 0.0)
    close(by_two.predict(walk(5, 1, 40), 9).quantiles, PIPELINE.predict(walk(5, 1, 40), 9).quantiles)


def test_several_series_of_any_lengths_are_forecast_as_each_alone() -> None:
    decoder = PIPELINE.model
    assert decoder is not None
    together = Toto2Pipeline(decoder, RuntimeSettings(series_per_batch=4), torch.device("cpu"), 0.0)
    contexts = {f"S{length}": walk(length, seed=length) for length in (64, 17, 40, 33, 8)}
    forecasts = together.predict_many(contexts, 20, decode_block_size=PATCH)
    assert list(forecasts) == list(contexts)
    for name, context in contexts.items():
        alone = PIPELINE.predict(context, 20, decode_block_size=PATCH).quantiles
        close(forecasts[name].quantiles, alone)


def test_what_is_hidden_and_no_number_is_the_newest_real_value_before_it() -> None:
    series = walk(40)
    mask = torch.ones(40, dtype=torch.bool)
    mask[[3, 36, 37, 39]] = False
    gaps, filled = series.clone(), series.clone()
    gaps[~mask] = torch.nan
    filled[36:38], filled[39] = series[35], series[38]
    ours = PIPELINE.predict(gaps, 9, padding_mask=mask).quantiles
    assert torch.equal(ours, PIPELINE.predict(filled, 9, padding_mask=mask).quantiles)


def test_a_constant_series_is_forecast_to_stay() -> None:
    forecast = PIPELINE.predict(np.full(64, 109_000.125), 20, decode_block_size=PATCH)
    assert float((forecast.median - 109_000.125).abs().max()) <= 0.0078125


def test_an_input_known_ahead_changes_the_forecast_from_where_it_changes() -> None:
    series, known = walk(40), torch.zeros(1, 64)
    later = known.clone()
    later[:, 50:] = 5.0
    ours, other = (PIPELINE.predict(series, 24, known_dynamic=each).quantiles for each in (known, later))
    torch.testing.assert_close(ours[..., :8], other[..., :8])
    assert float((ours[..., 16:] - other[..., 16:]).abs().max()) > 1e-3


def test_an_input_that_ends_early_is_missing_from_there() -> None:
    series, known = walk(40), walk(1, 50, seed=3)
    whole = torch.cat((known, torch.zeros(1, 14)), dim=-1)
    mask = (torch.arange(64) < 50).expand(1, -1)
    ours = PIPELINE.predict(series, 24, known_dynamic=known).quantiles
    expected = PIPELINE.predict(series, 24, known_dynamic=whole, known_dynamic_mask=mask).quantiles
    assert torch.equal(ours, expected)


def test_the_cap_holds_every_quantile_near_what_was_seen() -> None:
    series = walk(40)
    capped = PIPELINE.predict(series, 30, quantile_real_cap_k=0.01).quantiles
    room = 0.01 * float(series.std()) + 1e-4
    assert float(capped.max()) <= float(series.max()) + room
    assert float(capped.min()) >= float(series.min()) - room


def test_options_of_the_pipeline_hold_unless_the_call_says_otherwise() -> None:
    blocks = pipeline(decode_block_size=PATCH)
    assert torch.equal(
        blocks.predict(walk(40), 20).quantiles,
        PIPELINE.predict(walk(40), 20, decode_block_size=PATCH).quantiles,
    )
    assert torch.equal(
        blocks.predict(walk(40), 20, decode_block_size=0).quantiles, PIPELINE.predict(walk(40), 20).quantiles
    )


def test_numbers_of_numpy_count_as_numbers() -> None:
    ours = PIPELINE.predict(walk(40), np.int64(20), decode_block_size=np.int64(PATCH)).quantiles  # type: ignore[arg-type]
    assert torch.equal(ours, PIPELINE.predict(walk(40), 20, decode_block_size=PATCH).quantiles)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a block that is no whole patches": ({"decode_block_size": 12}, "multiple of the model's patch of 8"),
    "a block of no size": ({"decode_block_size": -8}, "decode_block_size must be a whole number"),
    "a cap that is none": ({"quantile_real_cap_k": float("nan")}, "quantile_real_cap_k must be a number"),
    "no horizon": ({"prediction_length": 0}, "prediction_length must be a whole number"),
    "a value that is no number": ({"context": [1.0] * 39 + [np.nan]}, "mask them with padding_mask"),
    "less than a patch": ({"context": [1.0] * 7}, "fewer than one patch of 8"),
    "nothing": ({"context": []}, "context is empty"),
    "nothing real": ({"padding_mask": [False] * 40}, "no value of the context is real"),
    "a mask of another shape": ({"padding_mask": [True] * 39}, "padding_mask must have the shape of context"),
    "groups that change": ({"id_mask": [0] * 20 + [1] * 20}, "a variate has one group"),
    "groups of other variates": ({"id_mask": [0, 1]}, "id_mask must be"),
    "groups that are no numbers": ({"id_mask": ["a"]}, "id_mask is not an array of numbers"),
    "an input that is too short": ({"known_dynamic": [[1.0] * 39]}, "known_dynamic must be"),
    "an input that is too long": ({"known_dynamic": [[1.0] * 49]}, "of 40 to 48 time steps"),
    "an input with NaN": ({"known_dynamic": [[np.nan] * 48]}, "known_dynamic_mask"),
    "a switch that is none": ({"has_missing_values": "yes"}, "has_missing_values must be true or false"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_forecast_is_refused_in_one_line(what: str) -> None:
    asked, reason = REFUSED[what]
    with pytest.raises(RequestError, match=reason) as refused:
        PIPELINE.predict(**{"context": walk(40), "prediction_length": 8, **asked})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("series", [1, 2000])
def test_levels_of_few_and_of_many_series_are_sorted(series: int) -> None:
    raw = torch.randn((series, 1, 1, 9, PATCH), generator=torch.Generator().manual_seed(0))
    newest = Scale(torch.full((series, 1), 3.0), torch.full((series, 1), 2.0))
    expected = (raw.sinh() * 2.0 + 3.0).sort(dim=-2).values.permute(3, 0, 1, 2, 4).flatten(-2)
    assert torch.equal(prices(raw, newest, None), expected)


def test_what_overflows_is_the_largest_that_does_not() -> None:
    raw = torch.zeros((1, 1, 1, 9, PATCH))
    raw[..., 8, :2] = torch.tensor([500.0, 2.0])
    raw[..., 0, :2] = torch.tensor([-500.0, -2.0])
    quantiles = prices(raw, Scale(torch.zeros(1, 1), torch.ones(1, 1)), None)
    assert bool(quantiles.isfinite().all())
    assert float(quantiles[8, 0, 0, 0]) == float(quantiles[8, 0, 0, 1]) == pytest.approx(3.6268604)
    assert float(quantiles[0, 0, 0, 0]) == pytest.approx(-3.6268604)


def test_what_a_call_did_is_said() -> None:
    heard: list[tuple[Any, ...]] = []
    spoken = pipeline()
    spoken.on_call = lambda *told: heard.append(told)
    spoken.provenance = {"symbol": "AMD"}
    spoken.predict(walk(2, 3, 44), 20, decode_block_size=PATCH)

    said = spoken.last_run_metadata
    assert (said["batch_size"], said["decode_block_size"], said["symbol"]) == (2, PATCH, "AMD")
    assert said["samples_replaced"] == 0
    assert said["rescued"] is False
    assert said["torch_compile_requested"] is False
    assert 0.0 < said["latency_ms"] <= said["cold_start_ms"]
    assert [told[1] for told in heard] == [(44, 20, 0)]


def test_memory_that_runs_out_is_said_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    full = pipeline()

    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(full._open().calls, "first", no_memory)
    with pytest.raises(ForecastMemoryError, match="smaller series_per_batch"):
        full.predict(walk(40), 8)


def test_weights_that_give_no_numbers_give_no_forecast() -> None:
    broken = pipeline()
    assert broken.model is not None
    with torch.no_grad():
        broken.model.head.up.weight.fill_(torch.nan)
    with pytest.raises(NoForecastError, match="72 of 72 prices"):
        broken.predict(walk(40), 8)


def test_a_pipeline_that_was_unloaded_says_so() -> None:
    gone = pipeline()
    gone.unload()
    with pytest.raises(PipelineClosedError, match="load another one"):
        gone.predict(walk(40), 8)


@pytest.mark.parametrize("axes", [(0, 2), (2, 2), (1, 2)])
def test_models_of_one_kind_of_layer_alone_work_too(axes: tuple[int, int]) -> None:
    across, group = axes
    fields = {**TINY.to_official(), "num_variate_layers_per_group": across, "layer_group_size": group}
    one = pipeline(Toto2Config.from_official(fields))
    forecast = one.predict(walk(1, 2, 40), 20, decode_block_size=PATCH)
    assert bool(forecast.quantiles.isfinite().all())
