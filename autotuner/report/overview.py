"""Every symbol in one row: what it runs, how sure that is, what is the matter with it, and what production sees."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from autotuner.daemon.triggers import MAXIMUM_AGE
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.figures import Figures, FiguresError, figures_from_json
from autotuner.measurement.outcome import Interval
from autotuner.record_mapping import read_note, read_settings, stored_of
from autotuner.report.progress import under_way
from autotuner.search.profiles import PROFILES
from autotuner.serving.spool import NoteError, Quarantine, Window
from autotuner.store import Store
from storage.damage import LeftOut
from storage.records import PinRecord, PromotionRecord, RunRecord, TelemetryRecord

_UNREADABLE = "settings that cannot be read"
WINDOWS = 24
"""How many of the newest windows of a symbol are looked at: its sparkline, and what befell it."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What is the matter with a symbol: one word, and why."""

    word: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One symbol; None and empty for what is not known. ``since`` is of its promotion, or of its pin.

    ``speed`` is reference time over its time, ``live_ms`` the median latency of its newest windows of telemetry,
    oldest first, ``drift_budget`` that of its profile. ``settings`` is a label.
    """

    symbol: str
    settings: str
    since: datetime
    profile: str = ""
    model: str = ""
    engine: str = ""
    speed: Interval | None = None
    stage: str = ""
    p50_ms: float | None = None
    drift: float | None = None
    drift_budget: float | None = None
    live_ms: tuple[float, ...] = ()
    states: tuple[State, ...] = ()


Noted = tuple[TelemetryRecord, Window | Quarantine]
Seen = dict[int, Noted | None]
"""Rows of telemetry that were read before, by id: they never change, and reading one takes longer than the rest."""


def overview(
    store: Store, *, environment: Environment, now: datetime, seen: Seen | None = None
) -> tuple[Row, ...]:
    """All symbols that are promoted, pinned or being tuned, by name; ``environment`` is this machine's.

    What cannot be read of a symbol is one of its own states and hides no other. ``seen`` is kept by the caller from
    one call to the next. Raises ``StorageError``.
    """
    records = store.records
    pins = {pin.symbol: pin for pin in records.pins()}
    newest = {record.symbol: record for record in records.active_promotions()}  # the last of each stays
    running = {run.symbol: run for run in under_way(store)}
    known = _Known(
        environment=environment,
        now=now,
        environments={each.fingerprint: each.facts_json for each in records.environments()},
        finished=records.last_finished(),
        running=running,
        trials=records.trials([run.run_id for run in running.values()]),
        telemetry=_telemetry(store, {} if seen is None else seen),
    )
    rows = [known.row_alone(record, pins.get(symbol)) for symbol, record in newest.items()]
    rows += [known.only_pinned(pin) for symbol, pin in pins.items() if symbol not in newest]
    rows += [
        known.first_run(run) for symbol, run in running.items() if symbol not in newest and symbol not in pins
    ]
    return tuple(sorted(_with_damage(rows, records.damage, now), key=lambda row: row.symbol))


def _with_damage(rows: Sequence[Row], damage: Iterable[LeftOut], now: datetime) -> list[Row]:
    """The rows, with what is damaged of a symbol as its state, and a row for who has no other."""
    found = {row.symbol: row for row in rows}
    for each in damage:
        if each.symbol:
            row = found.get(each.symbol) or Row(symbol=each.symbol, settings=_UNREADABLE, since=now)
            state = State(word="unreadable", why=str(each))
            found[each.symbol] = replace(row, states=(*row.states, state))
    return list(found.values())


def _telemetry(store: Store, seen: Seen) -> Mapping[str, Sequence[Noted]]:
    """The newest notes of every symbol, oldest first; ``seen`` holds these and no others afterwards."""
    ids = store.records.newest_telemetry(WINDOWS)
    for gone in seen.keys() - set(ids):
        del seen[gone]
    for record in store.records.telemetry_rows([place for place in ids if place not in seen]):
        assert record.id is not None
        seen[record.id] = _noted(record)
    found = defaultdict(list)
    for place in ids:
        noted = seen.get(place)
        if noted is not None:
            found[noted[0].symbol].append(noted)
    return found


def _noted(record: TelemetryRecord) -> Noted | None:
    try:
        note = read_note(record)
    except NoteError:  # the daemon says so
        return None
    return (record, note) if isinstance(note, Window | Quarantine) else None


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What was read of all symbols together."""

    environment: Environment
    now: datetime
    environments: Mapping[str, str]
    finished: Mapping[str, datetime]
    running: Mapping[str, RunRecord]
    trials: Mapping[str, int]
    telemetry: Mapping[str, Sequence[Noted]]

    def row_alone(self, record: PromotionRecord, pin: PinRecord | None) -> Row:
        try:
            with stored_of(record.symbol):
                return self.row(record, pin)
        except AutotuneError as error:
            state = State(word="unreadable", why=str(error))
            return Row(symbol=record.symbol, settings=_UNREADABLE, since=record.promoted_at, states=(state,))

    def row(self, record: PromotionRecord, pin: PinRecord | None) -> Row:
        figures, unreadable = _figures(record.evidence_json)
        there = _environment(self.environments.get(record.environment_fingerprint, ""))
        notes = [
            note
            for row, note in self.telemetry.get(record.symbol, ())
            if (row.settings_key, note.environment_fingerprint)
            == (record.settings_key, record.environment_fingerprint)
            and row.window_start >= record.promoted_at
        ]
        profile = PROFILES.get(record.profile)
        states = [
            *self._tuned_now(record.symbol),
            *([State(word="unreadable", why=unreadable)] if unreadable else []),
            *_seen(notes),
            *_chosen(figures, pin),
            *self._outdated(record, there),
        ]
        return Row(
            symbol=record.symbol,
            settings=_label(record.settings_json if pin is None else pin.settings_json),
            since=record.promoted_at,
            profile=record.profile,
            model=record.model,
            engine="" if there is None else there.engine,
            speed=figures.ratio,
            stage=figures.stage or "",
            p50_ms=figures.p50_ms,
            drift=figures.drift,
            drift_budget=None if profile is None else profile.drift_budget,
            live_ms=tuple(note.quantile_ms(0.5) for note in notes if isinstance(note, Window) and note.calls),
            states=tuple(states),
        )

    def _outdated(self, record: PromotionRecord, there: Environment | None) -> list[State]:
        found = []
        here = self.environment if there is None else self.environment.here_for(there)
        if there is not None and there != here:
            differences = "; ".join(here.differences(there))
            found.append(
                State(word="elsewhere", why=f"measured in another environment than this ({differences})")
            )
        tuned = max(record.promoted_at, self.finished.get(record.symbol, record.promoted_at))
        if self.now - tuned >= MAXIMUM_AGE:
            found.append(State(word="stale", why=f"last tuned {(self.now - tuned).days} days ago"))
        return found

    def _tuned_now(self, symbol: str) -> list[State]:
        run = self.running.get(symbol)
        if run is None:
            return []
        done = self.trials.get(run.run_id, 0)
        return [State(word="tuning", why=f"{done} trial{'s' * (done != 1)} since {run.started_at:%H:%M} UTC")]

    def first_run(self, run: RunRecord) -> Row:
        states = tuple(self._tuned_now(run.symbol))
        return Row(symbol=run.symbol, settings="nothing yet", since=run.started_at, states=states)

    def only_pinned(self, pin: PinRecord) -> Row:
        states = [
            *self._tuned_now(pin.symbol),
            State(word="pinned", why=pin.reason or "without a reason"),
            State(word="unproven", why="never tuned"),
        ]
        label = _label(pin.settings_json)
        return Row(symbol=pin.symbol, settings=label, since=pin.pinned_at, states=tuple(states))


