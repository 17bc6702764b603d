"""Make the reference vectors of this folder with toto-ts 0.2.0, or check stored ones against it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from toto.data.util.dataset import (  # type: ignore[import-not-found]  # lives in a throw-away environment
    MaskedTimeseries,
    pad_array,
    pad_id_mask,
)
from toto.inference.forecaster import TotoForecaster  # type: ignore[import-not-found]
from toto.model.toto import Toto  # type: ignore[import-not-found]

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
SAMPLES = 4096
SAMPLES_PER_BATCH = 512
SAMPLED_STEPS = 8
FORCED_PATCHES = 2
RELATIVE_LIMIT = 1e-4
# Six seeds compared pairwise on three cases: the largest difference was 0.03 to 0.065 of the 10-90 % spread.
SPREAD_LIMIT = 0.1

Vectors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a model is asked.

    ``series``, ``id_mask`` and ``padding_mask`` (bool, True = real value) are ``(variate, time)``,
    ``forced`` is ``(1, variate, 2·patch)``. Raises ValueError if the shapes do not belong together.
    """

    series: Tensor
    id_mask: Tensor
    padding_mask: Tensor
    forced: Tensor
    horizons: tuple[int, ...]
    seed: int

    def __post_init__(self) -> None:
        shape = self.series.shape
        if self.id_mask.shape != shape or self.padding_mask.shape != shape:
            raise ValueError(f"id_mask and padding_mask must have the shape of series, {tuple(shape)}")
        if self.forced.ndim != 3 or self.forced.shape[:2] != (1, shape[0]):
            raise ValueError(f"forced must be (1, {shape[0]}, time), not {tuple(self.forced.shape)}")

    def batch(self) -> Any:
        """The inputs as a toto-ts batch of one; its timestamps are required there and read by nothing."""
        return MaskedTimeseries(
            series=self.series[None],
            padding_mask=self.padding_mask[None],
            id_mask=self.id_mask[None],
            timestamp_seconds=torch.zeros(1, *self.series.shape, dtype=torch.int),
            time_interval_seconds=torch.ones(1, self.series.shape[0], dtype=torch.int),
        )


@torch.no_grad()
def vectors_for(model: Any, inputs: Inputs) -> Vectors:
    """All tensors of ``<case>.vectors.safetensors`` for a ``Toto`` model in evaluation mode."""
    forecaster = TotoForecaster(model.model)
    vectors = {
        "series": inputs.series,
        "id_mask": inputs.id_mask,
        "padding_mask": inputs.padding_mask.to(torch.uint8),
        "forced": inputs.forced,
    }
    vectors |= _teacher_forced(model.model, inputs, use_kv_cache=True)
    vectors |= _teacher_forced(model.model, inputs, use_kv_cache=False)
    for horizon in inputs.horizons:
        for name, cached in (("cached", True), ("uncached", False)):
            forecast = forecaster.forecast(inputs.batch(), horizon, use_kv_cache=cached)
            vectors[f"mean.{name}.h{horizon}"] = forecast.mean
    torch.manual_seed(inputs.seed)
    sampled = forecaster.forecast(
        inputs.batch(), SAMPLED_STEPS, num_samples=SAMPLES, samples_per_batch=SAMPLES_PER_BATCH
    )
    vectors["sampled.quantiles"] = sampled.quantile(torch.tensor(QUANTILES))
    return {name: tensor.contiguous() for name, tensor in vectors.items()}


def _teacher_forced(backbone: Any, inputs: Inputs, *, use_kv_cache: bool) -> Vectors:
    """Mixture parameters after the context (cached pass only) and after each forced patch.

    Padding, masks and the prefix of the scaler are those of ``TotoForecaster.generate_mean``.
    """
    patch = backbone.patch_embed.stride
    batch = inputs.batch()
    series = pad_array(batch.series, patch)
    padding_mask = pad_array(batch.padding_mask, patch)
    id_mask = pad_id_mask(batch.id_mask, patch)
    prefix_length = series.shape[-1]
    kv_cache = None
    if use_kv_cache:
        kv_cache = backbone.allocate_kv_cache(
            batch_size=1,
            num_variates=series.shape[1],
            max_time_steps=prefix_length + inputs.forced.shape[-1],
            device=series.device,
            dtype=series.dtype,
        )

    def forward() -> Any:
        return backbone(series, padding_mask, id_mask, kv_cache=kv_cache, scaling_prefix_length=prefix_length)

    context = forward()
    vectors = _parameters("context", context, prefix_length) if use_kv_cache else {}
    prefix = "cached" if use_kv_cache else "uncached"
    for step, values in enumerate(inputs.forced.chunk(FORCED_PATCHES, dim=-1), start=1):
        series = torch.cat([series, values], dim=-1)
        padding_mask = torch.cat([padding_mask, torch.ones_like(values, dtype=torch.bool)], dim=-1)
        id_mask = torch.cat([id_mask, id_mask[..., -1:].expand_as(values)], dim=-1)
        vectors |= _parameters(f"{prefix}_step{step}", forward(), patch)
    return vectors


