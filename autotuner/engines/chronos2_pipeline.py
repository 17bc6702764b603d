"""Chronos-2's model as a pipeline of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autotuner.engines.module_pipeline import ModulePipeline
from toto_core.settings import RuntimeSettings

if TYPE_CHECKING:
    from chronos import Chronos2Pipeline


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
