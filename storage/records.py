"""What the store keeps, as frozen records of keys, plain values and JSON text, checked by declared type."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from datetime import datetime
from typing import Any, Literal

from storage.checks import EARLIEST, choice, float_fault, int_fault, text_fault, time_fault
from storage.errors import InvalidRecord

Stage = Literal["search", "compare"]
RunStatus = Literal["running", "finished", "interrupted", "failed"]
PromotionKind = Literal["run", "select", "import"]

MEASURED = "measured"
UNFINISHED: tuple[RunStatus, ...] = ("running", "interrupted")


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


def _fault(field: Field[Any], value: Any) -> str:
    declared = str(field.type).removesuffix(" | None")
    if value is None and declared != field.type:
        return ""
    return _CHECKS[declared](field.name, value)


def unknown_for(field: Field[Any], value: Any) -> Any:
    """``value``, or what stands for it where the field must not hold it: nothing, a time long ago, a text."""
    if not _fault(field, value):
        return value
    declared = str(field.type)
    if declared.endswith(" | None"):
        return None
    if field.name.endswith("_json"):
        return "null"
    return {"int": 0, "float": 0.0, "datetime": EARLIEST, "PromotionKind": "run"}.get(declared, "unknown")


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
    """One tuning run. `owner_started`: its process's start, which tells a reused pid.

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


_CHECKS: dict[str, Callable[[str, Any], str]] = {
    "str": text_fault,
    "int": int_fault,
    "float": float_fault,
    "datetime": time_fault,
    "Stage": choice(Literal[Stage, "finalists", "duel"]),  # the last two only in what is stored already
    "RunStatus": choice(RunStatus),
    "PromotionKind": choice(PromotionKind),
}
