"""An engine over any torch module: an author says which models are its own, and how to build and call one."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.engines.protocol import ModelIdentity, Pipeline, Traits
from autotuner.workload import Workload
from toto_core.model_files import CONFIG_FILE, WEIGHTS_FILE, CheckpointError, check_weights, digest, locate
from toto_core.settings import RuntimeSettings

if TYPE_CHECKING:
    from autotuner.engines.module_pipeline import ModulePipeline

IGNORED = ("samples_per_batch", "freezing", "compile_scope")
"""Common settings that change nothing for a module that is compiled whole and just in time."""
_LARGEST_CONFIG = 1 << 20


class ModuleEngine(ABC):
    """Models that are a ``config.json`` and a ``model.safetensors``, forecast in one pass into quantiles."""

    name: str
    models: str = ""

    @abstractmethod
    def knows(self, config: Mapping[str, Any]) -> bool:
        """Whether a model with this configuration is of this family."""

    @abstractmethod
    def pipeline(
        self, folder: Path, config: Mapping[str, Any], settings: RuntimeSettings, device: str
    ) -> ModulePipeline:
        """The model in ``folder`` under ``settings``."""

    def shortest_context(self, config: Mapping[str, Any]) -> int:
        """Least context in time steps, and what contexts are padded to."""
        return 1

    def claims(self, folder: Path) -> bool:
        """By its configuration."""
        try:
            return self.knows(read_json(folder))
        except CheckpointError:
            return False

    def identity(self, model: str, revision: str | None = None) -> ModelIdentity:
        """Its files, whose header is read and whose every byte is digested. Raises ``CheckpointError``."""
        folder = locate(model, revision=revision)
        config = read_json(folder)
        check_weights(folder)
        return ModelIdentity(
            folder=folder,
            digest=digest(folder),
            weights_bytes=(folder / WEIGHTS_FILE).stat().st_size,
            patch_size=self.shortest_context(config),
            licence=str(config.get("license", "")),
        )

    def traits(self, workload: Workload) -> Traits:
        """Compile mode, precision, series per batch, context bucket, dynamic shapes and threads."""
        return Traits(knobs={}, ignored=IGNORED, one_pass=True)

    def load(
        self,
        model: str,
        *,
        revision: str | None,
        settings: RuntimeSettings,
        device: str,
        artifacts: Path | None,
        measured: bool = False,
    ) -> Pipeline:
        """A ``ModulePipeline``; what it compiles lies in inductor's own cache."""
        from toto_core.device import resolve_device
        from toto_core.threads import set_threads

        started = time.perf_counter()
        target = resolve_device(device)
        set_threads(settings.num_threads)
        folder = locate(model, revision=revision)
        found = self.pipeline(folder, read_json(folder), settings, target.type)
        found.load_ms = (time.perf_counter() - started) * 1000.0
        return found

    def exact(self, model: str, *, revision: str | None, device: str) -> Pipeline | None:
        """Nothing: the reference is what drift is judged by."""
        return None


def read_json(folder: Path) -> dict[str, Any]:
    """A model's configuration. Raises ``CheckpointError`` for what is none."""
    path = folder / CONFIG_FILE
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise CheckpointError(f"{path}: is larger than a configuration can be")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: must be one object of fields")
    return config
