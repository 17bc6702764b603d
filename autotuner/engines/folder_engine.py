"""What engines share whose models are a folder of ``config.json`` and safetensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotuner.engines.protocol import ModelIdentity
from toto_core.model_files import check_weights, digest, locate
from toto_core.model_folder import CheckpointError, config_fields, weight_files


class FolderEngine(ABC):
    """Knows its models by their configuration."""

    name: str
    models: str = ""
    licence: str = ""
    """Of models whose configuration names none."""

    @abstractmethod
    def knows(self, config: Mapping[str, Any]) -> bool:
        """Whether a model with this configuration is of this family."""

    @abstractmethod
    def shape(self, folder: Path) -> tuple[int, str]:
        """Least context in time steps, which contexts are padded to, and the size of the model in words.

        Raises ``CheckpointError`` for a configuration that no model can have.
        """

    def claims(self, folder: Path) -> bool:
        """By its configuration; one that cannot be read is nobody's."""
        try:
            return self.knows(config_fields(folder))
        except CheckpointError:
            return False

    def identity(self, model: str, revision: str | None = None) -> ModelIdentity:
        """Its files, whose headers are read and whose every byte is digested. Raises ``CheckpointError``."""
        folder = locate(model, revision=revision)
        patch_size, about = self.shape(folder)
        check_weights(folder)
        return ModelIdentity(
            folder=folder,
            digest=digest(folder),
            weights_bytes=sum(path.stat().st_size for path in weight_files(folder)),
            patch_size=patch_size,
            about=about,
            licence=str(config_fields(folder).get("license") or self.licence),
        )
