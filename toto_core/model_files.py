"""Where a model's files are (embedded, a folder, or the hub's cache) and their digest; needs no torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from functools import partial
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from toto_core.model_folder import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, CheckpointError, weight_files
from toto_core.toto1.model_config import read_config

__all__ = [
    "CONFIG_FILE",
    "EMBEDDED",
    "WEIGHTS_FILE",
    "CheckpointError",
    "check_weights",
    "digest",
    "locate",
    "read_config",
]

EMBEDDED = "toto-mini"
"""Name of the model that ships inside the package."""
_WANTED = (CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE, "model-*-of-*.safetensors")
"""What is fetched of a model: the weights are one file, or an index and its shards."""
_HUB_PROBE_SECONDS = 3.0


def locate(name_or_folder: str, *, revision: str | None = None) -> Path:
    """The folder that holds a model's files. Raises ``CheckpointError``, at once, when there is none."""
    if name_or_folder == EMBEDDED:
        return Path(str(resources.files("toto_core") / "assets" / EMBEDDED))
    folder = Path(os.path.expanduser(name_or_folder))  # noqa: PTH111 - Path.expanduser raises for ~nobody
    if folder.is_dir():
        if not (folder / CONFIG_FILE).is_file():
            raise CheckpointError(f"{folder}: has no {CONFIG_FILE}; give a folder in the official layout")
        weight_files(folder)
        return folder
    if name_or_folder.count("/") != 1 or name_or_folder.startswith((".", "/", "~")):
        raise CheckpointError(
            f"{name_or_folder}: no such model folder, and not a hub id such as Datadog/Toto-Open-Base-1.0; "
            f"use {EMBEDDED} for the model that ships with the package"
        )
    return _from_hub(name_or_folder, revision)


def check_weights(folder: Path) -> None:
    """Raise ``CheckpointError`` unless the headers are those of whole safetensors files; a pickle is never opened."""
    from safetensors import SafetensorError, safe_open

    for path in weight_files(folder):
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path}: is not a readable safetensors file ({_one_line(error)})"
            ) from None


def digest(folder: Path) -> str:
    """SHA-256 of a model's configuration and weights, hexadecimal: its identity, whatever it is called."""
    total = hashlib.sha256()
    weights = weight_files(folder) if (folder / INDEX_FILE).is_file() else (folder / WEIGHTS_FILE,)
    for path in (folder / CONFIG_FILE, *weights):
        try:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    return total.hexdigest()


def _from_hub(hub_id: str, revision: str | None) -> Path:
    # the hub's client takes a third of a second to import, and only a hub id needs it
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    download = partial(snapshot_download, hub_id, revision=revision, allow_patterns=list(_WANTED))
    try:
        folder = Path(download(local_files_only=True))
        if _is_whole(folder):
            return folder
    except HFValidationError as error:
        raise CheckpointError(f"{hub_id}: not a hub id: {_one_line(error)}") from None
    except LocalEntryNotFoundError:
        pass  # not downloaded yet
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        raise CheckpointError(f"{hub_id}: not in the local hub cache, and HF_HUB_OFFLINE is set")
    _probe_hub(hub_id)
    try:
        return Path(download())
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{hub_id}: could not be downloaded: {_one_line(error)}") from None


def _is_whole(folder: Path) -> bool:
    with contextlib.suppress(CheckpointError):
        return (folder / CONFIG_FILE).is_file() and bool(weight_files(folder))
    return False


def _probe_hub(hub_id: str) -> None:
    """Fail at once when the hub cannot be reached: its client retries for about 23 seconds."""
    from huggingface_hub import constants

    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return  # a proxy answers for hosts this machine cannot look up itself
    endpoint = urlsplit(constants.ENDPOINT)
    try:
        address = (endpoint.hostname or "", endpoint.port or 443)
        socket.create_connection(address, timeout=_HUB_PROBE_SECONDS).close()
    except OSError as error:
        raise CheckpointError(
            f"{hub_id}: not in the local hub cache, and the hub cannot be reached ({_one_line(error)}); "
            f"give a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or use {EMBEDDED}"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
