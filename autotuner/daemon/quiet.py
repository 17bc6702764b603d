"""When the daemon must not measure: quiet windows in local time, and a machine that others keep busy."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from autotuner.errors import UsageError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIMES = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class QuietWindow:
    """A stretch of wall-clock time on some days (0 is Monday) in one time zone; it may pass midnight.

    A window that passes midnight belongs to the day it begins on. ``begin`` equal to ``end`` is the whole day.
    """

    begin: time
    end: time
    days: frozenset[int]
    zone: ZoneInfo

    def holds(self, now: datetime) -> bool:
        """Whether ``now``, an aware time, lies in the window; ``end`` does not."""
        local = now.astimezone(self.zone)
        if self.begin < self.end:
            return local.weekday() in self.days and self.begin <= local.time() < self.end
        yesterday = (local - timedelta(days=1)).weekday()
        late, early = local.time() >= self.begin, local.time() < self.end
        return (late and local.weekday() in self.days) or (early and yesterday in self.days)

    def __str__(self) -> str:
        days = ",".join(DAYS[day] for day in sorted(self.days))
        return f"{self.begin:%H:%M}-{self.end:%H:%M} {days} {self.zone.key}"


@dataclass(frozen=True, kw_only=True)
class ExchangeHours:
    """The hours in which an exchange (``XNYS``) is open, its holidays and half days observed."""

    name: str
    calendar: Any

    def holds(self, now: datetime) -> bool:
        """Whether the exchange is open at ``now``, an aware time; a time beyond the calendar counts as open."""
        import pandas as pd

        with warnings.catch_warnings(action="ignore"), contextlib.suppress(ValueError):
            return bool(self.calendar.is_open_on_minute(pd.Timestamp(now).floor("min"), ignore_breaks=True))
        return True

    def __str__(self) -> str:
        return f"{self.name} is open"


Quiet = QuietWindow | ExchangeHours


def parse_quiet(text: str, zone: ZoneInfo) -> QuietWindow:
    """Read ``"09:30-16:00 mon-fri"``; without days every day. Raises ``UsageError``."""
    times, _, days = text.strip().partition(" ")
    found = _TIMES.fullmatch(times)
    try:
        if found is None:
            raise ValueError("times")
        begin_hour, begin_minute, end_hour, end_minute = map(int, found.groups())
        begin = time(begin_hour, begin_minute)
        end = time(0) if (end_hour, end_minute) == (24, 0) else time(end_hour, end_minute)
        return QuietWindow(begin=begin, end=end, days=_days(days.strip().lower()), zone=zone)
    except ValueError:
        raise UsageError(
            f"quiet window {text!r}: must be like '09:30-16:00 mon-fri' or '22:00-02:00 sat,sun'"
        ) from None


def why_quiet(now: datetime, windows: Sequence[Quiet]) -> str | None:
    """The window that ``now`` lies in, in a few words, None when measuring is allowed."""
    return next((f"quiet: {window}" for window in windows if window.holds(now)), None)


def why_busy(load: float, cpus: int, ceiling: float) -> str | None:
    """Why the machine is too busy to measure on, None when it is not.

    ``load`` is the load average, ``ceiling`` the share of ``cpus`` from which on it is too much.
    """
    too_much = load > ceiling * cpus
    return f"load {load:.1f} on {cpus} CPUs is above the ceiling of {ceiling:.0%}" if too_much else None


def _days(text: str) -> frozenset[int]:
    if not text:
        return frozenset(range(len(DAYS)))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        begin, end = DAYS.index(first), DAYS.index(last if dash else first)
        found.update((begin + day) % len(DAYS) for day in range((end - begin) % len(DAYS) + 1))
    return frozenset(found)


def exchange_hours(name: str) -> ExchangeHours:
    """The hours of an exchange by its ISO 10383 code. Raises ``UsageError``."""
    try:
        import exchange_calendars
    except ImportError:
        raise UsageError("daemon.calendar needs the extra: pip install 'toto-autotune[calendar]'") from None
    try:
        with warnings.catch_warnings(action="ignore"):  # it uses what pandas deprecates
            return ExchangeHours(name=name, calendar=exchange_calendars.get_calendar(name))
    except exchange_calendars.errors.InvalidCalendarName:
        raise UsageError(f"daemon.calendar {name!r}: no such exchange; XNYS is New York's") from None
