"""Notes beside the store: what production saw and what a recheck found, as types, as JSON and as files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from autotuner.environment import Environment
from autotuner.errors import one_line
from autotuner.serving.note_values import PER_OCTAVE, Shape, plain_value, read_value
from autotuner.serving.plain_values import WrongValue, parsed
from autotuner.workload import Workload
from storage.whole_files import written_whole
from toto_core.settings import RuntimeSettings

LOWEST_MS = 0.01
FELL_BACK = "quarantined: "
"""How the source of calls begins that run in eager fp32 because their settings failed; the reason follows."""
MOST_QUARANTINES = 16
"""Notes of one configuration's failures that wait in the spool at most, one a process."""


class NoteError(ValueError):
    """What is no note; the message is one line, the field and the reason."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a note is about: a symbol's settings on one environment; None for what is not known."""

    symbol: str
    settings_key: str
    environment_fingerprint: str
    profile: str | None = None
    model: str | None = None
    workload_signature: str | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Window(Labels):
    """The calls that one process made in one stretch of time, UTC.

    ``buckets`` is a histogram of milliseconds by place, ``PER_OCTAVE`` a doubling; ``shapes`` counts the calls of
    the first ``MOST_SHAPES`` shapes. ``out_of_memory`` counts the calls that were made smaller than asked for, and
    ``fitted_samples`` is the fewest sample paths that were decoded together in one, None where there was none.
    """

    window_start: datetime
    window_end: datetime
    longest_ms: float
    recompiles: int
    eager_calls: int
    limit_hits: int
    shapes: Mapping[Shape, int] = field(default_factory=dict)
    buckets: Mapping[int, int]
    out_of_memory: int = 0
    fitted_samples: int | None = None

    @property
    def calls(self) -> int:
        """How many calls there were."""
        return sum(self.buckets.values())

    def quantile_ms(self, share: float) -> float:
        """The ``share`` quantile in milliseconds: the upper end of its bucket, at most 9 % too high.

        Raises ``ValueError`` for a window without calls.
        """
        total, seen = self.calls, 0
        if not total:
            raise ValueError("telemetry: no call to take a quantile of")
        for place in sorted(self.buckets):
            seen += self.buckets[place]
            if seen >= share * total:
                break
        return LOWEST_MS * math.exp((place + 1) * math.log(2.0) / PER_OCTAVE)


@dataclass(frozen=True, kw_only=True)
class Quarantine(Labels):
    """Settings that failed to load, to compile or to stay compiled at ``failed_at``, UTC, in process ``pid``.

    ``process`` tells one process from every other, on whatever host; None in what versions before it wrote.
    """

    reason: str
    failed_at: datetime
    settings: RuntimeSettings | None = None
    workload: Workload | None = None
    environment: Environment | None = None
    pid: int | None = None
    process: str | None = None

    @property
    def file_name(self) -> str:
        """One name per symbol, model, settings, environment and process."""
        parts = (self.symbol, self.model, self.settings_key, self.environment_fingerprint)
        process = "" if self.process is None else f"-{_digest(self.process)[:8]}"
        return f"quarantine-{_digest(json.dumps(parts))[:16]}{process}.json"


@dataclass(frozen=True, kw_only=True)
class Recheck(Labels):
    """What came of measuring ``settings`` (a label) again; ``broken`` names the limits that do not hold.

    ``drift`` and ``quantile_shift`` are shares, None when the forecasts were not finite; ``series_digest`` names
    the prices they were measured on. ``failed`` says why nothing was measured, None when something was.
    """

    window_start: datetime
    window_end: datetime
    settings: str
    series_digest: str
    broken: tuple[str, ...]
    drift: float | None
    quantile_shift: float | None
    drift_budget: float
    failed: str | None

    @property
    def kept(self) -> bool:
        """Whether every limit holds."""
        return not self.broken

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.window_end - self.window_start).total_seconds()


Note = Window | Quarantine | Recheck
KINDS: dict[str, type[Note]] = {"telemetry": Window, "quarantine": Quarantine, "recheck": Recheck}


def kind_of(note: Note) -> str:
    """What the JSON of a note calls its kind."""
    return next(name for name, kind in KINDS.items() if isinstance(note, kind))


def parse_note(given: str | Mapping[str, Any]) -> Note:
    """Read a note, JSON text or its fields; others than a note's own are ignored. Raises ``NoteError``."""
    fields = read_fields(given) if isinstance(given, str) else given
    name = fields.get("kind")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise NoteError(f"kind: must be one of {', '.join(KINDS)}")
    any_kind: Any = kind
    note = kind(
        **{
            name: _value(name, declared, fields[name])
            for name, declared, has_default in _declared(any_kind)
            if _given(name, has_default, fields)
        }
    )
    _check_whole(note, fields)
    return note


def read_fields(text: str) -> dict[str, Any]:
    """The fields of a JSON object, unchecked. Raises ``NoteError``."""
    try:
        fields = parsed(text)
    except ValueError as error:
        raise NoteError(f"note: cannot be read as JSON: {error}") from None
    if not isinstance(fields, dict):
        raise NoteError("note: must be one object of fields")
    return fields


def note_fields(note: Note) -> dict[str, Any]:
    """The inverse of ``parse_note``: plain values."""
    fields = {"kind": kind_of(note)} | {name: plain_value(value) for name, value in vars(note).items()}
    return fields | {"calls": note.calls} if isinstance(note, Window) else fields


def write_note(folder: Path, name: str, note: Note) -> None:
    """Write a JSON note, 0600, whole or not at all, over an earlier one; ``folder`` is made 0700.

    Raises ``OSError``.
    """
    with written_whole(folder / name) as aside:
        aside.write_text(json.dumps(note_fields(note), separators=(",", ":")), encoding="utf-8")


def leave_quarantine(folder: Path, note: Quarantine) -> None:
    """Write the note; beside those that other processes left, of which the oldest go, as a crash loop makes many.

    Raises ``OSError``.
    """
    write_note(folder, note.file_name, note)
    same = f"{note.file_name.rpartition('-')[0]}-*.json"
    others = [path for path in folder.glob(same) if path.name != note.file_name]
    with contextlib.suppress(OSError):  # the daemon takes them in meanwhile
        others.sort(key=lambda path: path.lstat().st_mtime)
        for path in others[: max(0, len(others) + 1 - MOST_QUARANTINES)]:
            path.unlink()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _declared(kind: Any) -> tuple[tuple[str, str, bool], ...]:
    """Of each field: its name, its type, and whether it may be missing."""
    missing = dataclasses.MISSING
    return tuple(
        (each.name, str(each.type), each.default is not missing or each.default_factory is not missing)
        for each in dataclasses.fields(kind)
    )


def _given(name: str, has_default: bool, fields: Mapping[str, Any]) -> bool:
    if name in fields:
        return True
    if not has_default:
        raise NoteError(f"{name}: is missing")
    return False


def _value(name: str, declared: str, value: object) -> Any:
    try:
        return read_value(name, declared, value)
    except WrongValue as error:
        raise NoteError(str(error)) from None
    except Exception as error:  # what a stranger wrote can fail in any way
        raise NoteError(f"{name}: {one_line(str(error))}") from None


def _check_whole(note: Note, fields: Mapping[str, Any]) -> None:
    if not isinstance(note, Quarantine) and note.window_end < note.window_start:
        raise NoteError("window_end: must not be before window_start")
    calls = fields.get("calls")
    if isinstance(note, Window) and (type(calls) is not int or calls != note.calls):
        raise NoteError("calls: must be as many as the buckets hold")
