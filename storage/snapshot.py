"""Publishes the settings snapshot beside the store and reads it back, with the standard library alone.

The file holds one row: a JSON document and its SHA-256. It is written aside and renamed over, so that a
reader sees the old or the new snapshot and never a lock, a journal or a half.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote_from_bytes

from storage.errors import InvalidRecord, SnapshotError, SnapshotReason, StoreUnavailable
from storage.origin import Origin, read_origin, write_origin

SNAPSHOT_SCHEMA = 1
PAGE_BYTES = 65536  # the largest page SQLite has: the document then spans few of them
HEADER_BYTES = 100  # https://sqlite.org/fileformat2.html, section 1.3

_MAGIC = b"SQLite format 3\0"

ItemT = TypeVar("ItemT", "SnapshotEntry", "SnapshotPin")


@dataclass(frozen=True, kw_only=True)
class SnapshotEntry:
    """The active configuration of one (symbol, profile, workload, environment); `publish` checks it.

    `newest` marks what the symbol was last promoted for; `since` is UTC.
    """

    symbol: str
    profile: str
    model: str
    workload_signature: str
    workload_json: str
    environment_fingerprint: str
    environment_json: str
    settings_key: str
    settings_json: str
    promised_json: str
    since: datetime
    promotion_id: int
    newest: bool


@dataclass(frozen=True, kw_only=True)
class SnapshotPin:
    """The configuration that a person has fixed for a symbol."""

    symbol: str
    settings_key: str
    settings_json: str
    reason: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What production may use: everything that was active at `written_at`; `origin` says where it was fetched."""

    entries: tuple[SnapshotEntry, ...]
    pins: tuple[SnapshotPin, ...]
    written_at: datetime
    origin: Origin | None = None


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
    fill_document(aside, packed_document(entries, pins, generation_time=generation_time), state=state)


def packed_document(
    entries: Sequence[SnapshotEntry], pins: Sequence[SnapshotPin], *, generation_time: datetime
) -> bytes:
    """What a snapshot says, as its file holds it. Raises `InvalidRecord` as `publish` does."""
    _check(entries, pins, generation_time)
    # Workloads, environments and settings recur from symbol to symbol: each text is kept once.
    places: dict[str, int] = {}
    content = {
        "schema": SNAPSHOT_SCHEMA,
        "written_at": _time_text(generation_time),
        "entries": [_packed(entry, places) for entry in entries],
        "pins": [_packed(pin, places) for pin in pins],
        "texts": list(places),
    }
    return json.dumps(content, separators=(",", ":")).encode()


def fill_document(aside: Path, document: bytes, *, state: str = "", origin: Origin | None = None) -> None:
    """Write a document, with where it was fetched, into an empty file. Raises `sqlite3.Error`."""
    digest = hashlib.sha256(document).hexdigest()
    with closing(_connect(aside, "mode=rw")) as connection:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")  # the whole file is synced before it gets its name
        connection.execute(f"PRAGMA user_version={SNAPSHOT_SCHEMA}")
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


def unpacked_document(document: bytes, origin: Origin | None = None) -> Snapshot:
    """The snapshot that a document is. Raises `InvalidRecord` for what is none."""
    try:
        parsed = json.loads(document)
        if parsed["schema"] != SNAPSHOT_SCHEMA:
            raise InvalidRecord(
                f"the snapshot is of form {str(parsed['schema'])[:20]}, this version reads another"
            )
        return _snapshot(parsed, origin)
    except InvalidRecord:
        raise
    except Exception as error:  # a document of another shape can fail in any way
        raise InvalidRecord("the snapshot's document is of another shape") from error


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


def _check(entries: Sequence[SnapshotEntry], pins: Sequence[SnapshotPin], written_at: datetime) -> None:
    from storage.checks import check_symbol  # not at the top: reading a snapshot does without

    items: list[SnapshotEntry | SnapshotPin] = [*entries, *pins]
    for item in items:
        check_symbol(item.symbol)
    if any(moment.utcoffset() is None for moment in (written_at, *(item.since for item in items))):
        raise InvalidRecord("the snapshot has a time without a zone: give every time in UTC")
    _check_alone("newest entry", [entry.symbol for entry in entries if entry.newest])
    _check_alone("pin", [pin.symbol for pin in pins])


def _check_alone(what: str, symbols: list[str]) -> None:
    if len(symbols) != len(set(symbols)):
        raise InvalidRecord(f"the snapshot has more than one {what} for a symbol: give each symbol one")


def _packed(item: SnapshotEntry | SnapshotPin, places: dict[str, int]) -> list[object]:
    values = vars(item) | {"since": _time_text(item.since)}
    return [
        places.setdefault(value, len(places)) if name.endswith("_json") else value
        for name, value in values.items()
    ]


def _snapshot(parsed: dict[str, Any], origin: Origin | None) -> Snapshot:
    """What a document says. Raises anything for one of another shape."""
    return Snapshot(
        origin=origin,
        entries=_unpacked(SnapshotEntry, parsed["entries"], parsed["texts"]),
        pins=_unpacked(SnapshotPin, parsed["pins"], parsed["texts"]),
        written_at=datetime.fromisoformat(parsed["written_at"]),
    )


def _unpacked(kind: type[ItemT], rows: list[list[Any]], texts: list[str]) -> tuple[ItemT, ...]:
    names = [field.name for field in fields(kind)]
    shared = [place for place, name in enumerate(names) if name.endswith("_json")]
    since = names.index("since")
    items = []
    for row in rows:
        for place in shared:
            row[place] = texts[row[place]]
        row[since] = datetime.fromisoformat(row[since])
        # Past the __init__, which is slow for frozen classes: 500 symbols are to be read within 2 ms.
        item = object.__new__(kind)
        vars(item).update(zip(names, row, strict=True))
        items.append(item)
    return tuple(items)


def _time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


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
