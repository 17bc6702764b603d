"""What the store says of some symbols, read together in a few queries: what a tick knows of hundreds at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from operator import attrgetter
from typing import Any, TypeVar

from autotuner.daemon.places import Whose
from autotuner.serving.resolution import SAFE
from autotuner.store import Promotion, Store, Subject
from storage.errors import DamagedRow, NotFound
from storage.records import MeasurementRecord, PromotionRecord, RunRecord, SeriesRecord, TelemetryRecord
from storage.together import LastTrial, LedgerRow, MeasuredOn
from toto_core.prices.options import EMBEDDED, PriceSource

WINDOWS_TOGETHER = 2_000
"""Windows of production that are held at once: some symbols have thousands, and there are thousands of symbols."""
_LABEL = '"environment_fingerprint": "'
"""What stands before the fingerprint in a stored note."""
ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")


class Stored:
    """What the store says of the symbols in ``profiles``, each for its profile, None for any.

    ``whose`` tells by its fingerprint whose an environment is: several machines may share a store, and what the
    others promote is not this one's to keep.

    Everything is read once, when it is first asked for, but what production noted: that of some symbols is held at a
    time, so ask in the order of ``profiles``. What cannot be read of one symbol raises when that one is asked for:
    ``StorageError`` and ``AutotuneError``, as the methods of ``Store`` do.
    """

    def __init__(
        self, store: Store, profiles: Mapping[str, str | None], *, whose: Callable[[str], Whose]
    ) -> None:
        self._store, self._profiles, self._whose = store, profiles, whose
        self._held: tuple[Sequence[str], Mapping[str, Sequence[TelemetryRecord]]] = (), {}

    def read(self) -> None:
        """Read all but what production noted.

        Raises ``StorageError`` when the store fails, and anything for absurd rows.
        """
        _ = self._ledger, self._promotions, self._runs, self._read_with, self._measured_on, self._series

    def active(self, symbol: str) -> Promotion | None:
        """What the symbol was last promoted for here, else before an upgrade, else anywhere."""
        return _told(self._promotions.get(symbol))

    def rolled_back(self, symbol: str) -> list[datetime]:
        """When promotions of the symbol were taken back in the environment of the one that is active."""
        promotion = self.active(symbol)
        return [
            row.rolled_back_at
            for row in self._ledger.get(symbol, ())
            if row.rolled_back_at is not None
            and promotion is not None
            and row.environment_fingerprint == promotion.environment.fingerprint
        ]

    def runs(self, symbol: str) -> Sequence[RunRecord]:
        """The symbol's runs, oldest first, without their summaries."""
        return self._runs.get(symbol, ())

    def measured_subject(self, symbol: str) -> Subject | None:
        """As ``Store.measured_subject`` among runs in the promotion's environment or here."""
        return _told(self._subjects.get(symbol))

    def series(self, digest: str) -> SeriesRecord:
        """The series of that digest, one that a symbol was last measured on. Raises ``NotFound``."""
        found = _told(self._series.get(digest))
        if found is None:
            raise NotFound(f"no series {digest} is stored: measure on it first")
        return found

    def price_source(self, symbol: str) -> PriceSource:
        """As ``Store.price_source``: where the prices lay on which the symbol's promotion rests."""
        promotion, subject = self.active(symbol), self.measured_subject(symbol)
        if promotion is not None and promotion.figures.prices is not None:
            return promotion.figures.prices
        if subject is None:
            return PriceSource()
        source = self.series(subject.series_digest).source
        return PriceSource(data=None if source == EMBEDDED else source)

    def notes_since(self, symbol: str) -> Sequence[TelemetryRecord]:
        """What production noted since the promotion of its settings, those before a canary, and the safe ones.

        As far as it is of the promotion's environment, or does not say of which; oldest first.
        """
        keys = self._keys.get(symbol, frozenset())
        return [record for record in self._windows_of(symbol) if record.settings_key in keys]

    def is_measured_on(self, symbol: str, series_digest: str) -> bool:
        """Whether a trial for what the symbol is promoted for measured its settings on these prices."""
        promotion = self.active(symbol)
        if promotion is None:
            return False
        wanted = MeasuredOn(
            **promotion.keys, settings_key=promotion.settings.key, series_digest=series_digest
        )
        return wanted in self._measured_on

    @cached_property
    def _ledger(self) -> Mapping[str, Sequence[LedgerRow]]:
        return _by_symbol(self._store.records.ledger_rows(self._profiles))

    @cached_property
    def _promotions(self) -> Mapping[str, Promotion | Exception]:
        newest = {symbol: id_ for symbol in self._ledger if (id_ := self._newest(symbol)) is not None}
        found = self._store.records.promotions_by_id(newest.values()) if newest else {}
        return {
            symbol: _tried(partial(self._read, found[id_]))
            for symbol, id_ in newest.items()
            if id_ in found  # else the ledger lost it meanwhile, as when a backup was restored
        }

    def _newest(self, symbol: str) -> int | None:
        """The line of the ledger that holds for a symbol."""
        last = {  # of each environment
            row.environment_fingerprint: row.id
            for row in self._ledger[symbol]
            if not row.is_rolled_back and self._profiles[symbol] in {None, row.profile}
        }
        if len(last) < 2:
            return next(iter(last.values()), None)
        return max((self._whose(fingerprint), id_) for fingerprint, id_ in last.items())[1]

    def _read(self, record: PromotionRecord | DamagedRow) -> Promotion:
        return self._store.read(_told(record))

    @cached_property
    def _readable(self) -> Mapping[str, Promotion]:
        """In the order of ``profiles``."""
        found = self._promotions
        return {s: each for s in self._profiles if isinstance(each := found.get(s), Promotion)}

    @cached_property
    def _keys(self) -> Mapping[str, frozenset[str]]:
        return {symbol: _keys_of(promotion) for symbol, promotion in self._readable.items()}

    @cached_property
    def _ids(self) -> Sequence[int]:
        return [promotion.id for promotion in self._readable.values() if promotion.id is not None]

    @cached_property
    def _runs(self) -> Mapping[str, Sequence[RunRecord]]:
        return _by_symbol(self._store.records.run_outlines(self._profiles))

    def _windows_of(self, symbol: str) -> Sequence[TelemetryRecord]:
        together = self._read_with.get(symbol)
        if together is None:
            return ()
        if self._held[0] is not together:
            self._held = (), {}  # let go of the others before these are read
            ids = [id_ for each in together if (id_ := self._readable[each].id) is not None]
            found = self._store.records.telemetry_since(ids, self._settings_keys, label=_LABEL)
            self._held = together, _by_symbol(found)
        return self._held[1].get(symbol, ())

    @cached_property
    def _read_with(self) -> Mapping[str, Sequence[str]]:
        """Of each symbol with windows the symbols whose windows are read with its own, in the order of all."""
        counts = self._store.records.telemetry_counts(self._ids, self._settings_keys, label=_LABEL)
        found: dict[str, list[str]] = {}
        together, windows = list[str](), 0
        for symbol in (each for each in self._readable if each in counts):
            if together and windows + counts[symbol] > WINDOWS_TOGETHER:
                together, windows = [], 0
            together.append(symbol)
            windows += counts[symbol]
            found[symbol] = together
        return found

    @cached_property
    def _settings_keys(self) -> frozenset[str]:
        return frozenset(key for each in self._keys.values() for key in each)

    @cached_property
    def _measured_on(self) -> frozenset[MeasuredOn]:
        keys = {promotion.settings.key for promotion in self._readable.values()}
        return self._store.records.measured_on(self._readable, keys)

    @cached_property
    def _subjects(self) -> Mapping[str, Subject | Exception | None]:
        ids = self._last_trials()
        found = self._store.records.measurements_by_id(ids.values()) if ids else {}
        return {
            symbol: _tried(partial(self._subject_of, symbol, found.get(id_))) for symbol, id_ in ids.items()
        }

    def _subject_of(self, symbol: str, trial: MeasurementRecord | DamagedRow | None) -> Subject | None:
        if trial is None or isinstance(trial, DamagedRow):  # then what was measured before it counts
            environments = {run.environment_fingerprint for run in self._own_runs[symbol]}
            return self._store.measured_subject(symbol, environments)
        return self._store.subject_of(trial)

    @cached_property
    def _own_runs(self) -> Mapping[str, Sequence[RunRecord]]:
        """The runs of each symbol in its promotion's environment or here, where there are any."""
        own = {
            symbol: [run for run in self._runs.get(symbol, ()) if self._is_own(run, promotion)]
            for symbol, promotion in self._readable.items()
        }
        return {symbol: runs for symbol, runs in own.items() if runs}

    def _is_own(self, run: RunRecord, promotion: Promotion) -> bool:
        fingerprint = run.environment_fingerprint
        return fingerprint == promotion.environment.fingerprint or self._whose(fingerprint) is Whose.HERE

    def _last_trials(self) -> dict[str, int]:
        """The id of the trial that says what each symbol was last measured on."""
        newest = {symbol: runs[-1:] for symbol, runs in self._own_runs.items()}
        ids = [run.run_id for runs in newest.values() for run in runs]
        own = _by_symbol(self._store.records.last_trials(run_id=ids)) if ids else {}
        found = {symbol: _last_of(runs, own.get(symbol, ())) for symbol, runs in newest.items()}
        others = [symbol for symbol, id_ in found.items() if id_ is None]
        if others:  # their newest run took up what others had measured, or has measured nothing yet
            every = _by_symbol(self._store.records.last_trials(symbol=others))
            found |= {symbol: _last_of(self._own_runs[symbol], every.get(symbol, ())) for symbol in others}
        return {symbol: id_ for symbol, id_ in found.items() if id_ is not None}

    @cached_property
    def _series(self) -> Mapping[str, SeriesRecord | DamagedRow]:
        subjects = (each for each in self._subjects.values() if isinstance(each, Subject))
        digests = {each.series_digest for each in subjects}
        return self._store.records.series_by_digest(digests) if digests else {}


