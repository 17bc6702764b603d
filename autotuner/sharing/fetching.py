"""Reads what lies at a place: never more than it may be long, and never anything but what its digest names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from autotuner.sharing.places import Place
from autotuner.sharing.release import BadRelease, Blob


def read_whole(place: Place, name: str, most: int) -> bytes:
    """At most ``most`` bytes under a name. Raises ``BadRelease`` for more, ``PlaceError``."""
    content = bytearray()
    for part in place.read(name):
        content += part
        if len(content) > most:
            raise BadRelease(
                f"{place.shown}/{name} is longer than the {most:,} bytes it may have: nothing of it is used"
            )
    return bytes(content)


def read_blob(place: Place, blob: Blob) -> bytes:
    """Content by its digest. Raises ``BadRelease`` for any other, ``PlaceError``."""
    content = read_whole(place, blob.name, blob.bytes)
    _refuse_other(place, blob, len(content), hashlib.sha256(content).hexdigest())
    return content


def fetch_blob(place: Place, blob: Blob, target: Path) -> None:
    """Content by its digest into a new file, which is this user's alone; what is written is what was checked.

    Raises ``BadRelease`` for any other, ``PlaceError``, and ``OSError`` where it cannot be written.
    """
    digest, length = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for part in place.read(blob.name):
            length += len(part)
            if length > blob.bytes:
                break
            digest.update(part)
            file.write(part)
    _refuse_other(place, blob, length, digest.hexdigest())


def _refuse_other(place: Place, blob: Blob, length: int, digest: str) -> None:
    if length < blob.bytes:
        raise BadRelease(f"{place.shown}/{blob.name} is cut short: it lacks {blob.bytes - length:,} bytes")
    if length > blob.bytes or digest != blob.sha256:
        raise BadRelease(f"{place.shown}/{blob.name} is not what the release names: its checksum differs")
