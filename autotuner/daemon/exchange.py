"""An exchange's trading hours as a quiet window; needs the ``calendar`` extra (exchange_calendars)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from autotuner.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ExchangeHours:
    """The hours in which an exchange (``XNYS``) is open, its holidays and half days observed."""

    name: str
    calendar: Any

    def holds(self, now: datetime) -> bool:
        """Whether the exchange is open at ``now``, an aware time; a time beyond the calendar counts as open."""
        import pandas as pd

        with _quiet(), contextlib.suppress(ValueError):
            return bool(self.calendar.is_open_on_minute(pd.Timestamp(now).floor("min"), ignore_breaks=True))
        return True

    def __str__(self) -> str:
        return f"{self.name} is open"


def exchange_hours(name: str) -> ExchangeHours:
    """The hours of an exchange by its ISO 10383 code. Raises ``UsageError``."""
    try:
        import exchange_calendars
    except ImportError:
        raise UsageError("daemon.calendar needs the extra: pip install 'toto-autotune[calendar]'") from None
    try:
        with _quiet():
            return ExchangeHours(name=name, calendar=exchange_calendars.get_calendar(name))
    except exchange_calendars.errors.InvalidCalendarName:
        raise UsageError(f"daemon.calendar {name!r}: no such exchange; XNYS is New York's") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library uses what pandas deprecates; that is its affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
