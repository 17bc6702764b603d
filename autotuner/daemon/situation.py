"""What is known of a symbol that speaks for or against tuning it: store, telemetry, prices and model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from autotuner.daemon.plan import Due
from autotuner.daemon.prices_seen import Prices
from autotuner.daemon.triggers import LiveWindow, Reason, Situation
from autotuner.environment import Environment
from autotuner.serving.failures import failures
from autotuner.serving.note_values import Shape
from autotuner.serving.resolution import SAFE
from autotuner.serving.spool import FELL_BACK, Note, Recheck, Window
from autotuner.store import Promotion, Store
from autotuner.workload import Workload
from toto_core.series import available_symbols
from toto_core.settings import RuntimeSettings

DAY = timedelta(days=1)
FOREIGN_SHARE = 0.2
"""Share of calls with another shape than the workload's from which on the mix has shifted."""
_FEWEST_CALLS = 100


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the store, production's notes, the prices and the model say of a symbol at one moment.

    ``last_ended`` is when its last run ended. All else is of its active promotion: ``ours`` are the notes of the
    promoted configuration, ``before`` those of the one before while it is a canary, ``fell_back`` windows of
    calls in eager mode because it failed; ``confirmed`` is when runs left it in place.
    ``measured`` and ``present`` are the prices it was measured on and those there are now.
    """

    symbol: str
    promotion: Promotion | None
    environment: Environment
    now: datetime
    last_ended: datetime | None
    ours: Sequence[Note] = ()
    before: Sequence[Note] = ()
    fell_back: Sequence[Note] = ()
    confirmed: Sequence[datetime] = ()
    measured: Prices | None = None
    present: Prices | None = None
    tried_on_present: bool = False
    model_changed: str | None = None

    @property
    def unseen_since(self) -> datetime | None:
        """When the configuration last saw its day's prices; None when it was measured on those that are there now."""
        if self.promotion is None or self.tried_on_present or self._rechecks_on_present:
            return None
        return max((each.window_start for each in self._rechecks), default=self.promotion.promoted_at)

    def without_windows(self) -> Observed:
        """The same without what production noted, to be held while thousands of others are looked at."""
        return replace(self, ours=tuple(self._rechecks), before=(), fell_back=())

    @cached_property
    def situation(self) -> Situation:
        """The same, as the triggers read it."""
        if self.promotion is None:
            return Situation(promotion=None, environment=self.environment, now=self.now)
        promised_p50_ms, promised_p99_ms = self.promotion.figures.promised_ms
        return Situation(
            promotion=self.promotion,
            environment=self.environment,
            now=self.now,
            tuned_at=max(self.confirmed, default=None),
            promised_p50_ms=promised_p50_ms,
            promised_p99_ms=promised_p99_ms,
            model_changed=self.model_changed,
            workload_shifted=_other_shapes(self.ours, self.promotion.workload),
            bucket=_power(self.present),
            promoted_bucket=_power(self.measured),
            windows=live_windows(self.ours),
            failures=failures([*self.ours, *self.fell_back]),
            broken=self._broken,
        )

    def due(self, reasons: tuple[Reason, ...], *, seconds: float) -> Due:
        """The symbol with its reasons, for the plan; a run of it may take ``seconds``."""
        windows, promised_ms = self.situation.windows, self.situation.promised_p50_ms
        days = max((self.now - self.promotion.promoted_at) / DAY, 1 / 24) if self.promotion else 1.0
        return Due(
            symbol=self.symbol,
            reasons=reasons,
            calls_per_day=sum(window.calls for window in windows) / days,
            excess_ms=windows[-1].p50_ms - promised_ms if windows and promised_ms else 0.0,
            last_ended=self.last_ended,
            fruitless=len(self.confirmed),
            seconds=seconds,
        )

    @property
    def _broken(self) -> Sequence[str]:
        """What the newest recheck broke, also where prices have come since; nothing once a run has looked again."""
        told = [each for each in self._rechecks if not each.failed]
        if not told or (self.present is not None and self.tried_on_present):
            return ()
        looked_again = max(self.confirmed, default=None)
        return () if looked_again is not None and looked_again > told[-1].window_end else told[-1].broken

    @property
    def _rechecks(self) -> list[Recheck]:
        return [note for note in self.ours if isinstance(note, Recheck)]

    @property
    def _rechecks_on_present(self) -> list[Recheck]:
        digest = None if self.present is None else self.present.digest
        return [each for each in self._rechecks if each.series_digest == digest and not each.failed]


def notes_of(notes: Sequence[Note], promotion: Promotion, settings: RuntimeSettings) -> list[Note]:
    """The notes about ``settings`` on the environment of ``promotion``, in the order given."""
    wanted = settings.key, promotion.environment.fingerprint
    return [note for note in notes if (note.settings_key, note.environment_fingerprint) == wanted]


def fell_back_of(notes: Sequence[Note], promotion: Promotion) -> list[Note]:
    """The windows of calls that were made in eager mode because the promoted settings had failed."""
    return [each for each in notes_of(notes, promotion, SAFE) if (each.source or "").startswith(FELL_BACK)]


def live_windows(notes: Sequence[Note]) -> list[LiveWindow]:
    """What the windows among ``notes`` say of calls, where there were any."""
    return [
        LiveWindow(
            calls=note.calls,
            p50_ms=note.quantile_ms(0.5),
            p99_ms=note.quantile_ms(0.99),
            recompiles=note.recompiles,
            limit_hits=note.limit_hits,
            eager_calls=note.eager_calls,
        )
        for note in notes
        if isinstance(note, Window) and note.calls
    ]


def _other_shapes(notes: Sequence[Note], workload: Workload) -> str | None:
    """Which requests production makes that the workload does not name, None when they are few."""
    known = {(s.context_length, s.prediction_length, s.num_samples or 0) for s in workload.shapes}
    counts = sum((Counter(each.shapes) for each in notes if isinstance(each, Window)), Counter[Shape]())
    total = counts.total()
    foreign = Counter({shape: calls for shape, calls in counts.items() if shape not in known})
    if total < _FEWEST_CALLS or foreign.total() < FOREIGN_SHARE * total:
        return None
    name = "/".join(map(str, foreign.most_common(1)[0][0]))
    return f"{foreign.total() / total:.0%} of calls are of other shapes, most of them {name}"


def _power(prices: Prices | None) -> int | None:
    """The power of two that a series has reached."""
    return 1 << math.floor(math.log2(prices.points)) if prices and prices.points > 0 else None


def symbols_to_keep(store: Store, data: Path | None) -> tuple[str, ...]:
    """The symbols of the store, which know their own prices, and those of ``data``; the samples where there are none.

    Raises ``SeriesError`` when ``data`` cannot be listed, and ``StorageError``.
    """
    known = {record.symbol for record in store.records.active_promotions()}
    given = () if data is None and known else available_symbols(data)
    return tuple(sorted({*known, *given}))
