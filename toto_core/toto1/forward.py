"""The two calls a forecast is made of: the context with the first patch, then one more patch at a time."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from toto_core.toto1.cache import Suffix
from toto_core.toto1.decode import Carry, Context, Decoder, Prediction
from toto_core.toto1.sampling import Noise, mixture_mean, sample, without_extremes
from toto_core.toto1.scaling import Stats


class FirstPatch(NamedTuple):
    """The first patch of a forecast, prices (batch, variate, row, sample), and what later steps need."""

    prices: Tensor
    carry: Carry | None


class NewestPatch(NamedTuple):
    """The newest patch of every path, prices (batch, variate, sample, patch_size), and its statistics."""

    prices: Tensor
    stats: Stats


def first(decoder: Decoder, context: Context, rows: int, noise: Noise | None, *, keep: bool) -> FirstPatch:
    """Prefill and the first ``rows`` steps; ``noise`` (variate, row, sample), None for the mean path.

    ``keep`` asks for the carry that ``following`` needs.
    """
    prediction, carry = decoder.prefill(context, rows)
    if noise is None:
        scaled = mixture_mean(prediction.mixture).unsqueeze(-1)
    else:
        shape = (*prediction.loc.shape, rows, noise.component.shape[-1])
        scaled = sample(prediction.mixture, *(uniform.expand(shape) for uniform in noise))
    prices = prediction.loc[..., None, None] + prediction.scale[..., None, None] * scaled
    return FirstPatch(without_extremes(prices), carry if keep else None)


def following(
    decoder: Decoder, newest: NewestPatch, carry: Carry, suffix: Suffix, noise: Noise | None
) -> NewestPatch:
    """Feed back the newest patch, forecast the next; ``noise`` (variate, step, sample); writes into ``suffix``."""
    prediction, stats = decoder.step(newest.prices, newest.stats, carry, suffix)
    return NewestPatch(without_extremes(_next_prices(prediction, noise)), stats)


def _next_prices(prediction: Prediction, noise: Noise | None) -> Tensor:
    """Prices (batch, variate, sample, row) from one draw per sample; ``noise`` is (variate, row, sample)."""
    if noise is None:
        scaled = mixture_mean(prediction.mixture)
    else:
        shape = prediction.mixture.probs.shape[:-1]
        uniforms = (uniform.transpose(-1, -2).expand(shape).unsqueeze(-1) for uniform in noise)
        scaled = sample(prediction.mixture, *uniforms).squeeze(-1)
    return prediction.loc.unsqueeze(-1) + prediction.scale.unsqueeze(-1) * scaled
