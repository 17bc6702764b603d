"""Times for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """``seconds`` after noon of 4 May 2026, UTC."""
    return START + timedelta(seconds=seconds)
