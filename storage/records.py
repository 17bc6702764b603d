"""What the store keeps, as frozen records of keys, plain values and JSON text, checked by declared type."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from storage.errors import InvalidRecord

Stage = Literal["search", "compare"]
RunStatus = Literal["running", "finished", "interrupted", "failed"]
PromotionKind = Literal["run", "select", "import"]

MEASURED = "measured"
UNFINISHED: tuple[RunStatus, ...] = ("running", "interrupted")

_SYMBOL = re.compile(r"[A-Z0-9^][A-Z0-9._=&/^-]{0,31}")
_NO_SYMBOL = "is not a symbol: use capitals, digits and . _ = & / ^ -, at most 32 characters"
_UNKEPT = re.compile("[\ud800-\udfff]")
_MAY_BE_EMPTY = frozenset({"detail", "reason", "rolled_back_reason"})
_RECURS_BELOW = 1_000  # characters; settings are shorter and the same for many symbols
_READ_ELSEWHERE = frozenset({"payload_json"})  # one note that cannot be read must not hide the others


def check_symbol(symbol: object) -> str:
    """The symbol unchanged. Raises `InvalidRecord` unless it matches `[A-Z0-9^][A-Z0-9._=&/^-]{0,31}`."""
    if isinstance(symbol, str) and _SYMBOL.fullmatch(symbol):
        return symbol
    raise InvalidRecord(f"{symbol!r} {_NO_SYMBOL}")


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of all records. Raises `InvalidRecord` naming the field for a value of the wrong type or range."""

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, may_be_none, check in _checks(kind):
            value = getattr(self, name)
            if value is None and may_be_none:
                continue
            fault = check(name, value)
            if fault:
                raise InvalidRecord(f"{type(self).__name__}.{name} {fault}")


@dataclass(frozen=True, kw_only=True)
class EnvironmentRecord(Record):
    """What a fingerprint stands for. `facts_json` is the caller's; `first_seen` is UTC."""

    fingerprint: str
    facts_json: str
    first_seen: datetime


@dataclass(frozen=True, kw_only=True)
class WorkloadRecord(Record):
    """What a workload signature stands for."""

    signature: str
    workload_json: str
    first_seen: datetime


@dataclass(frozen=True, kw_only=True)
class SeriesRecord(Record):
    """A price history that was measured on, by digest; the prices themselves are not stored."""

    digest: str
    symbol: str
    source: str
    points: int
    first_timestamp: datetime
    last_timestamp: datetime
    first_seen: datetime


@dataclass(frozen=True, kw_only=True)
class MeasurementRecord(Record):
    """One trial's outcome: `measured`, or the kind of failure with its detail. `id` is None until stored."""

    run_id: str
    symbol: str
    workload_signature: str
    environment_fingerprint: str
    series_digest: str
    model_digest: str
    settings_key: str
    settings_json: str
    stage: Stage
    outcome: str
    measured_at: datetime
    detail: str = ""
    measurement_json: str | None = None
    id: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outcome == MEASURED and self.measurement_json is None:
            raise InvalidRecord(
                "MeasurementRecord.measurement_json is missing although the outcome is measured"
            )


@dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """One tuning run. `owner_started`: its process's start, seconds since 1970, tells a reused pid.

    `owner_host` is None for a run of a version that did not know it, `resumed_at` unless another process took over.
    """

    run_id: str
    symbol: str
    workload_signature: str
    environment_fingerprint: str
    profile: str
    seed: int
    started_at: datetime
    owner_pid: int
    owner_started: float
    study_name: str
    owner_host: str | None = None
    resumed_at: datetime | None = None
    status: RunStatus = "running"
    finished_at: datetime | None = None
    summary_json: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.status == "running") != (self.finished_at is None):
            raise InvalidRecord(
                f"RunRecord.finished_at {self.finished_at} contradicts the status {self.status}"
            )


