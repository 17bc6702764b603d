"""Where a fetched snapshot comes from, and of when it is; kept in the snapshot's own file, under a digest."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

_TABLE = "CREATE TABLE origin (sha256 TEXT NOT NULL, document BLOB NOT NULL)"
_LONGEST_SOURCE = 2_000


@dataclass(frozen=True, kw_only=True)
class Origin:
    """``as_of`` is when its maker last said that this is the newest; ``sequence`` tells older releases from newer.

    ``key`` names the key that signed it, empty for what was read from a database; ``max_age_s`` is how old it may be.
    """

    source: str
    as_of: datetime
    fetched_at: datetime
    sequence: int
    key: str
    max_age_s: float

    def age_s(self, now: float) -> float:
        """Seconds since ``as_of`` at ``now`` (since the epoch), never negative."""
        return max(0.0, now - self.as_of.timestamp())

    def is_old(self, now: float) -> bool:
        """Whether it is older than it may be."""
        return self.age_s(now) > self.max_age_s


def write_origin(connection: sqlite3.Connection, origin: Origin) -> None:
    """Put it beside the snapshot of this connection. Raises ``sqlite3.Error``."""
    values = asdict(
        replace(origin, as_of=origin.as_of.astimezone(UTC), fetched_at=origin.fetched_at.astimezone(UTC))
    )
    document = json.dumps(values, default=str, separators=(",", ":")).encode()
    connection.execute(_TABLE)
    connection.execute("INSERT INTO origin VALUES (?, ?)", (hashlib.sha256(document).hexdigest(), document))


def read_origin(connection: sqlite3.Connection) -> Origin | None:
    """That of the snapshot of this connection, None for one that was published where it lies.

    Raises ``ValueError`` for one that is damaged, and ``sqlite3.Error``.
    """
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'origin'").fetchone() is None:
        return None
    rows = connection.execute("SELECT sha256, document FROM origin LIMIT 2").fetchall()
    if len(rows) != 1 or not isinstance(rows[0][1], bytes):
        raise ValueError("not one origin")
    digest, document = rows[0]
    if hashlib.sha256(document).hexdigest() != digest:
        raise ValueError("another origin than was written")
    try:
        return _checked(json.loads(document))
    except (TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError("not the form of an origin") from error


def _checked(values: dict[str, Any]) -> Origin:
    times = {name: datetime.fromisoformat(values[name]) for name in ("as_of", "fetched_at")}
    found = Origin(**values | times)
    numbers = isinstance(found.sequence, int) and 0 < found.max_age_s < math.inf
    texts = (
        isinstance(found.source, str) and len(found.source) <= _LONGEST_SOURCE and isinstance(found.key, str)
    )
    if not (numbers and texts) or any(moment.utcoffset() is None for moment in times.values()):
        raise ValueError("not the form of an origin")
    return found
