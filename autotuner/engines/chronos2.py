"""Chronos-2, as its own package loads and runs it: only how its model is called is tuned here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from autotuner.engine_versions import CHRONOS2
from autotuner.engines.module_engine import IGNORED, ModuleEngine
from autotuner.engines.module_pipeline import DTYPES, ModulePipeline
from autotuner.engines.protocol import ModelIdentity, Traits
from autotuner.errors import AutotuneError
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

if TYPE_CHECKING:
    from chronos import Chronos2Pipeline

_ARCHITECTURE = "Chronos2Model"
ATTENTION = "attention"
"""Knob: how the package computes attention, "sdpa" (torch's own kernel) or "eager" (plain products)."""


class Chronos2(ModuleEngine):
    """Chronos-2 checkpoints, by the package ``chronos-forecasting`` (extra ``chronos2``)."""

    name = CHRONOS2
    models = "Chronos-2: amazon/chronos-2 and its like (extra chronos2)"

    def knows(self, config: Mapping[str, Any]) -> bool:
        """By the architecture that its configuration names."""
        return _ARCHITECTURE in (config.get("architectures") or ()) and "chronos_config" in config

    def identity(self, model: str, revision: str | None = None) -> ModelIdentity:
        """Its files; the licence is that of the published checkpoints."""
        found = super().identity(model, revision)
        return ModelIdentity(**{**vars(found), "licence": found.licence or "Apache-2.0"})

    def traits(self, workload: Workload) -> Traits:
        """What any module has, and how attention is computed."""
        return Traits(knobs={ATTENTION: ("sdpa", "eager")}, ignored=IGNORED, one_pass=True)

    def pipeline(
        self, folder: Path, config: Mapping[str, Any], settings: RuntimeSettings, device: str
    ) -> ModulePipeline:
        """The package's pipeline, with its model compiled."""
        package = _package()
        loaded = package.from_pretrained(
            str(folder),
            device_map=device,
            dtype=DTYPES[settings.precision],
            attn_implementation=settings.value(ATTENTION) or "sdpa",
            use_safetensors=True,
        )
        return Chronos2Forecasts(loaded, settings, device)


class Chronos2Forecasts(ModulePipeline):
    """Contexts to quantiles by the model itself, one call where a horizon fits into one, else by the package.

    The variates of a series are one group, which share what they know; series are groups of their own.
    """

    autocast = False

    def __init__(self, package: Chronos2Pipeline, settings: RuntimeSettings, device: str) -> None:
        super().__init__(package.model, settings, device)
        self._package = package
        self.levels = tuple(float(level) for level in package.quantiles)

    def quantiles(self, contexts: Tensor, steps: int) -> Tensor:
        """(batch, variate, level, time), as ``Chronos2Pipeline.predict`` gives them."""
        batch, variates, time = contexts.shape
        patch = int(self._package.model_output_patch_size)
        if steps > self._package.model_prediction_length:
            found = self._package.predict(contexts.cpu(), steps, batch_size=batch * variates)
            return torch.stack(list(found))
        answer = self.module(
            context=contexts.reshape(batch * variates, time),
            group_ids=torch.arange(batch, device=contexts.device).repeat_interleave(variates),
            num_output_patches=-(-steps // patch),
        )
        flat: Tensor = answer.quantile_preds[..., :steps]
        return flat.reshape(batch, variates, *flat.shape[1:])


def _package() -> type[Chronos2Pipeline]:
    try:
        from chronos import Chronos2Pipeline
        from transformers.utils import logging
    except ImportError as error:
        raise AutotuneError(
            f"Chronos-2 needs the package chronos-forecasting ({error}): pip install 'toto-autotune[chronos2]'"
        ) from None
    quiet: Callable[[], None] = logging.disable_progress_bar
    quiet()
    found: type[Chronos2Pipeline] = Chronos2Pipeline
    return found
