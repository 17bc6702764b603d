"""What a snapshot says, as types and as the JSON document that its file holds."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, TypeVar

from storage.errors import InvalidRecord
from storage.origin import Origin

SNAPSHOT_SCHEMA = 1
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

    def covers(self, symbol: str) -> bool:
        """Whether it says everything there is of a symbol."""
        return True

    def of_symbol(self, symbol: str) -> list[SnapshotEntry]:
        """The entries of a symbol."""
        return [entry for entry in self.entries if entry.symbol == symbol]

    def pin_of(self, symbol: str) -> SnapshotPin | None:
        """The pin of a symbol."""
        return next((pin for pin in self.pins if pin.symbol == symbol), None)

    def of_workload(self, signature: str) -> list[SnapshotEntry]:
        """The entries of a workload. Raises `SnapshotError` where they have to be read first and cannot."""
        return [entry for entry in self.entries if entry.workload_signature == signature]

    def leaders(self, signature: str) -> list[SnapshotEntry]:
        """Those entries of a workload among which its best one is (`snapshot_parts.leaders`); raises the same."""
        return self.of_workload(signature)


def packed_document(
    entries: Sequence[SnapshotEntry], pins: Sequence[SnapshotPin], *, generation_time: datetime
) -> bytes:
    """What a snapshot says, as its file holds it. Raises `InvalidRecord` as `publish` does."""
    _check(entries, pins, generation_time)
    return pack(entries, pins, generation_time)


def pack(entries: Sequence[SnapshotEntry], pins: Sequence[SnapshotPin], generation_time: datetime) -> bytes:
    """The same of what was checked before."""
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
    kind: Any = type(item)
    values_of, shared, since = _form(kind)
    values = list(values_of(item))
    values[since] = _time_text(item.since)
    for place in shared:
        values[place] = places.setdefault(values[place], len(places))
    return values


@functools.cache
def _form(kind: Any) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[int, ...], int]:
    """What gives the values of an item, at which places they are texts that recur, and at which their time."""
    names = [field.name for field in fields(kind)]
    shared = tuple(place for place, name in enumerate(names) if name.endswith("_json"))
    return attrgetter(*names), shared, names.index("since")


def _snapshot(parsed: dict[str, Any], origin: Origin | None) -> Snapshot:
    """What a document says. Raises anything for one of another shape."""
    return Snapshot(
        origin=origin,
        entries=_unpacked(SnapshotEntry, parsed["entries"], parsed["texts"]),
        pins=_unpacked(SnapshotPin, parsed["pins"], parsed["texts"]),
        written_at=datetime.fromisoformat(parsed["written_at"]),
    )


def _unpacked(kind: type[ItemT], rows: list[list[Any]], texts: list[str]) -> tuple[ItemT, ...]:
    any_kind: Any = kind
    names = [field.name for field in fields(kind)]
    _, shared, since = _form(any_kind)
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
    if moment.utcoffset() is None:
        raise InvalidRecord("the snapshot has a time without a zone: give every time in UTC")
    return moment.astimezone(UTC).isoformat()
