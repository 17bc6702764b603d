"""What every model's folder has: its configuration's fields, the files of its weights, one or sharded; no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toto_core.lines import OneLineError

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
"""The two files of a model's folder in the official layout."""
INDEX_FILE = "model.safetensors.index.json"
"""What large models have in place of the second one: which tensor lies in which of several files."""
_LARGEST_JSON = 64 * 2**20
_LONGEST_NAME = 255  # bytes that a file system holds


class CheckpointError(OneLineError):
    """The model cannot be loaded; the message is one line that names it, the reason, and what to do."""


class ConfigError(OneLineError):
    """The configuration does not describe a model this engine can run; the message is one line."""


def config_fields(folder: Path) -> dict[str, Any]:
    """The fields of the model's ``config.json``. Raises ``CheckpointError``."""
    return _json_object(folder / CONFIG_FILE)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files of the model's weights, by name: one, or the shards that its index names.

    Raises ``CheckpointError`` when there are none, or when one is missing or lies elsewhere.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return (folder / WEIGHTS_FILE,)
    index = folder / INDEX_FILE
    if not index.is_file():
        raise CheckpointError(f"{folder}: has no {WEIGHTS_FILE}; give a folder in the official layout")
    places = _json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(n, str) for n in places.values()):
        raise CheckpointError(f"{index}: has no weight_map from tensors to files; fetch it again")
    return tuple(_shard(folder, name) for name in sorted(set(places.values())))


def _shard(folder: Path, name: str) -> Path:
    inside = Path(name).name == name and len(name.encode("utf-8", "replace")) <= _LONGEST_NAME
    if not inside or not name.endswith(".safetensors"):
        raise CheckpointError(f"{folder / INDEX_FILE}: {name[:80]!r} is no safetensors file of this folder")
    if not (folder / name).is_file():
        raise CheckpointError(f"{folder}: has no {name}, which {INDEX_FILE} names; fetch all shards")
    return folder / name


def _json_object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise CheckpointError(f"{path}: is larger than any such file; fetch it again")
        fields = json.loads(path.read_text(encoding="utf-8"))
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: must hold one JSON object")
    return fields
