"""What running processes do now: calls, latency beside what was promised, recompiles and eager calls, by symbol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from autotuner.figures import FiguresError, figures_from_json
from autotuner.record_mapping import read_settings
from autotuner.report.tables import bare_table, plain
from autotuner.serving.spool import Window
from storage.records import PromotionRecord

_UNKNOWN = "-"


@dataclass(frozen=True, kw_only=True)
class LiveCalls:
    """The calls that all processes made with one symbol's settings since ``since``; times in milliseconds.

    ``settings`` is a label, or a part of the key where the store does not know the settings. ``promised_p50_ms`` and
    ``promised_p99_ms`` are the upper ends of what was measured, None where nothing was promised. ``calls_per_second``
    is over the time that windows cover; the newest ended at ``last``.
    """

    symbol: str
    settings: str
    since: datetime
    last: datetime
    calls: int
    calls_per_second: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    promised_p50_ms: float | None = None
    promised_p99_ms: float | None = None
    recompiles: int = 0
    eager_calls: int = 0
    out_of_memory: int = 0

    @property
    def trouble(self) -> tuple[str, ...]:
        """What is not as promised, in words; empty where all is well."""
        found = [
            f"{name} {seen / promised:.1f}x the promised"
            for name, seen, promised in (
                ("p50", self.p50_ms, self.promised_p50_ms),
                ("p99", self.p99_ms, self.promised_p99_ms),
            )
            if promised is not None and seen > promised * _BUCKET
        ]
        counted = (
            ("recompiled", self.recompiles),
            ("eager", self.eager_calls),
            ("short of memory", self.out_of_memory),
        )
        return (*found, *(f"{count} {word}" for word, count in counted if count))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        times = {"since": self.since.isoformat(), "last": self.last.isoformat()}
        return asdict(self) | times | {"trouble": list(self.trouble)}


_BUCKET = 1.09
"""Latencies are counted in buckets of this width, and the upper end is shown."""


def live_calls(
    windows: Iterable[Window], promotions: Sequence[PromotionRecord], *, since: datetime
) -> tuple[LiveCalls, ...]:
    """One row per symbol, settings and environment of windows which ended after ``since``, busiest first.

    So the same settings of two engines are two rows. A window that is given twice, as it waits and as it is stored,
    counts once.
    """
    merged: dict[tuple[str, str, str], Window] = {}
    for window in {_identity(each): each for each in windows}.values():
        key = window.symbol, window.settings_key, window.environment_fingerprint
        if window.calls and window.window_end > since:
            merged[key] = _merged(merged[key], window) if key in merged else window
    known = {
        (record.symbol, record.settings_key, record.environment_fingerprint): record  # the newest stays
        for record in promotions
    }
    rows = [_row(window, known.get(key)) for key, window in merged.items()]
    return tuple(sorted(rows, key=lambda row: (-row.calls_per_second, row.symbol, row.settings)))


def live_table(rows: Sequence[LiveCalls]) -> Table:
    """The rows for people: what was promised stands beside what is seen, and trouble is said in words."""
    table = bare_table(
        "symbol",
        "settings",
        "calls",
        "calls/s",
        "p50 ms",
        "promised",
        "p99 ms",
        "promised",
        "seen to",
        "trouble",
    )
    for row in rows:
        cells = (
            row.symbol,
            plain(row.settings),
            f"{row.calls:,}",
            f"{row.calls_per_second:,.1f}",
            f"{row.p50_ms:,.2f}",
            _ms(row.promised_p50_ms),
            f"{row.p99_ms:,.2f}",
            _ms(row.promised_p99_ms),
            f"{row.last:%H:%M:%S}",
            "; ".join(row.trouble),
        )
        table.add_row(*map(Text, cells), style="bold red" if row.trouble else "")
    return table


def _identity(window: Window) -> tuple[object, ...]:
    times = window.window_start, window.window_end, window.longest_ms
    return window.symbol, window.settings_key, window.environment_fingerprint, window.calls, *times


def _merged(one: Window, other: Window) -> Window:
    """Both windows as one; their times span what they cover."""
    summed = {
        name: getattr(one, name) + getattr(other, name)
        for name in ("recompiles", "eager_calls", "limit_hits", "out_of_memory")
    }
    return replace(
        one,
        window_start=min(one.window_start, other.window_start),
        window_end=max(one.window_end, other.window_end),
        longest_ms=max(one.longest_ms, other.longest_ms),
        buckets=Counter(one.buckets) + Counter(other.buckets),
        **summed,
    )


def _row(window: Window, promotion: PromotionRecord | None) -> LiveCalls:
    promised = (None, None) if promotion is None else _promised(promotion.evidence_json)
    settings = None if promotion is None else read_settings(promotion.settings_json)
    covered = (window.window_end - window.window_start).total_seconds()
    return LiveCalls(
        symbol=window.symbol,
        settings=f"key {window.settings_key[:12]}" if settings is None else settings.label,
        since=window.window_start,
        last=window.window_end,
        calls=window.calls,
        calls_per_second=window.calls / max(covered, 1e-3),
        p50_ms=window.quantile_ms(0.5),
        p99_ms=window.quantile_ms(0.99),
        longest_ms=window.longest_ms,
        promised_p50_ms=promised[0],
        promised_p99_ms=promised[1],
        recompiles=window.recompiles,
        eager_calls=window.eager_calls,
        out_of_memory=window.out_of_memory,
    )


def _promised(evidence_json: str) -> tuple[float | None, float | None]:
    try:
        return figures_from_json(evidence_json).promised_ms
    except FiguresError:  # `autotune list` says it
        return None, None


def _ms(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.2f}"
