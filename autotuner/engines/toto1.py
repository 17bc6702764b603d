"""Toto 1.0: sample paths from a mixture of Student-t distributions, in ``toto_core``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotuner.engines.folder_engine import FolderEngine
from autotuner.engines.protocol import Pipeline, Traits
from autotuner.machine.engine_versions import TOTO1
from autotuner.workload import Workload
from toto_core.model_files import read_config
from toto_core.settings import RuntimeSettings

_ITS_OWN = {"embed_dim", "spacewise_every_n_layers", "output_distribution_classes"}
"""Fields of a configuration that no other family has."""


class Toto1(FolderEngine):
    """Official Toto 1.0 checkpoints, and toto-mini, which ships with this package."""

    name = TOTO1
    licence = "Apache-2.0"
    models = "Toto 1.0: Datadog/Toto-Open-Base-1.0 and its like, toto-mini"

    def knows(self, config: Mapping[str, Any]) -> bool:
        """By any field of its own."""
        return bool(_ITS_OWN & config.keys())

    def shape(self, folder: Path) -> tuple[int, str]:
        """Its patch, and its layers."""
        config = read_config(folder)
        return (
            config.patch_size,
            f"{config.num_layers} layers, {config.embed_dim} wide, patch {config.patch_size}",
        )

    def traits(self, workload: Workload) -> Traits:
        """All common settings, and no others."""
        return Traits(knobs={}, samples=True)

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
        """A ``TotoPipeline``."""
        from toto_core.pipeline import TotoPipeline

        smaller: dict[str, Any] = {"max_oom_retries": 0} if measured else {}
        return TotoPipeline.from_pretrained(
            model, device=device, settings=settings, revision=revision, artifacts=artifacts, **smaller
        )

    def exact(self, model: str, *, revision: str | None, device: str) -> Pipeline | None:
        """Every operation in float64, on the same noise."""
        from toto_core.exact import ExactPipeline

        return ExactPipeline.load(model, device=device, revision=revision)
