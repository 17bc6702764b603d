"""How old a fetched snapshot is, in words."""

from __future__ import annotations

from datetime import UTC

from storage.masking import masked_address
from storage.origin import Origin

_STEPS = ((172_800, 86_400, "days"), (7_200, 3_600, "h"), (120, 60, "min"), (0, 1, "s"))


def age_text(seconds: float) -> str:
    """Such as ``"3 h"``; of two units the smaller up to its double."""
    seconds = max(0.0, seconds)
    _, unit, name = next(step for step in _STEPS if seconds >= step[0])
    return f"{seconds / unit:.0f} {name}"


def origin_text(origin: Origin, now: float) -> str:
    """Such as ``"3 h old (2026-05-04 09:12 UTC, from s3://desk/autotune)"``, and whether that is too old."""
    moment = f"{origin.as_of.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    text = f"{age_text(origin.age_s(now))} old ({moment}, from {masked_address(origin.source)})"
    return f"{text}, older than the {age_text(origin.max_age_s)} it may be" if origin.is_old(now) else text
