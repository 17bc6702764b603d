"""The plan of a duel, its arms, its result and its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from autotuner.figures import Figures
from autotuner.measurement.outcome import Interval
from autotuner.measurement.stopping import spending_confidences
from toto_core.settings import RuntimeSettings

VERDICTS = ("better", "same", "worse", "ambiguous")


@dataclass(frozen=True, kw_only=True)
class DuelPlan:
    """How a duel is fought.

    Stage 1 takes up to ``stage1_launches``. ``finalists_blocks`` and ``blocks`` are timed blocks per arm and
    launch of stage 1 and 2: where a pair of calls differs by 14 % and launches by 1.5 %, five launches of
    24 blocks see a gain of 10 % nineteen times in twenty, of 12 blocks seventeen times (simulated). Stage 2
    takes ``stage2_launches`` where the time allows, and settles nothing on fewer than ``minimum_launches``.
    The gain is checked ``checks`` times, evenly spread between the two, all checks together wrong at most
    ``alpha`` of the time. An early check ends the duel when its verdict is in ``early``: by default what is
    promoted has had every launch there was time for. ``gain`` is the least lower bound of *better*, ``equal`` the
    half-width of *same*. Raises ``ValueError``.
    """

    stage1_launches: int = 16
    finalists_blocks: int = 16
    blocks: int = 24
    stage2_launches: int = 5
    minimum_launches: int = 3
    checks: int = 3
    gain: float = 0.03
    equal: float = 0.03
    alpha: float = 0.05
    early: tuple[str, ...] = ("same", "worse")

    def __post_init__(self) -> None:
        if min(self.stage1_launches, self.finalists_blocks, self.blocks, self.checks) < 1:
            raise ValueError("duel: launches, blocks and checks must be at least 1")
        if not 2 <= self.minimum_launches <= self.stage2_launches:
            raise ValueError(
                f"duel: needs 2 <= minimum_launches <= stage2_launches, not {self.minimum_launches} "
                f"and {self.stage2_launches}"
            )
        if not (0 < self.gain < 1 and 0 < self.equal < 1 and 0 < self.alpha < 1):
            raise ValueError("duel: gain, equal and alpha must lie between 0 and 1")
        if not set(self.early) <= set(VERDICTS):
            raise ValueError(f"duel: early must name verdicts of {', '.join(VERDICTS)}, not {self.early}")

    @property
    def checked_after(self) -> tuple[int, ...]:
        """Numbers of launches after which the gain is checked, rising to ``stage2_launches``."""
        first, last = self.minimum_launches, self.stage2_launches
        # From the last one back, so that a single check is of all launches.
        spread = np.linspace(last, first, min(self.checks, last - first + 1)).round()
        return tuple(sorted(int(launches) for launches in spread))

    def confidence(self, launches: int) -> float:
        """Confidence level of the interval after ``launches``: that of the first check not before it."""
        checks = self.checked_after
        levels = spending_confidences(len(checks), self.alpha, tuple(check / checks[-1] for check in checks))
        return levels[sum(check < min(launches, checks[-1]) for check in checks)]

    def verdict(self, gain: Interval, launches: int) -> str:
        """One of ``VERDICTS``; *ambiguous* on fewer than ``minimum_launches``."""
        if launches < self.minimum_launches:
            return "ambiguous"
        return decide_gain(gain, gain_needed=self.gain, equal=self.equal)


@dataclass(frozen=True, kw_only=True)
class DuelArm:
    """A configuration with what the search knows of it: start in milliseconds, and the factor for MAE drift."""

    settings: RuntimeSettings
    start_ms: float = 0.0
    drift_factor: float = 1.0

    def __post_init__(self) -> None:
        if not (self.start_ms >= 0 and self.drift_factor > 0):
            raise ValueError(
                f"duel: {self.settings.label}: start_ms {self.start_ms} must be 0 or more and "
                f"drift_factor {self.drift_factor} above 0"
            )


@dataclass(frozen=True, kw_only=True)
class DuelLook:
    """What stage 2 shows after ``launch`` of ``launches``: the gain so far, and the verdict if it ended there."""

    launch: int
    launches: int
    verdict: str
    gain: Interval

    def __str__(self) -> str:
        return f"stage 2: after launch {self.launch} of {self.launches}: {self.verdict}, gain {self.gain}"


@dataclass(frozen=True, kw_only=True)
class DuelResult:
    """How a duel ended.

    ``gain`` is 1 - score(challenger) / score(opponent), its interval at the confidence of the check that ended
    the duel, so that all checks together keep 95 %; None on fewer than two launches. ``figures`` are what the
    launches that counted measured of challenger, opponent and reference, empty on fewer than two; their ratio
    leaves sigma and start out. ``reason`` says what settled the verdict when the gain did not, empty otherwise.
    """

    challenger: RuntimeSettings
    opponent: RuntimeSettings
    verdict: str
    gain: Interval | None = None
    launches: int = 0
    short_of_launches: bool = True
    figures: Mapping[RuntimeSettings, Figures] = field(default_factory=dict)
    reason: str = ""
    detail: tuple[str, ...] = ()


def decide_gain(gain: Interval, *, gain_needed: float, equal: float) -> str:
    """One of ``VERDICTS``: *better* from the lower bound, *same* from the whole interval, *worse* below 0."""
    if gain.low >= gain_needed:
        return "better"
    if -equal <= gain.low and gain.high <= equal:
        return "same"
    return "worse" if gain.high < 0 else "ambiguous"
