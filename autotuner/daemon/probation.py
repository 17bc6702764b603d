"""Whether a promotion is taken back because production says so: a pure decision with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from autotuner.daemon.triggers import Kind, Reason
from autotuner.persistence import Promotion

PROBATION = timedelta(days=1)
"""How long after its promotion a regression is blamed on the new settings rather than on the world."""
UNSAFE: tuple[Kind, ...] = ("quarantine", "drift")
"""Triggers that say the settings themselves are unsafe, whenever they were promoted."""


def why_roll_back(
    promotion: Promotion, reasons: Sequence[Reason], *, now: datetime, has_previous: bool
) -> str | None:
    """Why ``promotion`` is taken out of use, None when it stays.

    Settings that fail in production, or whose forecasts broke a limit on fresh prices, always go: what is left is
    the promotion before them, or the safe default.
    Latency past the promise and recompiles take back what is still on probation and has a predecessor;
    afterwards they are reasons to tune, because the predecessor is no better known.
    """
    for reason in reasons:
        if reason.kind in UNSAFE:
            return reason.text
        on_probation = now - promotion.promoted_at < PROBATION
        if reason.kind in ("latency", "recompiles") and on_probation and has_previous:
            return reason.text
    return None
