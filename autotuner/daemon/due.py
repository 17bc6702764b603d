"""Which of many symbols are due, by what the store says of all of them together: what ``autotune run --due`` asks."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from autotuner.daemon.triggers import Situation, reasons
from autotuner.engines.interpreters import environment_like
from autotuner.environment import Environment
from autotuner.record_mapping import Subjects, read_promotion
from autotuner.store import Promotion, Store
from storage.records import PromotionRecord, RunRecord
from storage.survey import RunRow


def confirmed(
    promotion: Promotion, rolled_back: Iterable[datetime], runs: Iterable[RunRecord | RunRow]
) -> tuple[datetime, ...]:
    """When runs of its symbol left ``promotion`` in place, since it or a roll-back to it made it active."""
    since = max((promotion.promoted_at, *rolled_back))
    same = promotion.profile, promotion.workload.signature, promotion.environment.fingerprint
    return tuple(
        run.finished_at
        for run in runs
        if run.status == "finished"
        and run.finished_at is not None
        and run.finished_at > since
        and run.run_id != promotion.run_id
        and (run.profile, run.workload_signature, run.environment_fingerprint) == same
    )


class Overdue:
    """What the store says of all symbols, read once. Methods raise ``StorageError`` and ``AutotuneError``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._subjects = Subjects(store.records)

    @functools.cached_property
    def _active(self) -> Mapping[str, Sequence[PromotionRecord]]:
        return _by_symbol(self._store.records.active_promotions())

    @functools.cached_property
    def _runs(self) -> Mapping[str, Sequence[RunRow]]:
        found: dict[str, list[RunRow]] = defaultdict(list)
        for run in self._store.records.run_rows():
            found[run.symbol].append(run)
        return found

    @functools.cached_property
    def _rolled_back(self) -> Mapping[tuple[str, str], Sequence[datetime]]:
        return self._store.records.roll_backs()

    def tuned_for(self, symbol: str, profile: str | None, here: Environment) -> tuple[Promotion, ...]:
        """What is active of a symbol for every profile and workload: in the environment ``here``, else the newest.

        Machines of several environments may share a store, and what one of them promotes is not due on another.
        ``profile`` None is any.
        """
        found: dict[tuple[str, str], Promotion] = {}
        for record in self._active.get(symbol, ()):
            if profile not in {None, record.profile}:
                continue
            key = record.profile, record.workload_signature
            promotion = read_promotion(record, self._subjects, self._store.location)
            before = found.get(key)
            if before is None or _is_of(promotion, here) or not _is_of(before, here):
                found[key] = promotion
        return tuple(found.values())

    def why(self, promotion: Promotion | None, *, environment: Environment, now: datetime) -> str | None:
        """Why a symbol is to be tuned, in a few words, None when it is not; without a promotion it never was."""
        tuned_at = None
        if promotion is not None:
            symbol = promotion.symbol
            taken_back = self._rolled_back.get((symbol, promotion.environment.fingerprint), ())
            ended = confirmed(promotion, taken_back, self._runs.get(symbol, ()))
            tuned_at = max(ended, default=None)
            environment = environment_like(promotion.environment, environment)
        situation = Situation(promotion=promotion, environment=environment, now=now, tuned_at=tuned_at)
        return next((reason.text for reason in reasons(situation)), None)


def _is_of(promotion: Promotion, here: Environment) -> bool:
    return environment_like(promotion.environment, here) == promotion.environment


def _by_symbol(records: Iterable[PromotionRecord]) -> dict[str, list[PromotionRecord]]:
    found: dict[str, list[PromotionRecord]] = defaultdict(list)
    for record in records:
        found[record.symbol].append(record)
    return found