def _parameters(prefix: str, output: Any, steps: int) -> Vectors:
    components = output.distribution.component_distribution
    named: dict[str, Tensor] = {
        "probs": output.distribution.mixture_distribution.probs,
        "df": components.df,
        "loc": components.loc,
        "scale": components.scale,
        "affine_loc": output.loc,
        "affine_scale": output.scale,
    }
    return {f"{prefix}.{name}": tensor[:, :, -steps:] for name, tensor in named.items()}


SeriesMaker = Callable[[int, int, int, torch.Generator], Tensor]


def _geometric(variates: int, context: int, forced: int, generator: torch.Generator) -> Tensor:
    moves = 0.01 * torch.randn(variates, context + forced, generator=generator)
    levels = 120.0 * torch.arange(1, variates + 1)[:, None]
    return levels * moves.cumsum(-1).exp()


def _constant(variates: int, context: int, forced: int, generator: torch.Generator) -> Tensor:
    # The forced values move, for otherwise every patch would have the same parameters.
    flat = torch.full((variates, context), 109000.3)
    moves = 0.25 * torch.randn(variates, forced, generator=generator)
    return torch.cat([flat, 109000.3 + moves.cumsum(-1)], dim=-1)


def _jump(variates: int, context: int, forced: int, generator: torch.Generator) -> Tensor:
    # Both breaks fall inside a patch, so that a patch holds prices of both levels.
    prices = _geometric(variates, context, forced, generator) * 250.0 / 120.0
    prices[:, 54:] *= 10.0
    prices[:, 101:] /= 5.0
    return prices


SERIES: Mapping[str, SeriesMaker] = {"geom": _geometric, "constant": _constant, "jump": _jump}


