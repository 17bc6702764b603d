"""What a plan reads of the store, each kind of thing once for all symbols."""

from __future__ import annotations

import functools
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autotuner.commands.plan_prices import FEW, Prices
from autotuner.environment import Environment, has_fp16_units
from autotuner.measurement.builds import build_slots, built_before
from autotuner.paths import holds_artifacts, trial_artifacts, trials_folder
from autotuner.record_mapping import read_settings
from autotuner.serving.cache_folders import size_and_use
from autotuner.store import Store, Subject
from autotuner.tuning.costs import costs_of
from autotuner.tuning.fitted import most_together
from autotuner.tuning.measuring import Measurable, measurable, search_and_run
from autotuner.tuning.planned import Place
from autotuner.tuning.request import TuneRequest
from autotuner.tuning.takeover import Proven, proofs
from autotuner.workload import Workload
from storage.records import MEASURED, PromotionRecord, RunRecord
from storage.survey import RunRow, TrialRow
from toto_core.settings import RuntimeSettings

BYTES_OF_A_BUILD = 5 << 20
"""What a build leaves on disk where none lies there to be asked: toto-mini's were 1 to 11 MB."""

Group = tuple[str, str, str]
"""Workload signature, environment fingerprint, profile."""


@dataclass(frozen=True, kw_only=True)
class Here:
    """A workload in one environment, for ``Place``; ``bytes`` is what a build leaves on disk there."""

    measurable: Measurable
    place: Place
    bytes: int = BYTES_OF_A_BUILD


