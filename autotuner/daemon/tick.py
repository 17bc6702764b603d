"""One tick of the daemon: takes in telemetry, takes back what regressed, and tunes what is due."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from autotuner.config import Config
from autotuner.daemon.canary import judge
from autotuner.daemon.intake import Intake, take_in
from autotuner.daemon.observing import DAY, Observed, observe
from autotuner.daemon.plan import BudgetRules, Due, Plan, Skipped, plan
from autotuner.daemon.probation import why_roll_back
from autotuner.daemon.quiet import Quiet, why_busy, why_quiet
from autotuner.daemon.triggers import PAST_PROMISE, Rules, reasons
from autotuner.daemon.tuner import Tuned
from autotuner.errors import AutotuneError
from autotuner.identity import Environment
from autotuner.locations import spool_folder
from autotuner.persistence import Promotion, Store
from autotuner.serving.canary import FIELD, on_trial

SPARE_SECONDS = 60.0
"""A run may take this much longer than it was given before it is stopped: it stores and cleans up."""


class Machine(Protocol):
    """What a tick asks of the world; a simulation answers for tests."""

    def now(self) -> datetime:
        """The time, aware."""
        ...

    def load(self) -> float:
        """The load average of the last minute."""
        ...

    def environment(self) -> Environment:
        """The environment as it is now."""
        ...

    def tune(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        """Run ``autotune run`` with ``arguments``."""
        ...

    def stopping(self) -> bool:
        """Whether the daemon was asked to end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ticked:
    """What a tick did."""

    intake: Intake
    rolled_back: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    held: str | None = None

    def __str__(self) -> str:
        parts = [f"tuned {', '.join(self.tuned) or 'nothing'}"]
        parts += [f"rolled back {', '.join(self.rolled_back)}"] if self.rolled_back else []
        parts += [f"failed {', '.join(self.failed)}"] if self.failed else []
        parts += [f"waiting {', '.join(each.symbol for each in self.skipped)}"] if self.skipped else []
        parts += [f"held: {self.held}"] if self.held else []
        parts.append(f"{self.intake.telemetry} windows and {self.intake.quarantines} quarantines taken in")
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Ticker:
    """Everything a tick needs; ``log`` gets an event's name and its fields."""

    store: Store
    config: Config
    symbols: Sequence[str]
    quiet: Sequence[Quiet]
    machine: Machine
    log: Callable[..., None]

    def tick(self) -> Ticked:
        """One round over all symbols. Raises ``StorageError`` when the store fails."""
        intake = take_in(self.store.records, spool_folder(self.store.location))
        now, rolled_back, due = self.machine.now(), [], []
        for symbol in self.symbols:
            observed = self._observe(symbol, now)
            if observed is None:
                continue
            if self._judged_trial(observed, now):
                observed = self._observe(symbol, now) or observed
            if self._took_back(observed, now):
                rolled_back.append(symbol)
                observed = self._observe(symbol, now) or observed
            found = reasons(observed.situation, Rules(maximum_age=self.config.daemon.maximum_age))
            if found:
                due.append(observed.due(found, seconds=self.config.daemon.run_seconds))
        chosen = self._plan(due, now)
        tuned, failed, held = self._tune(chosen)
        return Ticked(
            intake=intake,
            rolled_back=tuple(rolled_back),
            tuned=tuple(tuned),
            failed=tuple(failed),
            skipped=chosen.skipped,
            held=held,
        )

    def _observe(self, symbol: str, now: datetime) -> Observed | None:
        try:
            environment = self.machine.environment()
            return observe(self.store, symbol, self.config.of(symbol), environment=environment, now=now)
        except AutotuneError as error:  # one symbol that cannot be read must not hold up the others
            self.log("unreadable", symbol=symbol, reason=str(error))
            return None

    def _took_back(self, observed: Observed, now: datetime) -> bool:
        promotion = observed.situation.promotion
        if promotion is None or promotion.id is None:
            return False
        found = reasons(observed.situation, Rules(maximum_age=self.config.daemon.maximum_age))
        why = why_roll_back(promotion, found, now=now, has_previous=self._has_previous(observed))
        if why is None:
            return False
        self._roll_back(promotion, why, now)
        self.log("rolled_back", symbol=observed.symbol, settings=promotion.settings.label, reason=why)
        return True

    def _judged_trial(self, observed: Observed, now: datetime) -> bool:
        """Whether a promotion that only a share of the processes has was confirmed or taken back."""
        promotion = observed.situation.promotion
        before = None if promotion is None else on_trial(promotion.evidence)
        if promotion is None or before is None:
            return False
        found = judge(observed.situation.windows, observed.windows_before)
        if found.verdict == "wait":
            return False
        self.log("trial", symbol=observed.symbol, verdict=found.verdict, reason=found.text)
        if found.verdict == "roll back":
            self._roll_back(promotion, found.text, now)
            return True
        kept = {name: value for name, value in promotion.evidence.items() if name != FIELD}
        reason = f"stood its trial in production: {found.text}"
        self.store.promote(
            replace(
                promotion,
                evidence=kept,
                verdict="confirmed",
                reason=reason,
                promoted_at=now,
                kind="select",
                id=None,
                run_id=None,
            )
        )
        return True

    def _roll_back(self, promotion: Promotion, why: str, now: datetime) -> None:
        self.store.records.roll_back(
            promotion.symbol,
            why,
            now,
            profile=promotion.profile,
            workload_signature=promotion.workload.signature,
            environment_fingerprint=promotion.environment.fingerprint,
        )
        self.store.publish()

    def _has_previous(self, observed: Observed) -> bool:
        """Whether there is something to go back to that was not left because production was slow under it."""
        promotion = observed.situation.promotion
        because = promotion.evidence.get("because") if promotion else None
        if because is not None and PAST_PROMISE in because:
            return False
        earlier = self.store.records.promotions(observed.symbol)
        return promotion is not None and any(
            record.rolled_back_at is None and record.id != promotion.id for record in earlier
        )

    def _plan(self, due: Sequence[Due], now: datetime) -> Plan:
        daemon = self.config.daemon
        rules = BudgetRules(seconds_per_day=daemon.budget_seconds_per_day, cool_down=daemon.cool_down)
        return plan(due, now=now, spent_seconds=self._spent(now), rules=rules)

    def _spent(self, now: datetime) -> float:
        """Seconds that runs took in the last day."""
        return sum(
            (run.finished_at - max(run.started_at, now - DAY)) / timedelta(seconds=1)
            for run in self.store.records.runs()
            if run.finished_at is not None and run.finished_at > now - DAY
        )

    def _tune(self, chosen: Plan) -> tuple[list[str], list[str], str | None]:
        tuned: list[str] = []
        failed: list[str] = []
        for due in chosen.chosen:
            held = self._held()
            if held is not None:
                self.log("held", symbol=due.symbol, reason=held)
                return tuned, failed, held
            result = self._tune_one(due)
            (tuned if result.document is not None else failed).append(due.symbol)
        return tuned, failed, None

    def _held(self) -> str | None:
        if self.machine.stopping():
            return "the daemon is stopping"
        quiet = why_quiet(self.machine.now(), self.quiet)
        return quiet or why_busy(self.machine.load(), os.cpu_count() or 1, self.config.daemon.load_ceiling)

    def _tune_one(self, due: Due) -> Tuned:
        why = "; ".join(reason.text for reason in due.reasons)
        self.log("tuning", symbol=due.symbol, reason=why)
        result = self.machine.tune(self.arguments(due, why), seconds=due.seconds + SPARE_SECONDS)
        if result.document is None:
            self.log("failed", symbol=due.symbol, reason=result.cause)
        else:
            self.log("tuned", symbol=due.symbol, **_outcome(result.document))
        return result

    def arguments(self, due: Due, why: str) -> list[str]:
        """Options of ``autotune run`` for a symbol that is due."""
        daemon = self.config.daemon
        threads = ["--threads", str(daemon.threads)] if daemon.threads else []
        canary = ["--canary", str(daemon.canary_share)] if daemon.canary_share else []
        fresh = ["--fresh"] if any(reason.kind != "never tuned" for reason in due.reasons) else []
        return [
            *("--symbol", due.symbol, "--db", self.store.location, "--device", daemon.device),
            *("--timeout", str(due.seconds), "--because", why),
            *threads,
            *canary,
            *fresh,
            *self.config.of(due.symbol).arguments(),
        ]


def _outcome(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "promoted": document["promoted"],
        "verdict": document["decision"]["verdict"],
        "reason": document["decision"]["reason"],
    }
