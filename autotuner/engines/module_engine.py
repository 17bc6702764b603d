"""An engine over any torch module: an author says which models are its own, and how to build and call one."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.engines.folder_engine import FolderEngine
from autotuner.engines.protocol import Pipeline, Traits
from autotuner.workload import Workload
from toto_core.model_files import locate
from toto_core.model_folder import config_fields
from toto_core.settings import RuntimeSettings

if TYPE_CHECKING:
    from autotuner.engines.module_pipeline import ModulePipeline

IGNORED = ("samples_per_batch", "freezing", "compile_scope")
"""Common settings that change nothing for a module that is compiled whole and just in time."""


class ModuleEngine(FolderEngine):
    """Models that are a ``config.json`` and a ``model.safetensors``, forecast in one pass into quantiles."""

    @abstractmethod
    def pipeline(
        self, folder: Path, config: Mapping[str, Any], settings: RuntimeSettings, device: str
    ) -> ModulePipeline:
        """The model in ``folder`` under ``settings``."""

    def shortest_context(self, config: Mapping[str, Any]) -> int:
        """Least context in time steps, and what contexts are padded to."""
        return 1

    def shape(self, folder: Path) -> tuple[int, str]:
        """The shortest context, and nothing said of its size."""
        return self.shortest_context(config_fields(folder)), ""

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
        found = self.pipeline(folder, config_fields(folder), settings, target.type)
        found.load_ms = (time.perf_counter() - started) * 1000.0
        return found

    def exact(self, model: str, *, revision: str | None, device: str) -> Pipeline | None:
        """Nothing: the reference is what drift is judged by."""
        return None
