"""The same model in float64, uncompiled: what float32 rounding alone does to a forecast, on the same noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from toto_core.device import resolve_device
from toto_core.forecast import Forecast
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
        with _in_double(), torch.no_grad():
            decoder = Decoder(model.double()).to(target).eval().requires_grad_(False)
        return cls(decoder, RuntimeSettings(), target, 0.0)

    def predict(self, *args: Any, **kwargs: Any) -> Forecast:
        """``TotoPipeline.predict`` in float64; the noise is the same numbers."""
        with _in_double():
            return super().predict(*args, **kwargs)


class _InDouble(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Whatever asks for float32 gets float64, so that the engine's own casts do not round."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        asked = dict(kwargs or {})
        if asked.get("dtype") is torch.float32:
            asked["dtype"] = torch.float64
        return func(*args, **asked)


_in_double: Callable[[], AbstractContextManager[Any]] = _InDouble  # torch leaves its constructor untyped
