"""Publishes the settings snapshot beside the store and reads it back, with the standard library alone.

The file holds a JSON document and its SHA-256, and the same once more in parts, for who looks up one symbol. It
is written aside and renamed over: a reader sees the old or the new snapshot and never a lock, a journal or a half.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote_from_bytes

from storage.errors import InvalidRecord, SnapshotError, SnapshotReason, StoreUnavailable
from storage.origin import Origin, read_origin, write_origin
from storage.snapshot_document import (
    SNAPSHOT_SCHEMA,
    Snapshot,
    SnapshotEntry,
    SnapshotPin,
    pack,
    packed_document,
    unpacked_document,
)
from storage.snapshot_parts import (
    Kind,
    Part,
    damaged_parts,
    has_parts,
    parted,
    place_of,
    read_part,
    write_parts,
)

__all__ = [
    "SNAPSHOT_SCHEMA",
    "Snapshot",
    "SnapshotEntry",
    "SnapshotPart",
    "SnapshotPin",
    "fill",
    "fill_document",
    "is_of",
    "packed_document",
    "publish",
    "read_document",
    "read_snapshot",
    "read_snapshot_part",
    "state_of_parts",
    "unpacked_document",
    "written_aside",
]

PAGE_BYTES = 8192  # one holds a part; larger ones make the whole document no quicker to read
HEADER_BYTES = 100  # https://sqlite.org/fileformat2.html, section 1.3

_MAGIC = b"SQLite format 3\0"
PartsState = Literal["whole", "damaged", "none"]


@dataclass(frozen=True, kw_only=True)
class SnapshotPart(Snapshot):
    """Of the snapshot at `path` what was read for a symbol: all that there is of the symbols of its place.

    `whole` is the digest of the document that it is a part of.
    """

    path: Path
    place: int
    places: int
    whole: str

    def covers(self, symbol: str) -> bool:
        """Whether it says everything there is of a symbol."""
        return place_of(symbol, self.places) == self.place

    def of_workload(self, signature: str) -> list[SnapshotEntry]:
        """Raises `SnapshotError`: only the whole snapshot says that."""
        raise _told(self.path, "truncated/corrupt")

    def leaders(self, signature: str) -> list[SnapshotEntry]:
        """Those entries of a workload among which its best one is.

        Raises `SnapshotError` where they cannot be read, or another snapshot has taken the place of this one.
        """
        part = read_snapshot_part(self.path, "workloads", signature)
        if part is None or part.whole != self.whole:
            raise _told(self.path, "truncated/corrupt")
        return Snapshot.of_workload(part, signature)


def publish(
    path: str | Path,
    entries: Sequence[SnapshotEntry],
    pins: Sequence[SnapshotPin],
    *,
    generation_time: datetime,
    state: str = "",
) -> None:
    """Replace the snapshot at `path` as a whole; the file is readable by its owner alone.

    Raises `InvalidRecord` for entries no snapshot may hold, `StoreUnavailable` when it cannot be written.
    Two publishers never mix, but the later rename wins: serialise them where order matters.
    """
    with written_aside(Path(path)) as aside:
        fill(aside, entries, pins, generation_time=generation_time, state=state)


def fill(
    aside: Path,
    entries: Sequence[SnapshotEntry],
    pins: Sequence[SnapshotPin],
    *,
    generation_time: datetime,
    state: str = "",
) -> None:
    """Write a snapshot into an empty file; `state` names the state of the ledger it was made of.

    Raises `InvalidRecord` as `publish` does, `sqlite3.Error` when it cannot be written.
    """
    document = packed_document(entries, pins, generation_time=generation_time)
    _fill(aside, document, _parts(entries, pins, generation_time), state=state)


def fill_document(aside: Path, document: bytes, *, state: str = "", origin: Origin | None = None) -> None:
    """Write a document, with where it was fetched, into an empty file. Raises `sqlite3.Error`."""
    try:
        said = unpacked_document(document)
    except InvalidRecord:
        _fill(aside, document, [], state=state, origin=origin)
    else:
        parts = _parts(said.entries, said.pins, said.written_at)
        _fill(aside, document, parts, state=state, origin=origin)


def _parts(
    entries: Sequence[SnapshotEntry], pins: Sequence[SnapshotPin], written_at: datetime
) -> list[tuple[Part, bytes]]:
    try:
        return [(part, pack(part.entries, part.pins, written_at)) for part in parted(entries, pins)]
    except Exception:  # values of other kinds can fail in any way: what has no parts is read whole
        return []


def _fill(
    aside: Path,
    document: bytes,
    parts: Sequence[tuple[Part, bytes]],
    *,
    state: str = "",
    origin: Origin | None = None,
) -> None:
    digest = hashlib.sha256(document).hexdigest()
    with closing(_connect(aside, "mode=rw")) as connection:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")  # the whole file is synced before it gets its name
        connection.execute(f"PRAGMA user_version={SNAPSHOT_SCHEMA}")
        write_parts(connection, digest, parts)
        # Last, so that a file that was cut short lacks some of it.
        connection.execute(
            "CREATE TABLE snapshot (sha256 TEXT NOT NULL, state TEXT NOT NULL, document BLOB NOT NULL)"
        )
        connection.execute("INSERT INTO snapshot VALUES (?, ?, ?)", (digest, state, document))
        if origin is not None:
            write_origin(connection, origin)


def is_of(path: str | Path, state: str) -> bool:
    """Whether the snapshot at `path` is whole and of this state of the ledger, or of a version that knows better."""
    target = Path(path)
    if _is_no_file(target):
        return False
    try:
        with closing(_connect(target, "mode=ro&immutable=1")) as connection:
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if schema > SNAPSHOT_SCHEMA:
                return True
            if not has_parts(connection):
                return False
            rows = connection.execute("SELECT state, sha256, document FROM snapshot LIMIT 2").fetchall()
    except (sqlite3.Error, OSError, ValueError, MemoryError):
        return False
    return len(rows) == 1 and rows[0][0] == state and _matches(*rows[0][1:])


def read_snapshot(path: str | Path) -> Snapshot:
    """The snapshot at `path`, whole and unaltered since it was published.

    Raises `SnapshotError`, whose `reason` says why there is none; never returns a part of one.
    """
    document, origin = read_document(path)
    try:
        return unpacked_document(document, origin)
    except InvalidRecord as error:
        raise _refusal(Path(path), "truncated/corrupt") from error


def read_snapshot_part(path: str | Path, kind: Kind, name: str) -> SnapshotPart | None:
    """Of the snapshot at `path` the part where `name` is, a symbol or the signature of a workload.

    None for one that earlier versions published, and whatever is wrong: `read_snapshot` then says what.
    """
    target = Path(path)
    try:
        if _is_no_file(target):
            return None
        with closing(_connect(target, "mode=ro&immutable=1")) as connection:
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if schema != SNAPSHOT_SCHEMA:
                return None
            found = read_part(connection, kind, name)
            origin = read_origin(connection)
        said = unpacked_document(found.document, origin)
        return SnapshotPart(
            **vars(said), path=target, place=found.place, places=found.places, whole=found.whole
        )
    except (sqlite3.Error, OSError, ValueError, MemoryError):  # an InvalidRecord is a ValueError
        return None


def state_of_parts(path: str | Path) -> PartsState:
    """Whether the parts of a snapshot are what was written: look-ups of damaged ones' symbols read all of it.

    One that earlier versions published has none.
    """
    try:
        with closing(_connect(Path(path), "mode=ro&immutable=1")) as connection:
            named = "SELECT 1 FROM sqlite_master WHERE name = 'parts'"
            if connection.execute(named).fetchone() is None:
                return "none"
            return "damaged" if damaged_parts(connection) else "whole"
    except (sqlite3.Error, OSError, ValueError, TypeError, MemoryError):
        return "damaged"


def read_document(path: str | Path) -> tuple[bytes, Origin | None]:
    """What the snapshot at `path` says, as its file holds it, and where it was fetched. Raises `SnapshotError`."""
    target = Path(path)
    if _is_no_file(target):
        raise _told(target, "unreadable")
    try:
        with closing(_connect(target, "mode=ro&immutable=1")) as connection:
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if schema != SNAPSHOT_SCHEMA:
                raise _refusal(target, "schema")
            rows = connection.execute("SELECT sha256, document FROM snapshot LIMIT 2").fetchall()
            origin = read_origin(connection)
    except (sqlite3.Error, OSError, ValueError, MemoryError) as error:
        raise _refusal(target, _failure(error)) from error
    if len(rows) != 1 or not _matches(*rows[0]):
        raise _refusal(target, "truncated/corrupt")
    return rows[0][1], origin


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """`written_whole` for a file of a store: raises `StoreUnavailable` when it cannot be written."""
    from storage.whole_files import written_whole

    try:
        with written_whole(target) as aside:
            yield aside
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(
            f"{target} cannot be written ({error}): check the folder, its owner and space"
        ) from error


def _connect(path: Path, options: str) -> sqlite3.Connection:
    uri = f"file://{quote_from_bytes(os.fsencode(path.absolute()))}?{options}"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _matches(digest: Any, document: Any) -> bool:
    return isinstance(document, bytes) and hashlib.sha256(document).hexdigest() == digest


def _failure(error: Exception) -> SnapshotReason:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return "unreadable" if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM} else "truncated/corrupt"


def _reason(target: Path, otherwise: SnapshotReason) -> SnapshotReason:
    try:
        with target.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError):
        return "unreadable"
    if not header:
        return "empty"
    if not header.startswith(_MAGIC[: len(header)]):
        return "not a database"
    return otherwise if len(header) == HEADER_BYTES else "truncated/corrupt"


def _is_no_file(target: Path) -> bool:
    """Whether it is a folder, a device or a pipe: to open that would wait for its writer."""
    try:
        return not stat.S_ISREG(target.stat().st_mode)
    except (OSError, ValueError):  # said when it is opened
        return False


def _refusal(target: Path, otherwise: SnapshotReason) -> SnapshotError:
    return _told(target, _reason(target, otherwise))


def _told(target: Path, reason: SnapshotReason) -> SnapshotError:
    return SnapshotError(
        f"the settings snapshot {target} cannot be used ({reason}): publish it again", reason
    )
