"""Looks at symbols for one tick: at many together as far as the store goes, at models and price files once."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice

from autotuner.daemon.config import Config
from autotuner.daemon.due import confirmed
from autotuner.daemon.intake import Log, stored_notes
from autotuner.daemon.places import Place, Whose
from autotuner.daemon.prices_seen import Prices, SeenPrices
from autotuner.daemon.situation import Observed, fell_back_of, notes_of
from autotuner.daemon.stored import Stored
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.store import Promotion, Store, Subject
from storage.errors import OF_ONE_ROW, NotFound, StorageError, StoreCorrupt, StoreUnavailable
from storage.records import RunRecord
from storage.together import MOST_SYMBOLS
from toto_core.model_files import CheckpointError, digest, locate
from toto_core.prices.options import PriceSource
from toto_core.series import SeriesError

DigestOf = Callable[[str, str | None], str | None]
"""The digest of a model's files, by its name and revision."""


def digests() -> DigestOf:
    """Takes that of each model once: for one tick."""
    return functools.cache(_digest)


def _digest(model: str, revision: str | None) -> str | None:
    """Of a model's files as they are; None where there are none, which a run will say."""
    try:
        return digest(locate(model, revision=revision))
    except CheckpointError:
        return None


@dataclass(frozen=True, kw_only=True)
class Observer:
    """What looks at symbols at ``now`` in a place: made anew for every tick, but for ``prices``, which live longer.

    ``others`` are all places of the tick, whose promotions are theirs.
    """

    store: Store
    config: Config
    place: Place
    now: datetime
    log: Log
    prices: SeenPrices = field(default_factory=SeenPrices)
    digest_of: DigestOf = field(default_factory=digests)
    others: Sequence[Place] = ()
    whose: Callable[[str], Whose] = field(init=False)
    has_run: Callable[[str], bool] = field(init=False)

    def __post_init__(self) -> None:
        self.prices.look_again()
        object.__setattr__(self, "whose", functools.cache(self._whose))
        object.__setattr__(self, "has_run", functools.cache(self._has_run))

    def together(self, symbols: Sequence[str]) -> Iterator[tuple[str, Stored | None]]:
        """Each symbol with what the store says of it and hundreds of others; None where it is to be asked alone.

        Raises ``StorageError`` when the store fails.
        """
        several = iter(symbols)
        while some := tuple(islice(several, MOST_SYMBOLS)):
            stored = self._read(some)
            yield from ((symbol, stored) for symbol in some)

    def alone(self, symbol: str) -> Observed:
        """The symbol as it is this moment. Raises ``StorageError`` and ``AutotuneError`` of the store."""
        return self.look(symbol, self._stored((symbol,)))

    def glance(self, symbol: str, stored: Stored) -> Observed | None:
        """The symbol by what was read of many; None where that fails, for which another of them may be the reason.

        Raises ``StoreUnavailable``.
        """
        try:
            return self.look(symbol, stored)
        except StoreUnavailable:
            raise
        except Exception:  # what strangers wrote can fail in any way
            return None

    def look(self, symbol: str, stored: Stored) -> Observed:
        """The symbol with everything that the triggers ask for, as far as the store goes by ``stored``."""
        promotion, runs = stored.active(symbol), stored.runs(symbol)
        ended = max((run.finished_at for run in runs if run.finished_at and self._is_of(run)), default=None)
        known = Observed(
            symbol=symbol,
            promotion=promotion,
            environment=self.place.environment,
            now=self.now,
            last_ended=ended,
        )
        if promotion is None:
            return known
        here = self.place.like(promotion.environment, self.config.pythons)
        if self.whose(promotion.environment.fingerprint) is Whose.OTHERS:
            return replace(known, environment=here)  # a reason to tune: it is theirs to keep and take back
        canary, subject = promotion.figures.canary, stored.measured_subject(symbol)
        notes = stored_notes(stored.notes_since(symbol), self.log)
        source = self.config.prices_of(symbol).or_else(stored.price_source(symbol))
        measured, present = self._prices(stored, subject, source)
        return replace(
            known,
            environment=here,
            ours=notes_of(notes, promotion, promotion.settings),
            before=() if canary is None else notes_of(notes, promotion, canary.previous),
            fell_back=fell_back_of(notes, promotion),
            confirmed=confirmed(promotion, stored.rolled_back(symbol), runs),
            measured=measured,
            present=present,
            # prices that cannot be read count as measured on: nothing can be rechecked on them
            tried_on_present=present is None or stored.is_measured_on(symbol, present.digest),
            model_changed=self._model_changed(subject, promotion),
        )

    def _is_of(self, run: RunRecord) -> bool:
        """Whether a run was made here: what rests after one is left to rest in its environment alone."""
        return self.has_run(run.environment_fingerprint)

    def _has_run(self, fingerprint: str) -> bool:
        there = self._facts(fingerprint)
        return there is not None and self.place.may_have_run(there, self.config.pythons)

    def _whose(self, fingerprint: str) -> Whose:
        there = self._facts(fingerprint)
        if there is None:
            return Whose.OTHERS
        return self.place.whose(there, self.config.pythons, self.others)

    def _facts(self, fingerprint: str) -> Environment | None:
        try:
            return Environment.from_dict(json.loads(self.store.records.environment(fingerprint).facts_json))
        except OF_ONE_ROW:
            return None
        except StorageError:
            raise
        except Exception:  # what strangers wrote can fail in any way
            return None

    def _stored(self, symbols: Sequence[str]) -> Stored:
        profiles = {symbol: self.config.of(symbol).profile for symbol in symbols}
        return Stored(self.store, profiles, whose=self.whose)

    def _read(self, symbols: Sequence[str]) -> Stored | None:
        """What the store says of these symbols; None where one of them spoils it for the others."""
        stored = self._stored(symbols)
        try:
            stored.read()
        except (*OF_ONE_ROW, StoreCorrupt):  # a torn page is one symbol's
            return None
        except StorageError:
            raise
        except Exception:  # what strangers wrote can fail in any way: each is asked alone and says its own
            return None
        return stored

    def _prices(
        self, stored: Stored, subject: Subject | None, source: PriceSource
    ) -> tuple[Prices | None, Prices | None]:
        """The prices that the symbol was measured on, and those that are there now; None for what is not known."""
        if subject is None:
            return None, None
        try:
            measured = stored.series(subject.series_digest)
            present = self.prices.of(subject.symbol, source)
        except (SeriesError, AutotuneError, NotFound):
            return None, None
        return Prices(measured.digest, measured.points), present

    def _model_changed(self, subject: Subject | None, promotion: Promotion) -> str | None:
        if subject is None or subject.workload.signature != promotion.workload.signature:
            return None
        then, now = (
            subject.model_digest,
            self.digest_of(promotion.workload.model, promotion.workload.revision),
        )
        return None if now is None or now == then else f"weights {then[:8]}, now {now[:8]}"
