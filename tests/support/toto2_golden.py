"""The stored reference cases of Toto 2.0: their models, inputs and expected quantiles."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from toto_core.settings import RuntimeSettings
from toto_core.toto2.decode import Decoder
from toto_core.toto2.folding import folded
from toto_core.toto2.model_config import Toto2Config
from toto_core.toto2.options import Toto2Options
from toto_core.toto2.pipeline import Toto2Pipeline

DATA = Path(__file__).parents[1] / "data"
FOLDERS = {path.stem: path.parent for path in sorted(DATA.glob("*toto2*/*.json"))}
"""Where each case lies, by its name."""


@dataclass(frozen=True, kw_only=True)
class Toto2Case:
    """One case: the fields of its ``config.json``, its weights by official names, the vectors stored for it."""

    name: str
    about: Mapping[str, Any]
    weights: dict[str, Tensor]
    vectors: dict[str, Tensor]

    @property
    def config(self) -> Toto2Config:
        return Toto2Config.from_official(self.about["config"])

    @property
    def options(self) -> Toto2Options:
        return Toto2Options(**self.about.get("options", {}))

    @property
    def requests(self) -> list[tuple[int, int]]:
        """Horizons and block sizes, 0 for one pass."""
        return [(horizon, block or 0) for horizon, block in self.about["cases"]]

    def asked(self, horizon: int, block: int) -> dict[str, Any]:
        """What ``predict`` is asked for."""
        names = {
            "target": "context",
            "target_mask": "padding_mask",
            "series_ids": "id_mask",
            "known_dynamic": "known_dynamic",
            "known_dynamic_mask": "known_dynamic_mask",
            "known_dynamic_series_ids": "known_dynamic_ids",
        }
        found = {name: self.vectors.get(f"{name}.h{horizon}", self.vectors.get(name)) for name in names}
        given = {names[name]: tensor for name, tensor in found.items() if tensor is not None}
        return {**given, "prediction_length": horizon, "decode_block_size": block}

    def expected(self, horizon: int, block: int) -> Tensor:
        """Quantiles (level, batch, variate, time)."""
        return self.vectors[f"quantiles.h{horizon}.b{block}"]

    def pipeline(self, settings: RuntimeSettings | None = None) -> Toto2Pipeline:
        chosen = settings or RuntimeSettings()
        decoder = Decoder(self.config, folded(dict(self.weights), self.config), precision=chosen.precision)
        decoder = decoder.eval().requires_grad_(False)
        return Toto2Pipeline(decoder, chosen, torch.device("cpu"), 0.0, options=self.options)


@functools.cache
def toto2_case(name: str) -> Toto2Case:
    folder = FOLDERS[name]
    return Toto2Case(
        name=name,
        about=json.loads((folder / f"{name}.json").read_text(encoding="utf-8")),
        weights=load_file(folder / f"{name}.weights.safetensors"),
        vectors=load_file(folder / f"{name}.vectors.safetensors"),
    )


def all_requests() -> list[tuple[str, int, int]]:
    """Every case with every horizon and block size stored for it."""
    return [(name, *request) for name in FOLDERS for request in toto2_case(name).requests]