@dataclass(frozen=True, kw_only=True)
class PromotionRecord(Record):
    """One line of the ledger. `id` is None until stored; the roll-back fields are set by reading only."""

    symbol: str
    profile: str
    model: str
    workload_signature: str
    environment_fingerprint: str
    verdict: str
    reason: str
    settings_key: str
    settings_json: str
    evidence_json: str
    promoted_at: datetime
    kind: PromotionKind
    run_id: str | None = None
    id: int | None = None
    rolled_back_at: datetime | None = None
    rolled_back_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class PinRecord(Record):
    """The configuration that a person has fixed for a symbol, whatever is promoted."""

    symbol: str
    settings_key: str
    settings_json: str
    reason: str
    pinned_at: datetime


@dataclass(frozen=True, kw_only=True)
class UnpinRecord(Record):
    """The end of a symbol's pin."""

    symbol: str
    reason: str
    pinned_at: datetime


@dataclass(frozen=True, kw_only=True)
class ArtifactRecord(Record):
    """Stored compile artifacts: where they lie, `bytes` long, with the digest to check before use."""

    environment_fingerprint: str
    settings_key: str
    model_digest: str
    engine_version: str
    path: str
    sha256: str
    bytes: int
    created_at: datetime
    id: int | None = None


@dataclass(frozen=True, kw_only=True)
class LeaseRecord(Record):
    """The right to measure on a device until `expires_at`; `token` grows with every holder."""

    device: str
    owner: str
    token: int
    acquired_at: datetime
    heartbeat_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class TelemetryRecord(Record):
    """What production saw of one symbol's configuration in one window; ``payload_json`` is the caller's to read."""

    symbol: str
    settings_key: str
    window_start: datetime
    window_end: datetime
    payload_json: str
    id: int | None = None


@dataclass(frozen=True, kw_only=True)
class SelfTestRecord(Record):
    """What a self-test found of one environment."""

    environment_fingerprint: str
    measured_at: datetime
    result_json: str
    id: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImportCounts(Record):
    """How much of a document was new to the store."""

    environments: int
    workloads: int
    promotions: int
    pins: int


@functools.cache
def _checks(kind: Any) -> tuple[tuple[str, bool, Callable[[str, Any], str]], ...]:
    """Of each field: its name, whether it may be None, and what says why a value does not fit."""
    declared = ((field.name, str(field.type)) for field in fields(kind))
    return tuple(
        (name, kind_.endswith(" | None"), _CHECKS[kind_.removesuffix(" | None")]) for name, kind_ in declared
    )


def _text_fault(name: str, value: Any) -> str:
    if not isinstance(value, str):
        return f"is {type(value).__name__}: give text"
    if not value and name not in _MAY_BE_EMPTY:
        return "is empty"
    if "\0" in value or (not value.isascii() and _UNKEPT.search(value)):
        return "holds a NUL or half a surrogate pair, which no database keeps"
    if name == "symbol" and not _SYMBOL.fullmatch(value):
        return f"{value!r} {_NO_SYMBOL}"
    if not name.endswith("_json") or name in _READ_ELSEWHERE:
        return ""
    return _known_json_fault(value) if len(value) < _RECURS_BELOW else json_fault(value)


def json_fault(value: str) -> str:
    """Why a text is no JSON, empty when it is."""
    try:
        json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    return ""


_known_json_fault = functools.lru_cache(maxsize=1024)(json_fault)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _int_fault(_name: str, value: Any) -> str:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return "" if fits else f"is {value!r}: give a whole number from 0 to 2^63 - 1"


def _float_fault(_name: str, value: Any) -> str:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return "" if fits else f"is {value!r}: give a finite number"


def _time_fault(_name: str, value: Any) -> str:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        return f"is {value!r}: give a datetime with a time zone"
    try:
        value.astimezone(UTC)
    except OverflowError:
        return f"is {value}: give a time that exists in UTC"
    return ""


def _choice(choices: Any) -> Callable[[str, Any], str]:
    allowed = get_args(choices)
    return lambda _name, value: "" if value in allowed else f"is {value!r}: use one of {', '.join(allowed)}"


_CHECKS: dict[str, Callable[[str, Any], str]] = {
    "str": _text_fault,
    "int": _int_fault,
    "float": _float_fault,
    "datetime": _time_fault,
    "Stage": _choice(Literal[Stage, "finalists", "duel"]),  # the last two only in what is stored already
    "RunStatus": _choice(RunStatus),
    "PromotionKind": _choice(PromotionKind),
}