@dataclass(frozen=True, kw_only=True)
class Case:
    """How to make one case; ``groups`` has one id per variate, the first ``masked`` values are padding."""

    series: str
    seed: int
    horizons: tuple[int, ...]
    context_length: int
    groups: tuple[int, ...] = (0,)
    masked: int = 0
    embed_dim: int = 32
    num_layers: int = 4
    spacewise_every_n_layers: int = 4
    spacewise_first: bool = False
    k_components: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.masked < self.context_length:
            raise ValueError(f"masked must be in [0, {self.context_length}), not {self.masked}")

    def config(self) -> dict[str, Any]:
        """The official ``config.json`` fields."""
        return {
            "patch_size": 16,
            "stride": 16,
            "embed_dim": self.embed_dim,
            "num_layers": self.num_layers,
            "num_heads": 4,
            "mlp_hidden_dim": 2 * self.embed_dim,
            "dropout": 0.1,
            "spacewise_every_n_layers": self.spacewise_every_n_layers,
            "scaler_cls": "<class 'model.scaler.CausalPatchStdMeanScaler'>",
            "output_distribution_classes": ["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
            "spacewise_first": self.spacewise_first,
            "output_distribution_kwargs": {"k_components": self.k_components},
            "use_memory_efficient_attention": False,
            "stabilize_with_global": True,
            "scale_factor_exponent": 10.0,
        }

    def inputs(self) -> Inputs:
        """The case's series, cut into context and forced values."""
        forced_length = FORCED_PATCHES * int(self.config()["patch_size"])
        generator = torch.Generator().manual_seed(self.seed)
        prices = SERIES[self.series](len(self.groups), self.context_length, forced_length, generator)
        series, forced = prices[:, : self.context_length], prices[:, self.context_length :]
        padding_mask = (torch.arange(self.context_length) >= self.masked).expand_as(series)
        return Inputs(
            series=series * padding_mask,
            id_mask=torch.tensor(self.groups, dtype=torch.float32)[:, None].expand_as(series),
            padding_mask=padding_mask,
            forced=forced[None],
            horizons=self.horizons,
            seed=self.seed,
        )


CASES: Mapping[str, Case] = {
    "spacewise_first": Case(
        series="geom",
        seed=21,
        horizons=(8, 33),
        context_length=90,
        groups=(0, 0, 1),
        embed_dim=48,
        spacewise_every_n_layers=2,
        spacewise_first=True,
        k_components=4,
    ),
    "constant": Case(series="constant", seed=22, horizons=(8, 40), context_length=128),
    "jump": Case(series="jump", seed=23, horizons=(8, 40), context_length=128),
    "long_horizon": Case(
        series="geom", seed=24, horizons=(8, 16, 17, 160), context_length=100, masked=37, k_components=5
    ),
}


@torch.no_grad()
def random_model(config: Mapping[str, Any], seed: int) -> Any:
    """A ``Toto`` whose mixture varies from step to step and notices a wrong position.

    Doubling the weights behind attention and mixture logits does that at float32 errors of about 1e-5.
    Doubling all weights raises them to 6e-5 and makes long mean forecasts chaotic.
    """
    torch.manual_seed(seed)
    model = Toto(**config).eval()
    for name, parameter in model.named_parameters():
        if "wQKV.weight" in name or "mixture_weights.weight" in name:
            parameter.mul_(2.0)
        if not name.endswith(".weight"):
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make(directory: Path, name: str) -> None:
    """Write the three files of a case of ``CASES``."""
    case = CASES[name]
    config = case.config()
    model = random_model(config, case.seed)
    about = {"config": config, "series": case.series, "seed": case.seed, "horizons": list(case.horizons)}
    (directory / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    save_file(model.state_dict(), directory / f"{name}.weights.safetensors")
    save_file(vectors_for(model, case.inputs()), directory / f"{name}.vectors.safetensors")


def differences(directory: Path, name: str) -> dict[str, float]:
    """Largest difference of each stored tensor from one computed now from the stored weights and inputs.

    Relative to the stored value, or to the tensor's median magnitude where that is larger; means
    relative to the scale of the last context patch; sampled quantiles relative to the 10-90 % spread,
    because stored ones may come from other random numbers. Raises ValueError if the tensors' names,
    shapes or dtypes differ.
    """
    about = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
    stored = load_file(directory / f"{name}.vectors.safetensors")
    model = Toto(**about["config"]).eval()
    model.load_state_dict(load_file(directory / f"{name}.weights.safetensors"))
    inputs = Inputs(
        series=stored["series"],
        id_mask=stored["id_mask"],
        padding_mask=stored["padding_mask"].bool(),
        forced=stored["forced"],
        horizons=tuple(about["horizons"]),
        seed=about["seed"],
    )
    computed = vectors_for(model, inputs)
    described = [{key: (v.shape, v.dtype) for key, v in vectors.items()} for vectors in (stored, computed)]
    if described[0] != described[1]:
        raise ValueError(
            f"{name}: stored tensors differ in name, shape or dtype from those computed; make them again"
        )
    found = {}
    for key in sorted(stored):
        distance = (stored[key].double() - computed[key].double()).abs()
        found[key] = float(torch.where(distance > 0, distance / _unit(key, stored), distance).max())
    return found


def _unit(key: str, stored: Vectors) -> Tensor:
    values = stored[key].double().abs()
    if key == "sampled.quantiles":
        return (stored[key][-1] - stored[key][0]).double()
    if key.startswith("mean."):
        # A price level far above the scale would hide any error, so only float32 rounding is allowed for it.
        return stored["context.affine_scale"][..., -1:].double() + values * (2.0**-22 / RELATIVE_LIMIT)
    return values.clamp_min(float(values.median()))


def verify(directory: Path, name: str) -> bool:
    """Print the differences of a stored case and say whether all are within the limits."""
    found = differences(directory, name)
    for key, difference in found.items():
        sys.stdout.write(f"{name:18} {key:28} {difference:.1e}\n")
    limits = {"sampled.quantiles": SPREAD_LIMIT}
    return all(difference <= limits.get(key, RELATIVE_LIMIT) for key, difference in found.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Make cases, or with ``--verify`` check them; 0 if all is well, 1 if a stored case differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, metavar="OUT_DIR", help="where the cases' files are or go")
    parser.add_argument("cases", nargs="*", metavar="case", help="names; all there are if none is given")
    parser.add_argument(
        "--verify", action="store_true", help="compare stored cases with toto-ts; writes nothing"
    )
    given = parser.parse_args(arguments)
    known = sorted(path.stem for path in given.directory.glob("*.json")) if given.verify else sorted(CASES)
    unknown = sorted(set(given.cases) - set(known))
    if unknown:
        parser.error(f"unknown case {unknown[0]}; choose from {', '.join(known)}")
    torch.set_num_threads(
        1
    )  # the order of sums, and with it the last digit, depends on the number of threads
    if given.verify:
        passed = [verify(given.directory, name) for name in given.cases or known]
        sys.stdout.write(
            "all within the limits\n" if all(passed) else "some differ by more than the limits\n"
        )
        return 0 if all(passed) else 1
    given.directory.mkdir(parents=True, exist_ok=True)
    for name in given.cases or known:
        make(given.directory, name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
