"""What a group of faults reports: one row for each kind of fault, and the table of all of them."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

Size = Literal["short", "long"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault that was made ``times`` times and whose invariants held ``held`` times.

    ``broken`` says in one line what the first one that did not hold was, empty when all did; ``measured`` is what
    else was found out, such as latencies.
    """

    fault: str
    times: int
    held: int
    broken: str = ""
    measured: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the fault was made at all, and its invariants held each time."""
        return self.times > 0 and self.held == self.times


class Group(Protocol):
    """A module of this package that makes one group of faults."""

    def rows(self, size: Size) -> Iterator[Row]:
        """Make the faults, and give a row as soon as it is known."""


def as_markdown(rows: Sequence[Row], size: Size) -> str:
    """The table with the date and the machine, for a person and for `benchmarks/results/`."""
    machine = (
        f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}"
    )
    head = [f"{datetime.now(UTC):%Y-%m-%d}, {size}: {machine}.", ""]
    columns = ["| fault | times | held | seconds | |", "| --- | ---: | ---: | ---: | --- |"]
    lines = [
        f"| {row.fault} | {row.times:,} | {row.held:,} | {row.seconds:,.0f} | "
        f"{'; '.join(part for part in (row.measured, row.broken) if part)} |"
        for row in rows
    ]
    return "\n".join([*head, *columns, *lines, ""])
