"""The parts of a snapshot: the same settings once more, in small documents of a symbol or a workload each, or a few.

A symbol's place is a number made of its name, and every place has a row, be it of nothing: a row that is missing is
damage. A part's digest covers its place and the digest of the whole document, so that none is taken for another's.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from storage.snapshot_document import SnapshotEntry, SnapshotPin

Kind = Literal["symbols", "workloads"]
KINDS: tuple[Kind, ...] = ("symbols", "workloads")
_TABLE = (
    "CREATE TABLE parts (id INTEGER PRIMARY KEY, places INTEGER NOT NULL, sha256 TEXT NOT NULL, "
    "document BLOB NOT NULL)"
)


class Part(NamedTuple):
    """What belongs to one place of ``places``."""

    kind: Kind
    place: int
    places: int
    entries: Sequence[SnapshotEntry]
    pins: Sequence[SnapshotPin]


class ReadPart(NamedTuple):
    """A part as it was read: ``document`` of one of ``places``, and the digest of the ``whole`` document."""

    place: int
    places: int
    whole: str
    document: bytes


def place_of(name: str, places: int) -> int:
    """Where a symbol or a workload's signature is to be found."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % places


def parted(entries: Sequence[SnapshotEntry], pins: Sequence[SnapshotPin]) -> list[Part]:
    """All parts: by symbol its entries and its pin, by workload those of its entries that may be its best."""
    symbols = _spread(
        "symbols", [(each.symbol, each) for each in entries], [(each.symbol, each) for each in pins]
    )
    best = [(each.workload_signature, each) for each in leaders(entries)]
    return [*symbols, *_spread("workloads", best, [])]


def leaders(entries: Iterable[SnapshotEntry]) -> list[SnapshotEntry]:
    """Of the entries that differ in symbol, settings and age alone, the newest, and the newest that is marked so.

    Whoever looks for the best entry of a workload ranks by these and no other fields, and so finds it among them.
    """
    newest: dict[tuple[object, ...], SnapshotEntry] = {}
    for each in entries:
        alike = each.workload_signature, each.model, each.profile, each.environment_fingerprint
        for key, rank in (((*alike, "marked"), _marked), ((*alike, "newest"), _age)):
            known = newest.get(key)
            if known is None or rank(each) > rank(known):
                newest[key] = each
    return list({id(each): each for each in newest.values()}.values())


def _age(entry: SnapshotEntry) -> tuple[Any, ...]:
    return entry.since, entry.promotion_id


def _marked(entry: SnapshotEntry) -> tuple[Any, ...]:
    return entry.newest, *_age(entry)


def _spread(
    kind: Kind, entries: Sequence[tuple[str, SnapshotEntry]], pins: Sequence[tuple[str, SnapshotPin]]
) -> list[Part]:
    names = {name for name, _ in (*entries, *pins)}
    places = max(1, len(names))
    found = [Part(kind, place, places, [], []) for place in range(places)]
    where = {name: place_of(name, places) for name in names}
    filled: Mapping[int, tuple[list[Any], list[Any]]] = {place: ([], []) for place in range(places)}
    for name, entry in entries:
        filled[where[name]][0].append(entry)
    for name, pin in pins:
        filled[where[name]][1].append(pin)
    return [each._replace(entries=filled[each.place][0], pins=filled[each.place][1]) for each in found]


def write_parts(connection: sqlite3.Connection, whole: str, parts: Iterable[tuple[Part, bytes]]) -> None:
    """Put documents beside the one whose digest is ``whole``. Raises ``sqlite3.Error``."""
    connection.execute(_TABLE)
    connection.execute("BEGIN")
    for (kind, place, places, *_), document in parts:
        row = _id(kind, place), places, _digest(kind, place, places, whole, document), document
        connection.execute("INSERT INTO parts VALUES (?, ?, ?, ?)", row)
    connection.execute("COMMIT")


def read_part(connection: sqlite3.Connection, kind: Kind, name: str) -> ReadPart:
    """What lies at the place of ``name``.

    Raises ``ValueError`` where it is not what was written, ``sqlite3.Error`` also where there are no parts.
    """
    wholes = connection.execute("SELECT sha256 FROM snapshot LIMIT 2").fetchall()
    first = connection.execute("SELECT places FROM parts WHERE id = ?", (_id(kind, 0),)).fetchone()
    if len(wholes) != 1 or first is None or not isinstance(first[0], int) or first[0] < 1:
        raise ValueError("not parts of one snapshot")
    (places,), ((whole,),) = first, wholes
    place = place_of(name, places)
    wanted = "SELECT sha256, document FROM parts WHERE id = ?"
    row = connection.execute(wanted, (_id(kind, place),)).fetchone()
    if row is None or not isinstance(row[1], bytes):
        raise ValueError("a part is missing")
    if _digest(kind, place, places, whole, row[1]) != row[0]:
        raise ValueError("another part than was written")
    return ReadPart(place, places, whole, row[1])


def has_parts(connection: sqlite3.Connection) -> bool:
    """Whether there are as many parts as there are to be. Raises ``sqlite3.Error`` where there are none."""
    each = "SELECT count(*), min(places), max(places) FROM parts GROUP BY id % 2"
    counts = connection.execute(each).fetchall()
    return len(counts) == len(KINDS) and all(count == few == many for count, few, many in counts)


def damaged_parts(connection: sqlite3.Connection) -> int:
    """How many parts are not what was written, or missing. Raises ``sqlite3.Error`` where there are none at all."""
    (whole,) = connection.execute("SELECT sha256 FROM snapshot LIMIT 1").fetchone()
    rows = connection.execute("SELECT id, places, sha256, document FROM parts").fetchall()
    good = 0
    for id_, places, digest, document in rows:
        place, kind = id_ // len(KINDS), KINDS[id_ % len(KINDS)]
        good += isinstance(document, bytes) and _digest(kind, place, places, whole, document) == digest
    return len(rows) - good + (0 if has_parts(connection) else 1)


def _id(kind: Kind, place: int) -> int:
    return len(KINDS) * place + KINDS.index(kind)


def _digest(kind: Kind, place: int, places: int, whole: object, document: bytes) -> str:
    about = hashlib.sha256(f"{kind} {place} {places} {whole}\n".encode())
    about.update(document)
    return about.hexdigest()