def _seen(notes: Sequence[Window | Quarantine]) -> list[State]:
    """What production saw of the settings since they were promoted."""
    failures = [note for note in notes if isinstance(note, Quarantine)]
    windows = [note for note in notes if isinstance(note, Window)]
    found = []
    if failures:
        found.append(State(word="quarantined", why=f"failed in production: {failures[-1].reason}"))
    smaller, eager = (
        sum(getattr(each, name) for each in windows) for name in ("out_of_memory", "eager_calls")
    )
    if smaller or eager:
        why = f"{smaller} calls made smaller for want of memory, {eager} run uncompiled"
        found.append(State(word="rescued", why=why))
    return found


def _chosen(figures: Figures, pin: PinRecord | None) -> list[State]:
    """How the settings came to be what they are."""
    found = []
    if pin is not None:
        found.append(State(word="pinned", why=pin.reason or "without a reason"))
    if figures.canary is not None:
        found.append(State(word="canary", why=f"{figures.canary.share:.0%} of the processes have it"))
    if figures.stage == "search":
        found.append(State(word="unproven", why="figures of a search, which rank and promise nothing"))
    return found


# What is stored is never changed, so that what was read once need not be read again.
@lru_cache(maxsize=10_000)
def _figures(text: str) -> tuple[Figures, str]:
    try:
        return figures_from_json(text), ""
    except FiguresError as error:
        return Figures(), str(error)


@lru_cache(maxsize=10_000)
def _label(settings_json: str) -> str:
    settings = read_settings(settings_json)
    return _UNREADABLE if settings is None else settings.label


@lru_cache(maxsize=1_000)
def _environment(facts_json: str) -> Environment | None:
    try:
        return Environment.from_dict(json.loads(facts_json))
    except (AutotuneError, TypeError, ValueError):
        return None
