"""What a reader of a store has left out because it is damaged: counted by table and symbol, with the first reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Row, Table

from storage.checks import is_symbol


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Damaged rows of one table and one symbol, which is empty where the row does not say whose it is."""

    table: str
    symbol: str
    reason: str
    rows: set[object] = field(default_factory=set)

    def __str__(self) -> str:
        return (
            self.reason if len(self.rows) == 1 else f"{self.reason} ({len(self.rows)} such rows are left out)"
        )


class Damage:
    """The rows that were left out so far."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], LeftOut] = {}

    def add(self, table: Table, row: Row[tuple[object, ...]], error: Exception) -> None:
        """Count a row, once however often it is read."""
        key = tuple(getattr(row, column.name, None) for column in table.primary_key)
        symbol = getattr(row, "symbol", None)
        self.note(table.name, symbol if is_symbol(symbol) else "", key, str(error))

    def note(self, table: str, symbol: object, key: object, reason: str) -> None:
        """Count what is left out of an answer, under a key of its own."""
        whose = str(symbol)
        self._known.setdefault((table, whose), LeftOut(table=table, symbol=whose, reason=reason)).rows.add(
            key
        )

    def __iter__(self) -> Iterator[LeftOut]:
        """By symbol and table."""
        return iter(sorted(self._known.values(), key=lambda each: (each.symbol, each.table)))