def _last_of(runs: Sequence[RunRecord], trials: Sequence[LastTrial]) -> int | None:
    """The last trial of the newest of ``runs`` for whose workload and environment there are any: its own, if any."""
    for run in reversed(runs):
        wanted = run.workload_signature, run.environment_fingerprint
        of_it = [t for t in trials if (t.workload_signature, t.environment_fingerprint) == wanted]
        own = [trial for trial in of_it if trial.run_id == run.run_id]
        if of_it:
            return max(trial.id for trial in own or of_it)
    return None


def _keys_of(promotion: Promotion) -> frozenset[str]:
    canary = promotion.figures.canary
    several = (promotion.settings, SAFE, *(() if canary is None else (canary.previous,)))
    return frozenset(settings.key for settings in several)


def _by_symbol(items: Iterable[Any]) -> dict[str, list[Any]]:
    of_symbol = attrgetter("symbol")
    found: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        found[of_symbol(item)].append(item)
    return dict(found)


def _tried(read: Callable[[], FoundT]) -> FoundT | Exception:
    """What was read, or why it could not be: for the symbol whose it is to say."""
    try:
        return read()
    except Exception as error:
        return error


def _told(found: ItemT | Exception) -> ItemT:
    if isinstance(found, Exception):
        raise found
    return found
