"""A release: what the one file says that changes, signed; everything else is named in it by its SHA-256."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from autotuner.errors import AutotuneError
from autotuner.serving.manifest import is_entry_name
from autotuner.sharing.keys import PublicKey, SigningKey, refuse_unsigned

POINTER = "release"
MOST_POINTER_BYTES = 1 << 20
MOST_DOCUMENT_BYTES = 256 << 20
MOST_LIST_BYTES = 64 << 20
_MOST_FILE_BYTES = 1 << 40
_MOST_FILES = 200_000
_MOST_SEQUENCE = 1 << 62
_LONGEST_NAME, _LONGEST_KEY = 500, 4_000
_FORMAT = 1
_HEAD = re.compile(
    rb"autotune release 1\nkey (?P<key>[0-9a-f]{16})\nsignature (?P<signature>[0-9a-f]{128})\n"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


class BadRelease(AutotuneError):  # noqa: N818 - reads as the message it stands for
    """What lies at a place is no release, or not what its release says; the message is one line."""


class NewerRelease(BadRelease):
    """A later version wrote it, in a form that this one does not read."""


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Content by its SHA-256 and length."""

    sha256: str
    bytes: int

    @property
    def name(self) -> str:
        """Where it lies at a place."""
        return f"blobs/{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True, kw_only=True)
class Release:
    """The newest settings, and by environment fingerprint the list of its artifacts.

    ``sequence`` only grows. ``released_at`` is when the owner of the key last said that this is the newest.
    """

    sequence: int
    released_at: datetime
    snapshot: Blob
    artifacts: Mapping[str, Blob] = field(default_factory=dict)


Files = Mapping[str, tuple[Blob, bool]]
"""Name below a folder of artifacts to content, and whether it is executable."""


def pack_release(release: Release, key: SigningKey) -> bytes:
    """The pointer file."""
    document = {
        "format": _FORMAT,
        "sequence": release.sequence,
        "released_at": release.released_at.astimezone(UTC).isoformat(),
        "snapshot": vars(release.snapshot),
        "artifacts": {name: vars(blob) for name, blob in sorted(release.artifacts.items())},
    }
    payload = json.dumps(document, separators=(",", ":")).encode()
    signature = key.sign(_message(key.public.name.encode(), payload))
    head = f"autotune release 1\nkey {key.public.name}\nsignature {signature.hex()}\n"
    return head.encode() + payload


def unpack_release(content: bytes, keys: Iterable[PublicKey], where: str) -> tuple[Release, PublicKey]:
    """What a pointer file says, and whose key signed it; nothing of it is read before its signature is verified.

    Raises ``BadRelease`` for what is no pointer file, ``BadSignature`` when it is not signed with one of ``keys``.
    """
    head = _HEAD.match(content)
    if head is None:
        if content.startswith(b"autotune release ") and not content.startswith(b"autotune release 1\n"):
            raise NewerRelease(f"{where} is of a newer version: upgrade this host")
        raise BadRelease(f"{where} is damaged, cut short, or no release of autotune")
    payload = content[head.end() :]
    signature = bytes.fromhex(head["signature"].decode())
    message = _message(head["key"], payload)
    key = refuse_unsigned(keys, head["key"].decode(), signature, message, where)
    try:
        return _release(json.loads(payload)), key
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise BadRelease(
            f"{where} is signed and yet not of the form that this version reads: upgrade it"
        ) from None


def pack_list(folders: Mapping[str, Files]) -> bytes:
    """The artifacts of one environment, by settings key."""
    document = {
        "format": _FORMAT,
        "settings": {
            key: {
                name: {**vars(blob), "executable": executable}
                for name, (blob, executable) in sorted(files.items())
            }
            for key, files in sorted(folders.items())
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def unpack_list(content: bytes, where: str) -> dict[str, Files]:
    """The inverse of ``pack_list``. Raises ``BadRelease``, also for a name that leads anywhere else."""
    try:
        document = json.loads(content)
        if document["format"] != _FORMAT:
            raise ValueError("another form")
        found = {_key(key): _files(files) for key, files in document["settings"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise BadRelease(
            f"{where}: its list of artifacts is not of the form that this version reads"
        ) from None
    if sum(map(len, found.values())) > _MOST_FILES:
        raise BadRelease(f"{where}: its list names more than {_MOST_FILES} files")
    return found


def _message(key: bytes, payload: bytes) -> bytes:
    """What is signed; it begins with what it is, so that it can stand for nothing else."""
    return b"autotune release 1\nkey " + key + b"\n" + payload


def _release(document: dict[str, Any]) -> Release:
    released_at = datetime.fromisoformat(document["released_at"])
    sequence = document["sequence"]
    if document["format"] != _FORMAT or released_at.utcoffset() is None:
        raise ValueError("another form")
    if not _is_count(sequence, _MOST_SEQUENCE):
        raise ValueError("no sequence")
    artifacts = {name: _blob(values, MOST_LIST_BYTES) for name, values in document["artifacts"].items()}
    if not all(map(_FINGERPRINT.fullmatch, artifacts)):
        raise ValueError("no fingerprint")
    return Release(
        sequence=sequence,
        released_at=released_at,
        snapshot=_blob(document["snapshot"], MOST_DOCUMENT_BYTES),
        artifacts=artifacts,
    )


def _blob(values: dict[str, Any], most: int) -> Blob:
    if _SHA256.fullmatch(values["sha256"]) is None or not _is_count(values["bytes"], most):
        raise ValueError("no blob")
    return Blob(sha256=values["sha256"], bytes=values["bytes"])


def _key(key: str) -> str:
    if not key or len(key) > _LONGEST_KEY or not key.isprintable():
        raise ValueError("no settings key")
    return key


def _files(files: dict[str, Any]) -> Files:
    return {
        _file_name(name): (_blob(values, _MOST_FILE_BYTES), values["executable"] is True)
        for name, values in files.items()
    }


def _file_name(name: str) -> str:
    plain = name.isprintable() and len(name) <= _LONGEST_NAME and PurePosixPath(name).as_posix() == name
    if not (plain and is_entry_name(name)):
        raise ValueError("no name of an artifact")
    return name


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
