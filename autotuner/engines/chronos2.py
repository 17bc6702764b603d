"""Chronos-2, as its own package loads and runs it: only how its model is called is tuned here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.engines.module_engine import IGNORED, ModuleEngine
from autotuner.engines.protocol import Traits
from autotuner.errors import AutotuneError
from autotuner.machine.engine_versions import CHRONOS2
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

if TYPE_CHECKING:
    from chronos import Chronos2Pipeline

    from autotuner.engines.module_pipeline import ModulePipeline

_ARCHITECTURE = "Chronos2Model"
ATTENTION = "attention"
"""Knob: how the package computes attention, "sdpa" (torch's own kernel) or "eager" (plain products)."""


class Chronos2(ModuleEngine):
    """Chronos-2 checkpoints, by the package ``chronos-forecasting`` (extra ``chronos2``)."""

    name = CHRONOS2
    licence = "Apache-2.0"
    models = "Chronos-2: amazon/chronos-2 and its like (extra chronos2)"

    def knows(self, config: Mapping[str, Any]) -> bool:
        """By the architecture that its configuration names."""
        return _ARCHITECTURE in (config.get("architectures") or ()) and "chronos_config" in config

    def traits(self, workload: Workload) -> Traits:
        """What any module has, and how attention is computed."""
        return Traits(knobs={ATTENTION: ("sdpa", "eager")}, ignored=IGNORED, one_pass=True)

    def pipeline(
        self, folder: Path, config: Mapping[str, Any], settings: RuntimeSettings, device: str
    ) -> ModulePipeline:
        """The package's pipeline, with its model compiled."""
        from autotuner.engines.chronos2_pipeline import Chronos2Forecasts
        from autotuner.engines.module_pipeline import DTYPES

        package = _package()
        loaded = package.from_pretrained(
            str(folder),
            device_map=device,
            dtype=DTYPES[settings.precision],
            attn_implementation=settings.value(ATTENTION) or "sdpa",
            use_safetensors=True,
        )
        return Chronos2Forecasts(loaded, settings, device)


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
