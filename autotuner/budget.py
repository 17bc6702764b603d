"""How the seconds of a run are shared out: between search and duel, and to each trial."""

from __future__ import annotations

DUEL_SHARE = 0.4
"""Share of the time kept for the duel: search figures only rank."""
LONGEST_TRIAL_SECONDS, SHORTEST_TRIAL_SECONDS = 150.0, 60.0


def search_seconds(left: float) -> float:
    """What the search may take of the seconds ``left``."""
    return max(0.0, left * (1 - DUEL_SHARE))


def trial_seconds(left: float) -> float:
    """What a trial may take of the seconds ``left``: half, so that one that hangs leaves time for others."""
    return min(LONGEST_TRIAL_SECONDS, left, max(left / 2, SHORTEST_TRIAL_SECONDS))
