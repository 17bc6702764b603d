"""One tick of the daemon: takes in telemetry, takes back what regressed, and tunes what is due."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from autotuner.commands.recheck import keep, nothing_measured
from autotuner.daemon.config import Config, price_arguments
from autotuner.daemon.intake import Intake, Log, say_once, take_in
from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.observing import Observer
from autotuner.daemon.plan import Due, Plan, Skipped, plan
from autotuner.daemon.prices_seen import SeenPrices
from autotuner.daemon.quiet import Quiet, why_busy, why_quiet
from autotuner.daemon.situation import Observed
from autotuner.daemon.spent import Budget
from autotuner.daemon.stored import Stored
from autotuner.daemon.take_back import ASKING, UNSAFE, settle_canary, take_back
from autotuner.daemon.triggers import Reason, reasons
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.paths import spool_folder
from autotuner.record_mapping import stored_of
from autotuner.serving.note_files import owners_of
from autotuner.store import Promotion, Store

RECHECK_SECONDS = 120.0
"""What a recheck may take: two processes start, and forecast some fifty windows each."""
SPARE_SECONDS = 60.0
"""A run may take this much longer than it was given before it is stopped: it stores and cleans up."""


Visit = tuple[Due | None, Sequence[Reason], bool]


class Round(NamedTuple):
    """What one tick looks at symbols with, and what it may spend."""

    looks: Observer
    budget: Budget


class Machine(Protocol):
    """What a tick asks of the world; a simulation answers for tests."""

    def now(self) -> datetime:
        """The time, aware."""

    def load(self) -> float:
        """The load average of the last minute."""

    def environment(self) -> Environment:
        """The environment as it is now."""

    def tune(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        """Run ``autotune run`` with ``arguments``."""

    def recheck(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        """Run ``autotune recheck`` with ``arguments``."""

    def stopping(self) -> bool:
        """Whether the daemon was asked to end."""


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
    prices: SeenPrices = field(default_factory=SeenPrices)

    def tick(self) -> Ticked:
        """One round over all symbols. Raises ``StorageError`` when the store fails."""
        now, place = self.machine.now(), self.store.location
        spool, owners = spool_folder(place), owners_of(place)
        intake = take_in(self.store.records, spool, self.log, now=now, owners=owners)
        looks = Observer(
            store=self.store,
            config=self.config,
            environment=self.machine.environment,
            now=now,
            log=self.log,
            prices=self.prices,
        )
        budget = Budget(self.store, self.config.daemon.budget_seconds_per_day, now, self.log)
        visits = {
            symbol: visit
            for symbol, stored in looks.together(self.symbols)
            if (visit := self._visit_alone(symbol, stored, Round(looks, budget)))
        }
        due = [each for each, _, _ in visits.values() if each is not None]
        cool_down = timedelta(hours=self.config.daemon.cool_down_hours)
        chosen = plan(due, now=now, left_seconds=budget.left(), cool_down=cool_down)
        tuned, failed, held = self._tune(chosen)
        for left_out in self.store.records.damage:
            say_once(self.log, "damaged", (str(left_out),), symbol=left_out.symbol, reason=str(left_out))
        return Ticked(
            intake=intake,
            rechecked=tuple(symbol for symbol, (_, _, rechecked) in visits.items() if rechecked),
            rolled_back=tuple(symbol for symbol, (_, unsafe, _) in visits.items() if unsafe),
            tuned=tuple(tuned),
            failed=tuple(failed),
            unreadable=tuple(symbol for symbol in self.symbols if symbol not in visits),
            skipped=chosen.skipped,
            held=held,
        )

    def _visit_alone(self, symbol: str, stored: Stored | None, this: Round) -> Visit | None:
        """Visit a symbol, so that whatever is wrong with it holds up no other; None where something is."""
        try:
            with stored_of(symbol):
                return self._visit(symbol, stored, this)
        except AutotuneError as error:
            self.log("unreadable", symbol=symbol, reason=str(error))
            return None

    def _visit(self, symbol: str, stored: Stored | None, this: Round) -> Visit:
        """Settle, take back and recheck what is to be.

        What is due of it, why its promotion was taken out of use, and whether it was rechecked. What is done to a
        symbol is decided by a look at it alone, then and there: what was read of many together may be minutes old.
        """
        looks = this.looks
        if stored is not None:
            observed = looks.look(symbol, stored)
            if not self._is_at_stake(observed, this):
                return self._due(observed, ()), (), False
        observed = looks.alone(symbol)
        if settle_canary(self.store, observed, looks.now, self.log):
            observed = looks.alone(symbol)
        observed, unsafe = self._take_back(observed, looks)
        rechecked = self._recheck(observed, this)
        if rechecked:
            observed, found = self._take_back(looks.alone(symbol), looks)
            unsafe = found or unsafe
        return self._due(observed, unsafe), unsafe, rechecked

    def _is_at_stake(self, observed: Observed, this: Round) -> bool:
        """Whether there may be a canary to settle, a promotion to take back, or one to recheck."""
        promotion = observed.promotion
        if promotion is None:
            return False
        return (
            promotion.figures.canary is not None
            or any(reason.kind in ASKING for reason in self._reasons(observed))
            or self._may_recheck(observed, promotion, this.looks.now, this.budget.at_most)
        )

    def _due(self, observed: Observed, unsafe: Sequence[Reason]) -> Due | None:
        # What was unsafe stays the reason to tune: without it the ledger would say "never tuned".
        carried = tuple(reason for reason in unsafe if reason.kind in UNSAFE)
        found = carried or self._reasons(observed)
        return observed.due(found, seconds=self.config.daemon.run_seconds) if found else None

    def _reasons(self, observed: Observed) -> tuple[Reason, ...]:
        return reasons(observed.situation, timedelta(days=self.config.daemon.max_age_days))

    def _take_back(self, observed: Observed, looks: Observer) -> tuple[Observed, tuple[Reason, ...]]:
        """What holds afterwards, and the reasons for which the promotion was taken out of use, none when it stays."""
        found = self._reasons(observed)
        if not take_back(self.store, observed, found, looks.now, self.log):
            return observed, ()
        try:
            with stored_of(observed.symbol):
                return looks.alone(observed.symbol), found
        except AutotuneError:  # what is active now cannot be read, which the next tick says
            return observed, found

    def _recheck(self, observed: Observed, this: Round) -> bool:
        """Whether the promoted configuration was measured on prices that it had not seen."""
        promotion = observed.promotion
        if promotion is None or not self._may_recheck(observed, promotion, this.looks.now, this.budget.left):
            return False
        begun = self.machine.now()
        arguments = self._recheck_arguments(promotion)
        result = self.machine.recheck(arguments, seconds=RECHECK_SECONDS + SPARE_SECONDS)
        if result.document is not None:
            self.log("rechecked", **result.document)
            return True
        self.log("failed", symbol=observed.symbol, reason=result.cause)
        if self._held() is None:  # else a signal or a quiet window ended it, and it is tried again soon
            keep(self.store, nothing_measured(promotion, result.cause, begun, self.machine.now()))
        return False

    def _may_recheck(
        self, observed: Observed, promotion: Promotion, now: datetime, left: Callable[[], float]
    ) -> bool:
        daemon = self.config.daemon
        if not daemon.recheck_hours or observed.unseen_since is None:
            return False
        if now < observed.unseen_since + timedelta(hours=daemon.recheck_hours) or self._held() is not None:
            return False
        if observed.environment.differences(promotion.environment):
            return False
        # A recheck must leave the day's budget one run: what it finds unsafe is to be tuned.
        return RECHECK_SECONDS + daemon.run_seconds <= left()

    def _recheck_arguments(self, promotion: Promotion) -> list[str]:
        prices = price_arguments(self.config.prices_of(promotion.symbol))
        options = ["--timeout", str(RECHECK_SECONDS), "--profile", promotion.profile]
        return [promotion.symbol, *self._common(), *options, *prices]

    def _tune(self, chosen: Plan) -> tuple[list[str], list[str], str | None]:
        tuned: list[str] = []
        failed: list[str] = []
        for due in chosen.chosen:
            held = self._held()
            if held is not None:
                self.log("held", symbol=due.symbol, reason=held)
                return tuned, failed, held
            (tuned if self._tune_alone(due) else failed).append(due.symbol)
        return tuned, failed, None

    def _held(self) -> str | None:
        if self.machine.stopping():
            return "the daemon is stopping"
        quiet = why_quiet(self.machine.now(), self.quiet)
        return quiet or why_busy(self.machine.load(), os.cpu_count() or 1, self.config.daemon.load_ceiling)

    def _tune_alone(self, due: Due) -> bool:
        try:
            with stored_of(due.symbol):
                return self._tune_one(due)
        except AutotuneError as error:
            self.log("failed", symbol=due.symbol, reason=str(error))
            return False

    def _tune_one(self, due: Due) -> bool:
        why = "; ".join(reason.text for reason in due.reasons)
        self.log("tuning", symbol=due.symbol, reason=why)
        result = self.machine.tune(self.arguments(due, why), seconds=due.seconds + SPARE_SECONDS)
        if result.document is None:
            self.log("failed", symbol=due.symbol, reason=result.cause)
            return False
        promoted, decision = result.document["promoted"], result.document["decision"]
        repairs = result.document.get("series", {}).get("repairs")
        told = {"repairs": repairs} if repairs else {}
        self.log("tuned", symbol=due.symbol, promoted=promoted, **decision, **told)
        return True

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
