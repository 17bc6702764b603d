"""One tick of the daemon: takes in telemetry, takes back what regressed, and tunes what is due."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from autotuner.commands.recheck import keep, nothing_measured
from autotuner.daemon.config import Config, price_arguments
from autotuner.daemon.intake import Intake, Log, say_once, take_in
from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.places import Job, Machine, Place
from autotuner.daemon.plan import Due, Plan, Skipped, plan
from autotuner.daemon.quiet import Quiet, why_busy, why_quiet
from autotuner.daemon.situation import Observed, observe
from autotuner.daemon.spent import spent_seconds
from autotuner.daemon.take_back import UNSAFE, settle_canary, take_back
from autotuner.daemon.triggers import Reason, reasons
from autotuner.errors import AutotuneError
from autotuner.paths import spool_folder
from autotuner.record_mapping import stored_of
from autotuner.serving.note_files import owners_of
from autotuner.store import Promotion, Store

RECHECK_SECONDS = 120.0
"""What a recheck may take: two processes start, and forecast some fifty windows each."""
SPARE_SECONDS = 60.0
"""A run may take this much longer than it was given before it is stopped: it stores and cleans up."""


@dataclass(kw_only=True)
class _Visit:
    """A symbol in a place: what is known of it, and why its promotion was taken out of use."""

    place: Place
    observed: Observed
    unsafe: tuple[Reason, ...] = ()
    rechecked: bool = False


@dataclass(frozen=True, kw_only=True)
class Ticked:
    """What a tick did."""

    intake: Intake
    rechecked: tuple[str, ...] = ()
    rolled_back: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    held: str | None = None

    def __str__(self) -> str:
        lists = {
            "rechecked": self.rechecked,
            "rolled back": self.rolled_back,
            "failed": self.failed,
            "unreadable": self.unreadable,
            "waiting": [each.symbol for each in self.skipped],
        }
        parts = [f"tuned {', '.join(self.tuned) or 'nothing'}"]
        parts += [f"{what} {', '.join(symbols)}" for what, symbols in lists.items() if symbols]
        parts += [f"held: {self.held}"] if self.held else []
        parts.append(f"{self.intake.telemetry} windows and {self.intake.quarantines} quarantines taken in")
        parts += [f"{self.intake.refused} notes refused"] if self.intake.refused else []
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Ticker:
    """Everything a tick needs; ``log`` gets an event's name and its fields."""

    store: Store
    config: Config
    symbols: Sequence[str]
    quiet: Sequence[Quiet]
    machine: Machine
    log: Log

    def tick(self) -> Ticked:
        """One round over all symbols in each place. Raises ``StorageError`` when the store fails."""
        now, location = self.machine.now(), self.store.location
        spool, owners = spool_folder(location), owners_of(location)
        intake = take_in(self.store.records, spool, self.log, now=now, owners=owners)
        places = {place.name: place for place in self.machine.places()}
        wanted = [(symbol, place) for place in places.values() for symbol in self.symbols]
        visits = {each: visit for each in wanted if (visit := self._visit_alone(*each, now))}
        self._recheck(visits, now)
        due = [each for visit in visits.values() if (each := self._due(visit)) is not None]
        cool_down = timedelta(hours=self.config.daemon.cool_down_hours)
        chosen = plan(due, now=now, left_seconds=self._left(now), cool_down=cool_down)
        tuned, failed, held = self._tune(chosen, places)
        for left_out in self.store.records.damage:
            say_once(self.log, "damaged", (str(left_out),), symbol=left_out.symbol, reason=str(left_out))
        return Ticked(
            intake=intake,
            rechecked=tuple(place.of(symbol) for (symbol, place), each in visits.items() if each.rechecked),
            rolled_back=tuple(place.of(symbol) for (symbol, place), each in visits.items() if each.unsafe),
            tuned=tuple(tuned),
            failed=tuple(failed),
            unreadable=tuple(place.of(symbol) for symbol, place in wanted if (symbol, place) not in visits),
            skipped=chosen.skipped,
            held=held,
        )

    def _visit_alone(self, symbol: str, place: Place, now: datetime) -> _Visit | None:
        """Visit a symbol, so that whatever is wrong with it holds up no other; None where something is."""
        try:
            with stored_of(symbol):
                return self._visit(symbol, place, now)
        except AutotuneError as error:
            self._log("unreadable", symbol, place, reason=str(error))
            return None

    def _visit(self, symbol: str, place: Place, now: datetime) -> _Visit:
        """Settle and take back what is to be."""
        observed = self._observe(symbol, place, now)
        if settle_canary(self.store, observed, now, self.log):
            observed = self._observe(symbol, place, now)
        observed, unsafe = self._take_back(observed, place, now)
        return _Visit(place=place, observed=observed, unsafe=unsafe)

    def _due(self, visit: _Visit) -> Due | None:
        # What was unsafe stays the reason to tune: without it the ledger would say "never tuned".
        carried = tuple(reason for reason in visit.unsafe if reason.kind in UNSAFE)
        found = carried or self._reasons(visit.observed)
        if not found:
            return None
        due = visit.observed.due(found, seconds=self.config.daemon.run_seconds)
        return replace(due, place=visit.place.name)

    def _reasons(self, observed: Observed) -> tuple[Reason, ...]:
        return reasons(observed.situation, timedelta(days=self.config.daemon.max_age_days))

    @functools.cached_property
    def _likes(self) -> dict[Place, frozenset[str]]:
        return {}

    def _observe(self, symbol: str, place: Place, now: datetime) -> Observed:
        environment = place.environment
        if place not in self._likes:  # once a tick, not once a symbol
            self._likes[place] = self.store.fingerprints_like(environment, self.config.pythons)
        return observe(
            self.store,
            symbol,
            self.config,
            environment=environment,
            like=self._likes[place],
            now=now,
            log=self.log,
        )

    def _take_back(
        self, observed: Observed, place: Place, now: datetime
    ) -> tuple[Observed, tuple[Reason, ...]]:
        """What holds afterwards, and the reasons for which the promotion was taken out of use, none when it stays."""
        found = self._reasons(observed)
        if not take_back(self.store, observed, found, now, self.log):
            return observed, ()
        try:
            with stored_of(observed.symbol):
                return self._observe(observed.symbol, place, now), found
        except AutotuneError:  # what is active now cannot be read, which the next tick says
            return observed, found

    def _recheck(self, visits: dict[tuple[str, Place], _Visit], now: datetime) -> None:
        """Measure what is promoted on prices that it had not seen, and take back what no longer holds."""
        begun: dict[Job, datetime] = {}

        def wanted() -> Iterator[Job]:
            for visit in tuple(visits.values()):
                promotion = visit.observed.promotion
                if promotion is not None and self._may_recheck(visit.observed, promotion, now, len(begun)):
                    job = self._recheck_job(promotion, visit.place)
                    begun[job] = self.machine.now()
                    yield job

        for job, result in self.machine.measure(wanted()):
            since = max(begun.pop(job), self.machine.now() - timedelta(seconds=job.seconds))
            try:
                with stored_of(job.symbol):
                    self._rechecked(visits[job.symbol, job.place], result, since, now)
            except AutotuneError as error:
                self._log("unreadable", job.symbol, job.place, reason=str(error))
                del visits[job.symbol, job.place]

    def _rechecked(self, visit: _Visit, result: Tuned, begun: datetime, now: datetime) -> None:
        symbol, promotion = visit.observed.symbol, visit.observed.promotion
        if result.document is not None:
            self._log("rechecked", symbol, visit.place, **result.document)
            observed = self._observe(symbol, visit.place, now)
            visit.observed, found = self._take_back(observed, visit.place, now)
            visit.rechecked, visit.unsafe = True, found or visit.unsafe
            return
        self._log("failed", symbol, visit.place, reason=result.cause)
        # Unless a signal or a quiet window ended it: then it is tried again soon.
        if promotion is not None and self._held() is None:
            keep(self.store, nothing_measured(promotion, result.cause, begun, self.machine.now()))

    def _may_recheck(self, observed: Observed, promotion: Promotion, now: datetime, under_way: int) -> bool:
        daemon = self.config.daemon
        if not daemon.recheck_hours or observed.unseen_since is None:
            return False
        if now < observed.unseen_since + timedelta(hours=daemon.recheck_hours) or self._held() is not None:
            return False
        if observed.environment.differences(promotion.environment):
            return False
        # Rechecks must leave the day's budget one run: what they find unsafe is to be tuned.
        return RECHECK_SECONDS * (1 + under_way) + daemon.run_seconds <= self._left(now)

    def _recheck_job(self, promotion: Promotion, place: Place) -> Job:
        prices = price_arguments(self.config.prices_of(promotion.symbol))
        options = ["--timeout", str(RECHECK_SECONDS), "--profile", promotion.profile]
        return Job(
            symbol=promotion.symbol,
            place=place,
            arguments=("recheck", promotion.symbol, *self._common(), *options, *prices),
            seconds=RECHECK_SECONDS + SPARE_SECONDS,
        )

    def _left(self, now: datetime) -> float:
        """Seconds of the budget that runs and rechecks of the last day have left."""
        return self.config.daemon.budget_seconds_per_day - spent_seconds(self.store, now, self.log)

    def _tune(self, chosen: Plan, places: dict[str, Place]) -> tuple[list[str], list[str], str | None]:
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
            (tuned if self._tuned(job, result) else failed).append(name)
            left.remove(name)
        if left:
            held = self._held() or "nothing is measured any more"
            self.log("held", symbol=left[0], reason=held)
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
                arguments = self.arguments(due, why)
        except AutotuneError as error:
            self._log("failed", due.symbol, place, reason=str(error))
            return None
        self._log("tuning", due.symbol, place, reason=why)
        seconds = due.seconds + SPARE_SECONDS
        return Job(symbol=due.symbol, place=place, arguments=("run", *arguments), seconds=seconds)

    def _tuned(self, job: Job, result: Tuned) -> bool:
        if result.document is None:
            self._log("failed", job.symbol, job.place, reason=result.cause)
            return False
        promoted, decision = result.document["promoted"], result.document["decision"]
        repairs = result.document.get("series", {}).get("repairs")
        told = {"repairs": repairs} if repairs else {}
        self._log("tuned", job.symbol, job.place, promoted=promoted, **decision, **told)
        return True

    def _log(self, event: str, about: str, place: Place, **fields: Any) -> None:
        where = {"environment": place.name} if place.name else {}
        self.log(event, **{"symbol": about, **where, **fields})

    def arguments(self, due: Due, why: str) -> list[str]:
        """Options of ``autotune run`` for a symbol that is due."""
        daemon = self.config.daemon
        canary = ["--canary", str(daemon.canary_share)] if daemon.canary_share else []
        fresh = ["--fresh"] if any(reason.kind != "never tuned" for reason in due.reasons) else []
        return [
            *("--symbol", due.symbol, "--timeout", str(due.seconds), "--because", why),
            *(part for reason in due.reasons for part in ("--trigger", reason.kind)),
            *self._common(),
            *canary,
            *fresh,
            *("--as-before", *price_arguments(self.config.prices_of(due.symbol))),
            *self.config.of(due.symbol).arguments(),
        ]

    def _common(self) -> list[str]:
        daemon = self.config.daemon
        threads = ["--threads", str(daemon.threads)] if daemon.threads else []
        return ["--device", daemon.device, *threads]  # the store is in its environment: ps shows arguments
