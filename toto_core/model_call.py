"""From a checked request to prices: noise, a common scale, and model calls of some series and samples at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toto_core.common_scale import powers_of_ten
from toto_core.compiling.calls import Calls
from toto_core.device import can_pin, owned, send, synchronize
from toto_core.float32_products import Switches, pinned
from toto_core.requests import ForecastRequest, batches
from toto_core.toto1.decode import Carry, Context
from toto_core.toto1.forward import FirstPatch, NewestPatch
from toto_core.toto1.sampling import Noise, draw_uniforms
from toto_core.toto1.scaling import Stats


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how calls run: device, switches of matrix products, and whether small series are scaled up."""

    device: torch.device
    products: Switches
    common_scale: bool


def forecast_paths(
    calls: Calls, whole: Context, request: ForecastRequest, place: Place
) -> tuple[Tensor, float]:
    """Prices (batch, variate, time, sample) of any number of series, on the CPU, and the largest power of ten they
    were forecast times. Prices that were not finite are 0. Raises whatever torch raises.
    """
    noise = _noise(whole, request, place.device)
    powers = powers_of_ten(whole.series, whole.valid) if place.common_scale else None
    if powers is not None:
        whole = whole._replace(series=whole.series * powers.unsqueeze(-1))
    parts: list[Tensor] = []
    # not inference_mode: freezing needs tensors that still have version counters
    with torch.no_grad(), pinned(place.products):
        for part, real in batches(whole, calls.settings, request.patch_size):
            there = part.each(lambda tensor: tensor.to(place.device))
            parts.append(_model_call(calls, there, request, noise)[:real])
    synchronize(place.device)
    paths = torch.cat(parts)
    if powers is None:
        return paths, 1.0
    return paths / powers[..., None, None], float(powers.max())


def _noise(whole: Context, request: ForecastRequest, device: torch.device) -> Noise | None:
    """Noise on the device, None for the mean path."""
    if request.num_samples is None:
        return None
    steps = request.rows if request.patches == 1 else request.patches * request.patch_size
    asked = request.drawn_samples or request.num_samples
    size = {"num_samples": asked, "variates": whole.series.shape[1], "steps": steps}
    drawn = draw_uniforms(request.seed, **size, pin=can_pin(device))
    if asked != request.num_samples:  # those that remain of a forecast that was too large
        drawn = drawn[..., : request.num_samples].contiguous()
    return Noise(*send(drawn, device).unbind(0))


def _model_call(calls: Calls, context: Context, request: ForecastRequest, noise: Noise | None) -> Tensor:
    """Prices (batch, variate, time, sample) of one model call's series, on the CPU.

    ``context`` and ``noise`` (None for the mean path) lie on the device of ``calls``. Raises whatever torch raises.
    """
    calls.begin()
    first_noise = None if noise is None else Noise(*(uniform[:, : request.rows] for uniform in noise))
    first = calls.first(context, request.rows, first_noise, keep=request.patches > 1)
    if first.carry is None:
        return owned(first.prices)
    total = first.prices.shape[-1]
    size = min(request.samples_per_batch, total)
    portions = []
    for start in range(0, total, size):
        begin = min(start, total - size)  # the last portion is as wide as the others: one graph for all
        paths = _continue(calls, (first, first.carry), request, noise, slice(begin, begin + size))
        portions.append(paths[..., : request.steps, start - begin :])
    return torch.cat(portions, dim=-1)


def _continue(
    calls: Calls,
    begun: tuple[FirstPatch, Carry],
    request: ForecastRequest,
    noise: Noise | None,
    part: slice,
) -> Tensor:
    """All patches of some sample paths, (batch, variate, time, sample), time in whole patches."""
    first, carry = begun
    prices = _fresh(first.prices[..., part].transpose(-1, -2))
    samples = prices.shape[2]
    stats = Stats(*(_fresh(value.unsqueeze(-1).expand(*value.shape, samples)) for value in carry.stats))
    slots = request.patches - 1
    if calls.settings.compiled:  # powers of two, so that not every horizon is a graph of its own
        slots = 1 << (slots - 1).bit_length()
    suffix = calls.suffix(carry.prefix, samples=samples, slots=slots)
    newest, patches = NewestPatch(prices, stats), [prices]
    for index in range(1, request.patches):
        rows = slice(index * request.patch_size, (index + 1) * request.patch_size)
        drawn = None if noise is None else Noise(*(uniform[:, rows, part] for uniform in noise))
        newest = calls.following(newest, carry, suffix.at(index - 1), drawn)
        patches.append(newest.prices)
    return owned(torch.cat(patches, dim=-1)).transpose(-1, -2)


def _fresh(view: Tensor) -> Tensor:
    """A copy with the strides a step's results have: those of a view would cost a second compilation."""
    return view.clone(memory_format=torch.contiguous_format)
