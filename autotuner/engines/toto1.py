"""Toto 1.0: sample paths from a mixture of Student-t distributions, in ``toto_core``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autotuner.engine_versions import TOTO1
from autotuner.engines.protocol import ModelIdentity, Pipeline, Traits
from autotuner.workload import Workload
from toto_core.model_files import CONFIG_FILE, WEIGHTS_FILE, check_weights, digest, locate, read_config
from toto_core.settings import RuntimeSettings

_ITS_OWN = {"embed_dim", "spacewise_every_n_layers", "output_distribution_classes"}
"""Fields of a configuration that no other family has."""


class Toto1:
    """Official Toto 1.0 checkpoints, and toto-mini, which ships with this package."""

    name = TOTO1
    models = "Toto 1.0: Datadog/Toto-Open-Base-1.0 and its like, toto-mini"

    def claims(self, folder: Path) -> bool:
        """By any field of its own in its configuration; one that cannot be read is left to it, which says why."""
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return True
        return not isinstance(config, dict) or not config or bool(_ITS_OWN & config.keys())

    def identity(self, model: str, revision: str | None = None) -> ModelIdentity:
        """Its files, whose header is read and whose every byte is digested. Raises ``CheckpointError``."""
        folder = locate(model, revision=revision)
        config = read_config(folder)
        check_weights(folder)
        return ModelIdentity(
            folder=folder,
            digest=digest(folder),
            weights_bytes=(folder / WEIGHTS_FILE).stat().st_size,
            patch_size=config.patch_size,
            about=f"{config.num_layers} layers, {config.embed_dim} wide, patch {config.patch_size}",
            licence="Apache-2.0",
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
