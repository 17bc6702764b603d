"""Picks from a snapshot what fits a symbol or a workload, and says field by field why the rest does not."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from autotuner.environment import Environment
from autotuner.errors import one_line
from autotuner.serving.canary import canary_of
from autotuner.workload import Workload
from storage.snapshot import SnapshotEntry, SnapshotPin
from toto_core.settings import RuntimeSettings

_TEXTS = ("symbol", "profile", "model", "workload_signature", "environment_fingerprint", "workload_json")


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """What an entry has to match; None for a field matches any value."""

    model: str | None
    workload: Workload | None
    profile: str | None
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class ReadEntry:
    """A snapshot entry that could be read whole, so that what is used of it is never a half."""

    entry: SnapshotEntry
    settings: RuntimeSettings
    workload: Workload

    @property
    def age_rank(self) -> tuple[datetime, int]:
        """Sorts older entries first."""
        return self.entry.since, self.entry.promotion_id


def readable(entries: Iterable[SnapshotEntry], step: str) -> tuple[list[ReadEntry], tuple[str, ...]]:
    """The entries that can be read whole, and one line for each that cannot, which spoils no other."""
    known, reasons = [], []
    for entry in entries:
        try:
            known.append(_read(entry))
        except Exception as error:  # what a damaged or newer store holds can fail in any way
            whose = entry.symbol if isinstance(entry.symbol, str) else "no symbol"
            reasons.append(one_line(f"{step}: an entry of {whose} is skipped: {error}"))
    return known, tuple(reasons)


def fitting(
    known: Sequence[ReadEntry], wanted: Criteria, step: str
) -> tuple[ReadEntry | None, tuple[str, ...]]:
    """The best of ``known`` that matches ``wanted`` in every field; else None and how the nearest differs.

    Fields that are not asked for are preferably those of the symbol's last promotion; then newer is better.
    """
    if not known:
        return None, ()
    latest = last(known)
    ranked = sorted(known, key=lambda item: (_likeness(item, latest), item.age_rank), reverse=True)
    misfits = [_misfits(item, wanted) for item in ranked]
    best = min(range(len(ranked)), key=lambda place: len(misfits[place]))  # the first of equals
    if not misfits[best]:
        return ranked[best], ()
    return None, (one_line(f"{step}: {'; '.join(misfits[best])}"),)


def last(known: Sequence[ReadEntry]) -> ReadEntry | None:
    """What the symbol was last promoted for; without a mark the newest, None for no entries."""
    return max(known, key=lambda item: (item.entry.newest, item.age_rank), default=None)


def pinned(pin: SnapshotPin) -> RuntimeSettings:
    """The settings of a pin. Raises whatever reading a damaged one raises."""
    _text("settings_json", pin.settings_json)
    if not isinstance(pin.since, datetime):
        raise TypeError("since is no time")
    return RuntimeSettings.from_json(pin.settings_json)


def _read(entry: SnapshotEntry) -> ReadEntry:
    for name in _TEXTS:
        _text(name, getattr(entry, name))
    if not isinstance(entry.promotion_id, int) or not isinstance(entry.newest, bool):
        raise TypeError("promotion_id must be a whole number and newest true or false")
    if not isinstance(entry.since, datetime) or entry.since.tzinfo is None:
        raise TypeError("since must be a time with its zone")
    _text("settings_json", entry.settings_json)
    canary_of(entry.promised_json)  # one that cannot be read would go to every process
    return ReadEntry(
        entry=entry,
        settings=_settings(entry.settings_json),
        workload=_workload(entry.workload_json),
    )


def _text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {value!r}")


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError(f"not an object of fields: {text[:60]}")
    return value


# Thousands of entries share a few of these texts.
_KEPT = 256


@functools.lru_cache(maxsize=_KEPT)
def _settings(text: str) -> RuntimeSettings:
    return RuntimeSettings.from_json(text)


@functools.lru_cache(maxsize=_KEPT)
def _workload(text: str) -> Workload:
    return Workload.from_dict(_object(text))


@functools.lru_cache(maxsize=_KEPT)
def _environment(text: str) -> Environment:
    return Environment.from_dict(_object(text))


def _likeness(item: ReadEntry, other: ReadEntry | None) -> int:
    if other is None:
        return 0
    names = ("model", "workload_signature", "profile")
    return sum(getattr(item.entry, name) == getattr(other.entry, name) for name in names)


def _misfits(item: ReadEntry, wanted: Criteria) -> list[str]:
    entry, misfits = item.entry, []
    if wanted.model is not None and entry.model != wanted.model:
        misfits.append(f"made for another model: {entry.model} there, {wanted.model} wanted")
    if wanted.workload is not None and entry.workload_signature != wanted.workload.signature:
        misfits.append(f"made for another workload: {_unequal(item.workload, wanted.workload)}")
    if wanted.profile is not None and entry.profile != wanted.profile:
        misfits.append(f"made for another profile: {entry.profile} there, {wanted.profile} wanted")
    elsewhere = _elsewhere(entry, wanted.environment)
    if elsewhere:
        misfits.append(f"measured in another environment: {elsewhere}")
    return misfits


def _unequal(there: Workload, wanted: Workload) -> str:
    theirs, ours = _flat(there), _flat(wanted)
    names = [name for name in (*ours, *theirs) if theirs.get(name) != ours.get(name)]
    listed = (f"{n}: {theirs.get(n)} there, {ours.get(n)} wanted" for n in dict.fromkeys(names))
    return ", ".join(listed) or f"signature: another than {wanted.signature}"


def _flat(workload: Workload) -> dict[str, Any]:
    fields = {"concurrency": 1, **workload.to_dict()}
    requests = fields.pop("requests")
    if len(requests) > 1:
        return {**fields, "requests": workload.summary}
    return {**fields, **requests[0], "weight": 1.0}  # of a single request shape the weight changes nothing


def _elsewhere(entry: SnapshotEntry, here: Environment) -> str:
    """How the environment of an entry differs from this one with the same engine; empty where it does not."""
    if entry.environment_fingerprint == here.fingerprint:
        return ""
    differences: tuple[str, ...] = ()
    with contextlib.suppress(Exception):  # what cannot be read is another environment for certain
        there = _environment(entry.environment_json)
        here = here.here_for(there)
        if there.fingerprint == entry.environment_fingerprint == here.fingerprint:
            return ""
        differences = here.differences(there)
    fingerprints = f"fingerprint: {entry.environment_fingerprint} there, {here.fingerprint} here"
    return ", ".join(differences) or fingerprints
