"""Files under a manifest of checksums: nothing of a folder is used that is not listed there and intact.

A damaged library may load without a word and answer wrongly, or end the process: torch checks neither.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from autotuner.errors import AutotuneError
from autotuner.files import levels, unsafe
from storage.whole_files import written_whole

MANIFEST = "manifest.json"
_FORMAT = 1
_PASSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Want of room, descriptors or memory, which says nothing against what is stored."""
_PASSING = (".lock", ".tmp")  # suffixes of what a compiler leaves lying about


class Damaged(AutotuneError):  # noqa: N818 - reads as the message it stands for
    """A manifest, or a file that it lists, is not what was put there; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class ManifestSummary:
    """What a folder holds: digest of its manifest, and how many files and bytes that lists."""

    sha256: str
    files: int
    bytes: int


def link_verified(folder: Path, into: Path) -> ManifestSummary | None:
    """Link the files of ``folder`` into ``into`` and verify each there, as ``link_listed`` does; None for nothing."""
    found = _linked(folder, into)
    return None if found is None else _summary(*found)


def link_listed(folder: Path, into: Path) -> dict[str, tuple[str, int]]:
    """Link the files of ``folder`` into ``into`` and verify each there: SHA-256 and bytes of each, none for nothing.

    What is verified is what will be used: the link holds the file, whatever happens to its name. Raises
    ``Damaged``, for a file that is another length or content, a link, of another user, or writable by others, and
    ``OSError`` where ``into`` has no room; it may then hold some of the files.
    """
    found = _linked(folder, into)
    return {} if found is None else _digests(found[1])


def _linked(folder: Path, into: Path) -> tuple[str, dict[str, dict[str, Any]]] | None:
    try:
        text, listed = _read_manifest(folder)
    except FileNotFoundError:
        return None
    for name, entry in listed.items():
        target = into / name
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for level in levels(folder, folder / name):
                _refuse_unsafe(level, folder=level != folder / name)
            _link(folder / name, target)
            _refuse_unsafe(target, folder=False)  # again: the name may have become another file's meanwhile
            intact = target.stat().st_size == entry["bytes"] and _sha256(target) == entry["sha256"]
        except OSError as error:
            if error.errno in _PASSES:
                raise
            raise Damaged(f"artifact {folder / name} cannot be read: {error.strerror or error}") from None
        except ValueError as error:  # a name that no file system holds
            raise Damaged(f"artifact {folder / name} cannot be read: {error}") from None
        if not intact:
            raise Damaged(f"artifact {folder / name} is not what was stored: its checksum differs")
    return text, listed


def add_files(made: Path, folder: Path) -> ManifestSummary | None:
    """Add the files of ``made`` to those of ``folder`` and list them all; None when there is nothing to list.

    Files come before the manifest that lists them, so that a reader or a crash in between sees the old one, without
    the files whose content is replaced.
    Of two writers the last one's manifest stays, and the other's files are made again later. Raises
    ``OSError``.
    """
    try:
        _, listed = _read_manifest(folder)
    except (FileNotFoundError, Damaged):
        listed = {}
    paths = {path.relative_to(made).as_posix(): path for path in _files(made)}
    made_entries = {
        name: {"sha256": _sha256(path), "bytes": path.stat().st_size} for name, path in paths.items()
    }
    new = {name: entry for name, entry in made_entries.items() if listed.get(name) != entry}
    if replaced := listed.keys() & new.keys():
        # Else a kill before the last manifest would leave one whose checksums are of files that are gone.
        _write_manifest(folder, {name: entry for name, entry in listed.items() if name not in replaced})
    for name in new:
        with written_whole(folder / name, synced=False) as aside:
            shutil.copyfile(paths[name], aside)
            aside.chmod(paths[name].stat().st_mode & 0o700)
    listed |= new
    if not listed:
        return None
    return _summary(_write_manifest(folder, listed), listed)


def _write_manifest(folder: Path, listed: dict[str, dict[str, Any]]) -> str:
    text = json.dumps({"format": _FORMAT, "files": dict(sorted(listed.items()))}, indent=1)
    with written_whole(folder / MANIFEST) as aside:
        aside.write_text(text, encoding="utf-8")
    return text


def _read_manifest(folder: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    path = folder / MANIFEST
    try:
        _refuse_unsafe(path, folder=False)
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
        files = document["files"]
        if document["format"] != _FORMAT or not all(map(_is_entry, files, files.values())):
            raise ValueError("not the form of a manifest")
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _PASSES:
            raise
        raise Damaged(f"artifact list {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Damaged(f"artifact list {path} is damaged") from None
    return text, files


def is_entry_name(name: str) -> bool:
    """Whether a file of a folder under a manifest may be called so: it lies below, and is not the manifest."""
    path = PurePosixPath(name)
    parts = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return parts and path.as_posix() != MANIFEST and "\0" not in name


def listed_files(folder: Path) -> dict[str, tuple[str, int]]:
    """SHA-256 and bytes of every file that a folder's manifest lists, none without one.

    Raises ``Damaged``, and ``OSError`` for what says nothing against the list.
    """
    try:
        _, listed = _read_manifest(folder)
    except FileNotFoundError:
        return {}
    return _digests(listed)


def _digests(listed: dict[str, dict[str, Any]]) -> dict[str, tuple[str, int]]:
    return {name: (entry["sha256"], entry["bytes"]) for name, entry in listed.items()}


def _is_entry(name: str, entry: Any) -> bool:
    return is_entry_name(name) and isinstance(entry["sha256"], str) and isinstance(entry["bytes"], int)


def _refuse_unsafe(path: Path, *, folder: bool) -> None:
    if fault := unsafe(path.lstat(), folder=folder):
        raise Damaged(f"artifact {path} {fault}")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target, follow_symlinks=False)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        passing = path.suffix in _PASSING or path.name == MANIFEST
        if path.is_file() and not path.is_symlink() and not passing:
            yield path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _summary(text: str, listed: dict[str, dict[str, Any]]) -> ManifestSummary:
    size = sum(entry["bytes"] for entry in listed.values())
    return ManifestSummary(sha256=hashlib.sha256(text.encode()).hexdigest(), files=len(listed), bytes=size)
