"""One tick of the daemon: takes in telemetry, takes back what regressed, and tunes what is due."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from autotuner.commands.recheck import keep, nothing_measured
from autotuner.daemon.config import Config
from autotuner.daemon.intake import Log, say_once, take_in
from autotuner.daemon.jobs import RECHECK_SECONDS, recheck_job, run_job
from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.observing import DigestOf, Observer, digests
from autotuner.daemon.places import Job, Machine, Place
from autotuner.daemon.plan import Due, Plan, plan
from autotuner.daemon.prices_seen import SeenPrices
from autotuner.daemon.quiet import Quiet, why_busy, why_quiet
from autotuner.daemon.situation import Observed
from autotuner.daemon.spent import Budget
from autotuner.daemon.stored import Stored
from autotuner.daemon.take_back import ASKING, UNSAFE, settle_canary, take_back
from autotuner.daemon.ticked import Ticked
from autotuner.daemon.triggers import Reason, reasons
from autotuner.errors import AutotuneError
from autotuner.paths import spool_folder
from autotuner.record_mapping import stored_of
from autotuner.serving.note_files import owners_of
from autotuner.store import Promotion, Store
from storage.errors import StoreCorrupt


class Round(NamedTuple):
    """What one tick looks at symbols with, and what it may spend."""

    looks: Observer
    budget: Budget


@dataclass(kw_only=True)
class _Visit:
    """What came of a symbol in a place.

    ``due`` is what is due of it, ``unsafe`` why its promotion was taken out of use; ``to_recheck`` is how it was seen
    where its promotion may have to be rechecked.
    """

    due: Due | None
    unsafe: Sequence[Reason] = ()
    to_recheck: Observed | None = None
    rechecked: bool = False


Visits = dict[tuple[str, Place], _Visit]


@dataclass(frozen=True, kw_only=True)
class Ticker:
    """Everything a tick needs; ``log`` gets an event's name and its fields."""

    store: Store
    config: Config
    symbols: Sequence[str]
    quiet: Sequence[Quiet]
    machine: Machine
    log: Log
    prices: SeenPrices = field(default_factory=SeenPrices)

    def tick(self) -> Ticked:
        """One round over all symbols. Raises ``StorageError`` when the store fails."""
        now, location = self.machine.now(), self.store.location
        spool, owners = spool_folder(location), owners_of(location)
        intake = take_in(self.store.records, spool, self.log, now=now, owners=owners)
        budget = Budget(self.store, self.config.daemon.budget_seconds_per_day, self.machine.now, self.log)
        places = self.machine.places()
        digest_of = digests()
        rounds = {place: Round(self._looks(place, places, now, digest_of), budget) for place in places}
        visits: Visits = {
            (symbol, place): visit
            for place, this in rounds.items()
            for symbol, stored in this.looks.together(self.symbols)
            if (visit := self._visit_alone(symbol, place, stored, this))
        }
        self._recheck(visits, rounds, budget)
        due = [each.due for each in visits.values() if each.due is not None]
        cool_down = timedelta(hours=self.config.daemon.cool_down_hours)
        chosen = plan(due, now=now, left_seconds=budget.left(), cool_down=cool_down)
        tuned, failed, held = self._tune(chosen, {place.name: place for place in places if not place.is_away})
        for left_out in self.store.records.damage:
            say_once(self.log, "damaged", (str(left_out),), symbol=left_out.symbol, reason=str(left_out))
        return Ticked(
            intake=intake,
            rechecked=tuple(place.of(symbol) for (symbol, place), each in visits.items() if each.rechecked),
            rolled_back=tuple(place.of(symbol) for (symbol, place), each in visits.items() if each.unsafe),
            tuned=tuple(tuned),
            failed=tuple(failed),
            unreadable=tuple(
                place.of(symbol)
                for place in rounds
                for symbol in self.symbols
                if (symbol, place) not in visits
            ),
            skipped=chosen.skipped,
            held=held,
        )

    def _looks(self, place: Place, others: Sequence[Place], now: datetime, digest_of: DigestOf) -> Observer:
        return Observer(
            store=self.store,
            config=self.config,
            place=place,
            others=others,
            digest_of=digest_of,
            now=now,
            log=self.log,
            prices=self.prices,
        )

    def _visit_alone(self, symbol: str, place: Place, stored: Stored | None, this: Round) -> _Visit | None:
        """Visit a symbol, so that whatever is wrong with it holds up no other; None where something is."""
        try:
            with stored_of(symbol):
                return self._visit(symbol, place, stored, this)
        except (AutotuneError, StoreCorrupt) as error:
            self._log("unreadable", symbol, place, reason=str(error))
            return None

    def _visit(self, symbol: str, place: Place, stored: Stored | None, this: Round) -> _Visit:
        """Settle and take back what is to be.

        What is done to a symbol is decided by a look at it alone, then and there: what was read of many together may
        be minutes old.
        """
        looks = this.looks
        glanced = None if stored is None else looks.glance(symbol, stored)
        if glanced is not None and not self._is_at_stake(glanced, this):
            return _Visit(due=self._due(glanced, place, ()))
        observed = looks.alone(symbol)
        if settle_canary(self.store, observed, looks.now, self._log_of(place)):
            observed = looks.alone(symbol)
        observed, unsafe = self._take_back(observed, looks)
        to_recheck = None if place.is_away else observed.without_windows()
        return _Visit(due=self._due(observed, place, unsafe), unsafe=unsafe, to_recheck=to_recheck)

    def _is_at_stake(self, observed: Observed, this: Round) -> bool:
        """Whether there may be a canary to settle, a promotion to take back, or one to recheck."""
        promotion = observed.promotion
        if promotion is None:
            return False
        return (
            promotion.figures.canary is not None
            or any(reason.kind in ASKING for reason in self._reasons(observed))
            or self._may_recheck(observed, promotion, this.looks.now, this.budget.at_most, 0)
        )

    def _due(self, observed: Observed, place: Place, unsafe: Sequence[Reason]) -> Due | None:
        # What was unsafe stays the reason to tune: without it the ledger would say "never tuned".
        carried = tuple(reason for reason in unsafe if reason.kind in UNSAFE)
        found = carried or self._reasons(observed)
        if not found or place.is_away:
            return None
        return replace(observed.due(found, seconds=self.config.daemon.run_seconds), place=place.name)

    def _reasons(self, observed: Observed) -> tuple[Reason, ...]:
        return reasons(observed.situation, timedelta(days=self.config.daemon.max_age_days))

    def _take_back(self, observed: Observed, looks: Observer) -> tuple[Observed, tuple[Reason, ...]]:
        """What holds afterwards, and the reasons for which the promotion was taken out of use, none when it stays."""
        found = self._reasons(observed)
        if not take_back(self.store, observed, found, looks.now, self._log_of(looks.place)):
            return observed, ()
        try:
            with stored_of(observed.symbol):
                return looks.alone(observed.symbol), found
        except AutotuneError:  # what is active now cannot be read, which the next tick says
            return observed, found

    def _recheck(self, visits: Visits, rounds: Mapping[Place, Round], budget: Budget) -> None:
        """Measure what is promoted on prices that it had not seen, and take back what no longer holds."""
        begun: dict[Job, datetime] = {}

        def wanted() -> Iterator[Job]:
            for (_, place), visit in tuple(visits.items()):
                observed, visit.to_recheck = visit.to_recheck, None
                if observed is None or observed.promotion is None:
                    continue
                promotion, now = observed.promotion, rounds[place].looks.now
                if self._may_recheck(observed, promotion, now, budget.left, len(begun)):
                    job = recheck_job(self.config, promotion, place)
                    begun[job] = self.machine.now()
                    promotions[job] = promotion
                    yield job

        promotions: dict[Job, Promotion] = {}
        for job, result in self.machine.measure(wanted()):
            since = max(begun.pop(job), self.machine.now() - timedelta(seconds=job.seconds))
            about = job.symbol, job.place
            try:
                with stored_of(job.symbol):
                    if self._is_rechecked(job, result, promotions.pop(job), since):
                        visits[about] = self._after_recheck(visits[about], *about, rounds[job.place].looks)
            except AutotuneError as error:
                self._log("unreadable", *about, reason=str(error))
                del visits[about]

    def _is_rechecked(self, job: Job, result: Tuned, promotion: Promotion, begun: datetime) -> bool:
        if result.document is not None:
            self._log("rechecked", job.symbol, job.place, **result.document)
            return True
        self._log("failed", job.symbol, job.place, reason=result.cause)
        # What never began, or a signal or a quiet window ended, is tried again soon.
        if result.began and self._held() is None:
            keep(self.store, nothing_measured(promotion, result.cause, begun, self.machine.now()))
        return False

    def _after_recheck(self, visit: _Visit, symbol: str, place: Place, looks: Observer) -> _Visit:
        observed, found = self._take_back(looks.alone(symbol), looks)
        unsafe = found or visit.unsafe
        return _Visit(due=self._due(observed, place, unsafe), unsafe=unsafe, rechecked=True)

    def _may_recheck(
        self,
        observed: Observed,
        promotion: Promotion,
        now: datetime,
        left: Callable[[], float],
        under_way: int,
    ) -> bool:
        daemon = self.config.daemon
        if not daemon.recheck_hours or observed.unseen_since is None:
            return False
        if now < observed.unseen_since + timedelta(hours=daemon.recheck_hours) or self._held() is not None:
            return False
        if observed.environment.differences(promotion.environment):
            return False
        # Rechecks must leave the day's budget one run: what they find unsafe is to be tuned.
        return RECHECK_SECONDS * (1 + under_way) + daemon.run_seconds <= left()

    def _tune(self, chosen: Plan, places: Mapping[str, Place]) -> tuple[list[str], list[str], str | None]:
        tuned: list[str] = []
        failed: list[str] = []
        held: str | None = None
        left = [places[due.place].of(due.symbol) for due in chosen.chosen]

        def wanted() -> Iterator[Job]:
            for due in chosen.chosen:
                if self._held() is not None:
                    return
                job = self._job_alone(due, places[due.place])
                if job is not None:
                    yield job
                    continue
                name = places[due.place].of(due.symbol)
                failed.append(name)
                left.remove(name)

        for job, result in self.machine.measure(wanted()):
            name = job.place.of(job.symbol)
            (tuned if self._is_tuned_alone(job, result) else failed).append(name)
            left.remove(name)
        if left:
            held = self._held() or "nothing is measured any more"
            self.log("held", symbol=left[0], reason=held)
        elif not places:
            held = self._held()
        return tuned, failed, held

    def _held(self) -> str | None:
        stopping = self.machine.stopping()
        if stopping is not None:
            return stopping
        quiet = why_quiet(self.machine.now(), self.quiet)
        return quiet or why_busy(self.machine.load(), os.cpu_count() or 1, self.config.daemon.load_ceiling)

    def _job_alone(self, due: Due, place: Place) -> Job | None:
        why = "; ".join(reason.text for reason in due.reasons)
        try:
            with stored_of(due.symbol):
                job = run_job(self.config, due, place, why)
        except AutotuneError as error:
            self._log("failed", due.symbol, place, reason=str(error))
            return None
        self._log("tuning", due.symbol, place, reason=why)
        return job

    def _is_tuned_alone(self, job: Job, result: Tuned) -> bool:
        """Take in what a run came to, so that one whose document is none holds up no other."""
        try:
            with stored_of(job.symbol):
                return self._is_tuned(job, result)
        except AutotuneError as error:
            self._log("failed", job.symbol, job.place, reason=str(error))
            return False

    def _is_tuned(self, job: Job, result: Tuned) -> bool:
        if result.document is None:
            self._log("failed", job.symbol, job.place, reason=result.cause)
            return False
        promoted, decision = result.document["promoted"], result.document["decision"]
        repairs = result.document.get("series", {}).get("repairs")
        told = {"repairs": repairs} if repairs else {}
        self._log("tuned", job.symbol, job.place, promoted=promoted, **decision, **told)
        return True

    def _log_of(self, place: Place) -> Log:
        return lambda event, *, symbol, **fields: self._log(event, symbol, place, **fields)

    def _log(self, event: str, about: str, place: Place, **fields: Any) -> None:
        where = {"environment": place.name} if place.name else {}
        self.log(event, **{"symbol": about, **where, **fields})
