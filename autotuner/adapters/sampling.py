"""Draws what follows a history as other libraries keep it, by the settings that were tuned for its symbol."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autotuner.errors import AutotuneError
from autotuner.serving.lookup import lookup
from autotuner.serving.pipeline import load_pipeline
from autotuner.workload import RequestShape

if TYPE_CHECKING:
    from autotuner.engines.protocol import Pipeline

Floats = npt.NDArray[np.float32]
CONTEXT_LENGTH, NUM_SAMPLES = RequestShape().context_length, RequestShape().num_samples or 0
_pipelines: dict[tuple[object, ...], Pipeline] = {}
"""Of this process; those who ask hold none, so that they can be copied and pickled."""
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Which settings hold: arguments of ``load_pipeline``, which describes them.

    Symbols with the same settings share a pipeline. Their calls are not counted as production's.
    """

    model: str | None = None
    profile: str | None = None
    device: str = "cpu"
    db: str | None = None
    hold_compilation: bool = True

    def draw(
        self,
        symbol: str,
        history: npt.ArrayLike,
        *,
        steps: int,
        num_samples: int,
        context_length: int,
        seed: int,
    ) -> Floats:
        """Paths (sample, time, variate) of the ``steps`` after ``history``, (variate, time), NaN where unknown.

        Only its last ``context_length`` steps count; one shorter than a patch is padded as the engine pads parts
        of patches. Raises what ``load_pipeline`` and ``predict`` raise.
        """
        context = np.asarray(history, dtype=np.float32)[:, -context_length:]
        with _one_at_a_time:  # a pipeline is not for several threads
            pipeline: Any = self._pipeline(symbol)
            missing = max(0, pipeline.patch_size - context.shape[1])
            context = np.pad(context, ((0, 0), (missing, 0)), constant_values=np.nan)
            known = ~np.isnan(context)
            masked = {} if known.all() else {"padding_mask": known[None]}
            forecast = pipeline.predict(context[None], steps, num_samples, seed, **masked)
        paths = getattr(forecast, "samples", None)
        if paths is None:
            raise AutotuneError(
                f"{symbol}: its model gives quantiles and no sample paths; load_pipeline gives them"
            )
        drawn: Floats = paths[0].permute(2, 1, 0).numpy()
        return drawn

    def _pipeline(self, symbol: str) -> Pipeline:
        found = lookup(symbol, model=self.model, profile=self.profile, db=self.db, device=self.device)
        workload = found.workload and found.workload.signature
        key = found.model, workload, found.settings_key, self.device, self.hold_compilation
        if key not in _pipelines:
            _pipelines[key] = load_pipeline(symbol, telemetry=False, **vars(self))
        return _pipelines[key]