class Reading:
    """The store of a plan, read lazily; every method raises ``StorageError``."""

    def __init__(self, store: Store, symbols: Iterable[str], *, read_prices: bool) -> None:
        self.store = store
        self._symbols = frozenset(symbols)
        self._read_prices = read_prices
        self.signature = functools.cache(_signature)
        self.measurable = functools.cache(_measurable)
        self.settings = functools.cache(read_settings)
        self.place = functools.cache(self._place)
        self.proofs = functools.cache(self._proofs)
        self.trials = functools.cache(self._trials)
        self._few = functools.cache(self._newest_two)
        self._winners = functools.cache(self._winners_of)

    @functools.cached_property
    def ledger(self) -> tuple[PromotionRecord, ...]:
        """What is active, oldest first."""
        return self.store.records.active_promotions()

    @functools.cached_property
    def groups(self) -> Mapping[Group, list[PromotionRecord]]:
        """What is active by what it is for."""
        found: dict[Group, list[PromotionRecord]] = defaultdict(list)
        for record in self.ledger:
            found[record.workload_signature, record.environment_fingerprint, record.profile].append(record)
        return found

    @functools.cached_property
    def champions(self) -> Mapping[tuple[str, Group], PromotionRecord]:
        """What is active of each symbol."""
        return {(record.symbol, group): record for group, found in self.groups.items() for record in found}

    @functools.cached_property
    def runs(self) -> tuple[RunRow, ...]:
        """Every run, oldest first."""
        return self.store.records.run_rows()

    @functools.cached_property
    def unfinished(self) -> Mapping[tuple[str, Group], list[RunRecord]]:
        """Runs that were begun and have not ended, oldest first."""
        found: dict[tuple[str, Group], list[RunRecord]] = defaultdict(list)
        for run in self.store.records.unfinished_runs():
            group = run.workload_signature, run.environment_fingerprint, run.profile
            found[run.symbol, group].append(run)
        return found

    @functools.cached_property
    def prices(self) -> Prices:
        """The prices of the plan's symbols."""
        return Prices(
            runs={run.run_id: run for run in self.runs},
            read_all=self._read_prices or len(self._symbols) <= FEW,
        )

    @functools.cached_property
    def short_of_memory(self) -> frozenset[str]:
        """Symbols of which production may have decoded fewer samples together than it was asked for."""
        return self.store.records.telemetry_symbols('"fitted_samples": ', but='"fitted_samples": null')

    def winners(self, subject: Subject) -> tuple[RuntimeSettings, ...]:
        """What is active for other symbols."""
        few = self._few(self.signature(subject.workload), subject.environment.fingerprint)
        named = subject.symbol if any(record.symbol == subject.symbol for record in few) else "-"
        return self._winners(replace(subject, symbol=named, series_digest=""))

    def together(self, subject: Subject) -> int | None:
        """How many samples production had memory for."""
        return most_together(self.store, subject) if subject.symbol in self.short_of_memory else None

    def _winners_of(self, subject: Subject) -> tuple[RuntimeSettings, ...]:
        few = self._few(self.signature(subject.workload), subject.environment.fingerprint)
        return self.store.winners_elsewhere(subject, few)

    def _newest_two(self, signature: str, fingerprint: str) -> tuple[PromotionRecord, ...]:
        """Of each configuration the newest promotions of two symbols, which is as good as all for any one symbol."""
        kept: dict[str, dict[str, PromotionRecord]] = defaultdict(dict)
        for record in reversed(self.ledger):
            if (record.workload_signature, record.environment_fingerprint) == (signature, fingerprint):
                of_it = kept[record.settings_key]
                if len(of_it) < 2:
                    of_it.setdefault(record.symbol, record)
        few = [record for of_it in kept.values() for record in of_it.values()]
        return tuple(sorted(few, key=lambda record: record.id or 0))

    def _proofs(self, subject: Subject, profile: str) -> tuple[Proven, ...]:
        """The newest proofs of two symbols, which is as good as all for any one symbol."""
        group = self.signature(subject.workload), subject.environment.fingerprint, profile
        found: dict[str, Proven] = {}
        for proven in proofs(self.store, subject, profile, self.groups.get(group, [])):
            found.setdefault(proven.symbol, proven)
            if len(found) == 2:
                break
        return tuple(found.values())

    def _trials(
        self, signature: str, fingerprint: str, model_digest: str
    ) -> Mapping[str, Sequence[TrialRow]]:
        """Trials of a workload in an environment by symbol, oldest first."""
        found: dict[str, list[TrialRow]] = defaultdict(list)
        for row in self._rows(signature).get((fingerprint, model_digest), ()):
            found[row.symbol].append(row)
        return found

    @functools.cached_property
    def _rows(self) -> Callable[[str], Mapping[tuple[str, str], Sequence[TrialRow]]]:
        def read(signature: str) -> Mapping[tuple[str, str], Sequence[TrialRow]]:
            found: dict[tuple[str, str], list[TrialRow]] = defaultdict(list)
            for row in self.store.records.trial_rows(signature):
                found[row.environment_fingerprint, row.model_digest].append(row)
            return found

        return functools.cache(read)

    def _place(
        self,
        workload: Workload,
        *,
        device: str,
        profile: str,
        threads: int | None,
        together: int | None,
        there: Environment | None,
    ) -> Here:
        """A workload in the environment of this machine, or in one that is ``there``."""
        found = self.measurable(workload, device, there)
        fp16_units = there is None and has_fp16_units()
        space = found.space(threads=threads, fp16_units=fp16_units, most_together=together)
        signature, fingerprint = self.signature(workload), found.environment.fingerprint
        caches = trials_folder(fingerprint, signature, found.model.digest)
        slots = build_slots(found.environment.device)
        trials = self.trials(signature, fingerprint, found.model.digest).values()
        measured = {
            row.settings_key for row in itertools.chain(*trials) if row.outcome == MEASURED and there is None
        }

        def at_hand(settings: RuntimeSettings) -> bool:
            folder = trial_artifacts(caches, settings)
            if settings.key in measured and holds_artifacts(folder):
                return True
            return slots > 1 and there is None and built_before(folder) is not None

        same = signature, fingerprint, profile
        runs = [
            run
            for run in self.runs
            if (run.workload_signature, run.environment_fingerprint, run.profile) == same
        ]
        _, seconds = search_and_run(space, found)
        place = Place(
            space=space,
            costs=costs_of(self.store, runs),
            at_hand=functools.cache(at_hand),
            slots=slots,
            weights_bytes=found.model.weights_bytes,
            seconds=seconds,
        )
        folders = [trial_artifacts(caches, settings) for settings in space.keys if settings.compiled]
        sizes = [size for folder in folders if folder.is_dir() and (size := size_and_use(folder)[0])]
        return Here(
            measurable=found, place=place, bytes=int(statistics.median(sizes)) if sizes else BYTES_OF_A_BUILD
        )


def _signature(workload: Workload) -> str:
    return workload.signature


def _measurable(workload: Workload, device: str, there: Environment | None = None) -> Measurable:
    return measurable(workload, device=device, there=there)


def place_of(reading: Reading, request: TuneRequest, subject: Subject, there: Environment | None) -> Here:
    """Where a request's run would measure."""
    return reading.place(
        request.workload,
        device=request.device,
        profile=request.profile.name,
        threads=request.threads,
        together=reading.together(subject),
        there=there,
    )
