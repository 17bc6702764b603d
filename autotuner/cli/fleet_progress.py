"""Progress of a fleet: a table of what runs where on a terminal, lines in a log."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autotuner.cli.options import note
from autotuner.fleet.driver import Ended
from autotuner.fleet.orders import Order

_BEST = "best so far: "
_SAID_LAST, _ENDED_LAST = 3, 8


class PlainFleetProgress:
    """One line on standard error for each thing that changes, with symbol, node and environment before it."""

    def __init__(self) -> None:
        self._count = _Count()

    def expect(self, runs: int) -> None:
        """So many runs are to be made."""
        self._count.expected = runs

    def tell(self, line: str) -> None:
        """Something about nodes."""
        note(line)

    def begun(self, order: Order, host: str) -> None:
        """A run is put on a node."""
        note(f"{_name(order, host)}: begins")

    def said(self, order: Order, host: str, line: str) -> None:
        """A line of a run."""
        note(f"{_name(order, host)}: {line.strip()}")

    def ended(self, ended: Ended) -> None:
        """An order has ended."""
        self._count.take(ended)
        note(f"{_name(ended.order, ended.host)}: {_result(ended)}; {self._count}")


class FleetProgress:
    """The same drawn in place: a row for each run under way, and what ended last."""

    def __init__(self, console: Console) -> None:
        self._count = _Count()
        self._rows: dict[Order, _Row] = {}
        self._said: deque[str] = deque(maxlen=_SAID_LAST)
        self._ended: deque[Ended] = deque(maxlen=_ENDED_LAST)
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._live.__exit__(*exception)

    def expect(self, runs: int) -> None:
        """So many runs are to be made."""
        self._count.expected = runs

    def tell(self, line: str) -> None:
        """Something about nodes."""
        self._said.append(line)

    def begun(self, order: Order, host: str) -> None:
        """A run is put on a node."""
        self._rows[order] = _Row(host=host)

    def said(self, order: Order, host: str, line: str) -> None:
        """A line of a run."""
        row, text = self._rows.setdefault(order, _Row(host=host)), line.strip()
        if text.startswith(_BEST):
            row.best = text.removeprefix(_BEST).partition(";")[0]
        else:
            row.state = text

    def ended(self, ended: Ended) -> None:
        """An order has ended."""
        self._count.take(ended)
        self._rows.pop(ended.order, None)
        self._ended.append(ended)

    def _draw(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("symbol", "node", "environment", "for", "best so far"):
            table.add_column(name, no_wrap=True)
        table.add_column("state", overflow="fold")
        for order, row in self._rows.items():
            seconds = f"{time.monotonic() - row.since:.0f} s"
            cells = (order.symbol, row.host, order.place, seconds, row.best, row.state)
            table.add_row(*(Text(cell) for cell in cells))
        for ended in self._ended:
            style = "dim" if ended.document is not None else "red"
            cells = (ended.order.symbol, ended.host or "", ended.order.place, "", "", _result(ended))
            table.add_row(*(Text(cell) for cell in cells), style=style)
        lines = [Text(line, style="dim") for line in self._said]
        return Group(*lines, table, Text(str(self._count), style="cyan"))


@dataclass(kw_only=True)
class _Row:
    host: str
    state: str = "begins"
    best: str = ""
    since: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True)
class _Count:
    expected: int = 0
    done: int = 0
    failed: int = 0

    def take(self, ended: Ended) -> None:
        self.done += ended.document is not None
        self.failed += ended.document is None

    def __str__(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} of {self.expected} runs done{failed}"


def _name(order: Order, host: str | None) -> str:
    return f"{order.symbol} on {host or 'no node'} ({order.place})"


def _result(ended: Ended) -> str:
    document = ended.document
    if document is None:
        return ended.reason
    if "failed" in document:  # of several profiles and workloads that were due, or of none
        each_of_it = [_result(replace(ended, document=each)) for each in document["symbols"]]
        return "; ".join(each_of_it) or "nothing was due"
    ratio = document["ratio"]
    verb = "promoted" if document["promoted"] else "kept"
    times = "" if ratio is None else f", {ratio['estimate']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return f"{verb}: {document['decision']['verdict']}{times}"
