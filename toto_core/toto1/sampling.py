"""Mixtures of Student-t distributions: their parameters, means, and samples as a function of given noise.

Noise is an input, so eager and compiled, fp32 and bf16 turn the same uniforms into the same samples.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

EXTREME = torch.finfo(torch.float32).max / 2
"""Samples at or beyond this magnitude, and non-finite ones, become 0, as in the reference's decoder."""


class Mixture(NamedTuple):
    """Parameters of a mixture, each (..., component): weights, degrees of freedom, location and scale."""

    probs: Tensor
    df: Tensor
    loc: Tensor
    scale: Tensor


class Noise(NamedTuple):
    """Uniform numbers in (0, 1), each (variate, time, sample): which component, how far, which way."""

    component: Tensor
    radius: Tensor
    angle: Tensor


def mixture(raw: Tensor) -> Mixture:
    """Parameters, in fp32, from the heads' output, (..., 4 * component), in the order df, loc, scale, logits."""
    df, loc, scale, logits = raw.float().chunk(4, dim=-1)
    tiny = torch.finfo(torch.float32).eps
    return Mixture(
        functional.softmax(logits, dim=-1),
        2.0 + functional.softplus(df).clamp_min(tiny),
        loc,
        functional.softplus(scale).clamp_min(tiny),
    )


def mixture_mean(parameters: Mixture) -> Tensor:
    """Mean of the mixture, (...): every component has one, because its degrees of freedom exceed 2."""
    return (parameters.probs * parameters.loc).sum(-1)


def draw_uniforms(seed: int, *, num_samples: int, variates: int, steps: int, pin: bool = False) -> Tensor:
    """Draw the noise of one forecast on the CPU: float32 (3, variate, time, sample), which ``Noise`` has unbound.

    The same seed gives the same numbers on every device and for every setting, and every series of a batch
    reads the same ones, so that a forecast does not depend on its batch. ``pin`` draws into pinned memory.
    """
    generator = torch.Generator().manual_seed(seed)
    smallest = 2.0**-25  # rand() is a multiple of 2^-24 and may be 0, where the logarithm is not finite
    shape = (3, variates, steps, num_samples)
    return torch.rand(shape, generator=generator, pin_memory=pin).clamp_min_(smallest)


def draw_noise(seed: int, *, num_samples: int, variates: int, steps: int) -> Noise:
    """``draw_uniforms`` as ``Noise``, each tensor (variate, time, sample)."""
    return Noise(*draw_uniforms(seed, num_samples=num_samples, variates=variates, steps=steps).unbind(0))


def sample(parameters: Mixture, component: Tensor, radius: Tensor, angle: Tensor) -> Tensor:
    """Samples of the mixture from three uniforms of one shape (..., sample).

    ``parameters`` are (..., component). The component is chosen by inverse CDF; its Student-t variate is
    t = sqrt(df * expm1(-2 ln U / df)) * cos(2 pi V), Bailey's polar method (Math. Comp. 62, 1994).
    """
    # without the last component: whatever lies beyond the others, rounding included, is its share
    cumulative = parameters.probs.cumsum(-1)[..., :-1]
    index = (cumulative.unsqueeze(-2) < component.unsqueeze(-1)).sum(-1)
    df = parameters.df.gather(-1, index)
    polar = (df * torch.expm1(-2.0 * radius.log() / df)).sqrt() * torch.cos(2.0 * math.pi * angle)
    return parameters.loc.gather(-1, index) + parameters.scale.gather(-1, index) * polar


def without_extremes(values: Tensor) -> Tensor:
    """Replace non-finite and extreme values by 0."""
    usable = torch.isfinite(values) & (values.abs() < EXTREME)
    return torch.where(usable, values, torch.zeros_like(values))
