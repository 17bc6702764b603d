"""The same Toto 2.0 model in float64, uncompiled: what float32 rounding alone does to a forecast."""

from __future__ import annotations

from typing import Any

import torch

from toto_core.device import resolve_device
from toto_core.in_double import in_double
from toto_core.model_files import locate
from toto_core.quantile_forecast import QuantileForecast
from toto_core.settings import RuntimeSettings
from toto_core.toto2 import Toto2Options, Toto2Pipeline, checkpoint
from toto_core.toto2.decode import Decoder
from toto_core.toto2.folding import folded


class ExactToto2Pipeline(Toto2Pipeline):
    """A pipeline whose every operation is float64, the folding of its weights included; see ``exact``."""

    @classmethod
    def load(
        cls,
        name_or_dir: str,
        *,
        device: str = "cpu",
        revision: str | None = None,
        options: Toto2Options | None = None,
    ) -> ExactToto2Pipeline:
        """Load a model as ``Toto2Pipeline.from_pretrained`` does. Raises ``CheckpointError``, ``DeviceError``."""
        target = resolve_device(device)
        config, weights = checkpoint.load(locate(name_or_dir, revision=revision))
        with in_double(), torch.no_grad():
            decoder = Decoder(config, folded(weights, config)).to(target).eval().requires_grad_(False)
        return cls(decoder, RuntimeSettings(), target, 0.0, options=options)

    def predict(self, *args: Any, **kwargs: Any) -> QuantileForecast:
        """``Toto2Pipeline.predict`` in float64."""
        with in_double():
            return super().predict(*args, **kwargs)
