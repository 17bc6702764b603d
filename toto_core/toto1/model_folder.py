"""A model's folder in the official layout: its two files, what is refused, and their digest; needs no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from toto_core.toto1.model_config import ConfigError, ModelConfig

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
FILES = (CONFIG_FILE, WEIGHTS_FILE)


class CheckpointError(ValueError):
    """The model cannot be loaded; the message is one line that names it, the reason, and what to do."""


def read_config(folder: Path) -> ModelConfig:
    """The architecture of the model in ``folder``. Raises ``CheckpointError``."""
    path = folder / CONFIG_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: must hold one JSON object")
    try:
        return ModelConfig.from_official(fields)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def check_weights(folder: Path) -> None:
    """Refuse weights that are no complete safetensors file, from its header alone: a pickle is never opened.

    Raises ``CheckpointError``.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS_FILE
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: is not a readable safetensors file ({one_line(error)})") from None


def digest(folder: Path) -> str:
    """SHA-256 of a model's configuration and weights, hexadecimal: its identity, whatever it is called."""
    total = hashlib.sha256()
    for name in FILES:
        try:
            with (folder / name).open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise CheckpointError(f"{folder / name}: cannot be read: {error.strerror or error}") from None
    return total.hexdigest()


def one_line(error: Exception) -> str:
    """The text of an error without line breaks, cut to 200 characters."""
    return " ".join(str(error).split())[:200]
