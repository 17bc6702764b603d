"""When the settings of a symbol are measured again on prices they have not seen, and what came of it so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from autotuner.commands.recheck import RECHECK
from autotuner.store import Promotion
from storage.records import TelemetryRecord


@dataclass(frozen=True, kw_only=True)
class Rechecked:
    """One recheck of a promotion: when it began, on which prices, and the limits it found broken.

    One that ``failed`` measured nothing; it counts for when the next one is due, and for the budget.
    """

    begun: datetime
    series_digest: str
    broken: tuple[str, ...]
    failed: bool


def rechecks_of(records: Sequence[TelemetryRecord], promotion: Promotion) -> list[Rechecked]:
    """The rechecks of a promotion's settings among what is stored of its symbol, oldest first."""
    found = []
    for record in records:
        note = json.loads(record.payload_json)
        ours = (note.get("settings_key"), note.get("environment_fingerprint"))
        if note.get("kind") == RECHECK and ours == (
            promotion.settings.key,
            promotion.environment.fingerprint,
        ):
            found.append(
                Rechecked(
                    begun=record.window_start,
                    series_digest=note["series_digest"],
                    broken=tuple(note["broken"]),
                    failed=note["failed"] is not None,
                )
            )
    return found


def recheck_seconds(records: Sequence[TelemetryRecord]) -> float:
    """Seconds that rechecks of any symbol took."""
    return sum(
        (record.window_end - record.window_start).total_seconds()
        for record in records
        if json.loads(record.payload_json).get("kind") == RECHECK
    )


def why_not_recheck(
    unseen_since: datetime | None, *, now: datetime, every: timedelta, seconds: float, left: float
) -> str | None:
    """Why a recheck that may take ``seconds`` is not due, None when it is.

    ``unseen_since`` is when the settings last saw the prices of their day, None when they have seen those that
    are there now; ``every`` is how long they are then left alone, zero for ever; ``left`` what the day's budget
    still holds.
    """
    if unseen_since is None:
        return "its settings have seen these prices"
    if not every:
        return "rechecks are switched off"
    if now < unseen_since + every:
        return f"rechecked or promoted less than {every} ago"
    return f"the day's budget has {max(0.0, left):.0f} of {seconds:.0f} s left" if seconds > left else None
