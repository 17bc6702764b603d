"""Progress of a run on a terminal: what is compiled and timed now, trials with their intervals, and the duel."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autotuner.cli.progress import best_of, cells, opening_lines, standing
from autotuner.measurement.outcome import Failed, Measured
from autotuner.promotion.duel_plan import DuelLook
from autotuner.report.interval_bars import BarScale, ratio_scale
from autotuner.search.gain_model import LeftOpen
from autotuner.search.search import TrialEvent
from autotuner.search.space import SearchSpace
from autotuner.workload import Workload

LINES = 4
"""Of what was said last, the newest with its seconds."""
WIDE = 112
"""Columns from which a table of trials has room for bars."""
_BAR = 22
_BESIDE_A_GAIN = 64
"""Columns that a look at the duel takes beside its bar."""
_GAINS = (-0.5, 1.0)
"""What gains are drawn between: none can be more, and an early interval may be far below."""


class LiveProgress:
    """What ``PlainProgress`` says, drawn in place, with bars of intervals and the time left."""

    def __init__(self, console: Console) -> None:
        self._opening: tuple[str, ...] = ()
        self._said: deque[str] = deque(maxlen=LINES)
        self._since = time.monotonic()
        self._events: list[TrialEvent] = []
        self._looks: list[DuelLook] = []
        self._left_open: LeftOpen | None = None
        self._ends_at = time.monotonic()
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._draw)  # draws at once

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._said.clear()
        self._live.__exit__(*exception)

    def begin(self, symbol: str, workload: Workload, space: SearchSpace, known: int, seconds: float) -> None:
        """The search of a symbol begins."""
        self._opening = opening_lines(symbol, workload, space, known, seconds)
        self._ends_at = time.monotonic() + seconds
        self._events.clear()
        self._looks.clear()
        self._left_open = None

    def say(self, line: str) -> None:
        """What is being done now."""
        if self._said and line == self._said[-1]:
            return
        self._said.append(line)
        self._since = time.monotonic()

    def trial(self, event: TrialEvent) -> None:
        """A trial has an outcome."""
        self._events.append(event)

    def still_open(self, left_open: LeftOpen) -> None:
        """What is not tried yet."""
        self._left_open = left_open

    def looked(self, look: DuelLook) -> None:
        """What the duel shows after another launch."""
        self._looks.append(look)

    def _draw(self) -> Group:
        parts: list[RenderableType] = [Text(line, style="dim") for line in self._opening]
        if self._events:
            parts += [self._trials(), Text(standing(best_of(self._events), self._left_open))]
        if self._looks:
            parts.append(self._duel())
        if self._said:
            *before, now = self._said
            parts += [Text(f"  {line}", style="dim") for line in before]
            left = round(self._ends_at - time.monotonic())
            of_search = f" · {left} s of search left" if left > 0 else ""
            parts.append(
                Text(f"> {now} · for {time.monotonic() - self._since:.0f} s{of_search}", style="cyan")
            )
        return Group(*parts)

    def _trials(self) -> Table:
        ratios = [event.outcome.ratio for event in self._events if isinstance(event.outcome, Measured)]
        wide = self._console.width >= WIDE and bool(ratios)
        scale = ratio_scale(ratios, width=_BAR, ascii_only=self._ascii) if wide else None
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("#", justify="right", no_wrap=True)
        table.add_column("settings")
        table.add_column("p50", justify="right", no_wrap=True)
        table.add_column("speed-up", no_wrap=True)
        if scale is not None:
            ends = f"{scale.low:.1f}x", f"{scale.high:.1f}x"
            table.add_column(f"{ends[0]}{ends[1]:>{_BAR - len(ends[0])}}", no_wrap=True)
        table.add_column("drift, start or cause", overflow="fold")
        best = best_of(self._events)
        for event in self._events:
            latency, speed_up, detail = cells(event)
            measured = event.outcome if isinstance(event.outcome, Measured) else None
            bar = [] if scale is None else [scale.bar(measured.ratio) if measured else ""]
            style = "bold green" if event is best else ("red" if isinstance(event.outcome, Failed) else "")
            row = (str(event.number), event.settings.label, latency, speed_up, *bar, detail)
            table.add_row(*(Text(cell) for cell in row), style=style)
        return table

    def _duel(self) -> Table:
        low, high = _GAINS
        width = min(2 * _BAR, max(12, self._console.width - _BESIDE_A_GAIN))
        scale = BarScale(low=low, high=high, mark=0.0, width=width, ascii_only=self._ascii)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("duel", no_wrap=True)
        table.add_column(f"{low:.0%} gain{f'{high:.0%}':>{width - 9}}", no_wrap=True)
        table.add_column("95 % interval", no_wrap=True)
        for look in self._looks:
            gain = look.gain
            launches = f"after launch {look.launch} of {look.launches}"
            interval = f"{gain.estimate:.1%} [{gain.low:.1%}, {gain.high:.1%}] {look.verdict}"
            table.add_row(launches, scale.bar(gain), interval)
        return table

    @property
    def _ascii(self) -> bool:
        return self._console.options.ascii_only
