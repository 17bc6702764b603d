"""The same model in float64, uncompiled: what float32 rounding alone does to a forecast, on the same noise."""

from __future__ import annotations

from typing import Any

import torch

from toto_core.device import resolve_device
from toto_core.forecast import Forecast
from toto_core.in_double import in_double
from toto_core.model_files import locate
from toto_core.pipeline import TotoPipeline
from toto_core.settings import RuntimeSettings
from toto_core.toto1 import checkpoint
from toto_core.toto1.decode import Decoder


class ExactPipeline(TotoPipeline):
    """A pipeline whose every operation is float64, the folding of its heads included.

    For checking numerics, not for production: it is uncompiled and twice as large. Forecasts come back as
    float64.
    """

    @classmethod
    def load(cls, name_or_dir: str, *, device: str = "cpu", revision: str | None = None) -> ExactPipeline:
        """Load a model as ``TotoPipeline.from_pretrained`` does. Raises ``CheckpointError``, ``DeviceError``."""
        target = resolve_device(device)
        model = checkpoint.load(locate(name_or_dir, revision=revision))
        with in_double(), torch.no_grad():
            decoder = Decoder(model.double()).to(target).eval().requires_grad_(False)
        return cls(decoder, RuntimeSettings(), target, 0.0)

    def predict(self, *args: Any, **kwargs: Any) -> Forecast:
        """``TotoPipeline.predict`` in float64; the noise is the same numbers."""
        with in_double():
            return super().predict(*args, **kwargs)
