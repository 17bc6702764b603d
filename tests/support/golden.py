"""The stored reference cases of tests/data/golden: their models, inputs and expected numbers."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from toto_core.pipeline import TotoPipeline
from toto_core.requests import read_context
from toto_core.settings import RuntimeSettings
from toto_core.toto1.checkpoint import from_official
from toto_core.toto1.decode import Context, Decoder
from toto_core.toto1.model import TotoModel
from toto_core.toto1.model_config import ModelConfig

FOLDER = Path(__file__).parents[1] / "data" / "golden"
CASES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
SAMPLES = 4096


@dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """One case: the model with its official weights, and the vectors stored for it."""

    name: str
    model: TotoModel
    vectors: dict[str, Tensor]

    @property
    def patch_size(self) -> int:
        return self.model.config.patch_size

    @property
    def series(self) -> Tensor:
        return self.vectors["series"]

    @property
    def padding_mask(self) -> Tensor:
        return self.vectors["padding_mask"].bool()

    @property
    def id_mask(self) -> Tensor:
        return self.vectors["id_mask"]

    def context(self) -> Context:
        return read_context(self.series, self.padding_mask, self.id_mask, self.patch_size)

    def forced(self, step: int) -> Tensor:
        """Patch ``step`` (from 1) of the values fed back, (1, variate, 1 sample, patch_size)."""
        return self.vectors["forced"].chunk(2, dim=-1)[step - 1].unsqueeze(2)

    def decoder(self, precision: str = "fp32") -> Decoder:
        return Decoder(self.model, precision=precision).eval().requires_grad_(False)

    def pipeline(self, settings: RuntimeSettings | None = None) -> TotoPipeline:
        chosen = settings or RuntimeSettings()
        pipeline = TotoPipeline(self.decoder(chosen.precision), chosen, torch.device("cpu"), load_ms=0.0)
        pipeline.common_scale = False  # the vectors hold what the reference's floor does
        return pipeline


def horizons_of(name: str) -> tuple[int, ...]:
    """The horizons a case has mean forecasts for."""
    return tuple(_about(name)["horizons"])


@functools.cache
def golden_case(name: str) -> GoldenCase:
    about = _about(name)
    config = ModelConfig.from_official(about["config"])
    model = TotoModel(config)
    model.load_state_dict(from_official(load_file(FOLDER / f"{name}.weights.safetensors"), config))
    return GoldenCase(
        name=name,
        model=model.eval().requires_grad_(False),
        vectors=load_file(FOLDER / f"{name}.vectors.safetensors"),
    )


def write_official_folder(name: str, folder: Path) -> Path:
    """A checkpoint folder in the official layout, as a user would have downloaded it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_about(name)["config"]), encoding="utf-8")
    (folder / "model.safetensors").write_bytes((FOLDER / f"{name}.weights.safetensors").read_bytes())
    return folder


def _about(name: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return fields
