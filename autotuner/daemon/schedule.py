"""When the daemon ticks: a cron schedule in a time zone, with jitter; a tick that was missed is skipped."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from autotuner.errors import UsageError


def parse_zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises ``UsageError``."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"time zone {name!r} is not known: use an IANA name such as America/New_York"
        ) from None


def next_tick(schedule: str, after: datetime, zone: ZoneInfo) -> datetime:
    """The first time after ``after`` (aware) that ``schedule`` names in ``zone``, in UTC.

    Debian's rules for daylight saving: a time that does not exist comes right after the gap, one that exists
    twice comes once (cronsim). Always reckoned from now, so that ticks missed in the meantime are skipped.
    Raises ``UsageError``.
    """
    try:
        return next(CronSim(schedule, after.astimezone(zone))).astimezone(UTC)
    except (CronSimError, StopIteration):
        raise UsageError(
            f"schedule {schedule!r}: must be minute, hour, day of month, month, day of week of a day that there is, "
            "such as '17 3 * * *'"
        ) from None


def jitter(tick: datetime, seconds: float, owner: str) -> timedelta:
    """Up to ``seconds`` that belong to ``tick`` and ``owner``: the same each time, so that a restart keeps it."""
    digest = hashlib.sha256(f"{owner} {tick.isoformat()}".encode()).digest()
    return timedelta(seconds=seconds * int.from_bytes(digest[:4]) / 2**32)
