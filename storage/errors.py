"""What can go wrong with a store: one exception per remedy, each message one line that says what to do."""

from __future__ import annotations

from typing import Literal

_LONGEST = 2_000

SnapshotReason = Literal["missing", "empty", "not a database", "truncated/corrupt", "unreadable", "schema"]


class StorageError(Exception):
    """Base of every error of this package; its message is always one line."""

    def __init__(self, message: str) -> None:
        super().__init__(_printable(" ".join(message.split())))


class StoreUnavailable(StorageError):  # noqa: N818 - reads as the message it stands for
    """The store cannot be reached now: missing, locked, unwritable, full, or not a store of this package."""


class TryAgain(StoreUnavailable):
    """The transaction was undone, or never began, for a reason that passes; nothing of it was written.

    `clash` tells one that another transaction came in the way of from a server that is away.
    """

    def __init__(self, message: str, *, clash: bool = False) -> None:
        super().__init__(message)
        self.clash = clash


class StoreCorrupt(StorageError):  # noqa: N818
    """The store can be reached, but its contents are damaged."""


class DamagedRow(StoreCorrupt):
    """One row of the store cannot be read; all others can."""


class SchemaTooNew(StorageError):  # noqa: N818
    """The store was written by a newer version of this package."""


class NotFound(StorageError):  # noqa: N818
    """What was asked for is not in the store."""


class MissingReference(StorageError):  # noqa: N818
    """A record names an environment, workload, series, run or promotion that is not in the store."""


class InvalidRecord(StorageError, ValueError):  # noqa: N818
    """A record holds a value that must never be stored."""


class InvalidDocument(StorageError, ValueError):  # noqa: N818
    """A document to import is malformed; the message names the field."""


OF_ONE_ROW = (DamagedRow, NotFound, MissingReference, InvalidRecord)
"""What concerns one row of a store alone: whoever reads many goes on with the next."""


class SnapshotError(StorageError):
    """The settings snapshot cannot be used; `reason` says why in a fixed word."""

    def __init__(self, message: str, reason: SnapshotReason = "unreadable") -> None:
        super().__init__(message)
        self.reason: SnapshotReason = reason


def _printable(line: str) -> str:
    """A line without what moves a terminal's cursor, whatever it quotes; a long one lacks its middle."""
    if not line.isprintable():
        line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    half = _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[: half - 3]}...{line[-half:]}"
