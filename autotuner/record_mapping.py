"""The store's records in the tuner's own types, and back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from autotuner.environment import Environment
from autotuner.errors import AutotuneError, UsageError, cause
from autotuner.figures import Figures, figures_from_json
from autotuner.machine.process import Owner, this_host
from autotuner.measurement.outcome import Failed, Measured, Outcome, measured_from_json, measured_to_json
from autotuner.serving.spool import Note, Quarantine, note_fields, parse_note, read_fields
from autotuner.workload import Workload
from storage.errors import OF_ONE_ROW, StorageError
from storage.records import (
    MEASURED,
    MeasurementRecord,
    PromotionKind,
    PromotionRecord,
    RunRecord,
    Stage,
    TelemetryRecord,
)
from toto_core.settings import RuntimeSettings, SettingsError

if TYPE_CHECKING:  # a forecast maps a time and opens no store
    from storage.repository import Repository


@dataclass(frozen=True, kw_only=True)
class _TunedFor:
    """What a run and a promotion alike are about."""

    symbol: str
    workload: Workload
    environment: Environment

    @property
    def keys(self) -> dict[str, Any]:
        """The columns by which the store finds what is about the same symbol, workload and environment."""
        return {
            "symbol": self.symbol,
            "workload_signature": self.workload.signature,
            "environment_fingerprint": self.environment.fingerprint,
        }


@dataclass(frozen=True, kw_only=True)
class Subject(_TunedFor):
    """What a run is about: everything two measurements must share to be comparable."""

    series_digest: str
    model_digest: str

    @property
    def study(self) -> str:
        """The name by which its runs and its Optuna studies are found again."""
        return f"{self.symbol} {self.workload.signature} {self.environment.fingerprint}"


@dataclass(frozen=True, kw_only=True)
class Promotion(_TunedFor):
    """One line of the ledger in the tuner's own types; ``figures`` are what it rests on."""

    profile: str
    settings: RuntimeSettings
    verdict: str
    reason: str
    figures: Figures
    promoted_at: datetime
    kind: PromotionKind = "run"
    id: int | None = None
    run_id: str | None = None
    rolled_back_at: datetime | None = None
    rolled_back_reason: str | None = None


_SAME_FIELDS = ("profile", "verdict", "reason", "promoted_at", "kind", "run_id")
_FROM_THE_STORE = ("id", "rolled_back_at", "rolled_back_reason")


def promotion_record(promotion: Promotion) -> PromotionRecord:
    """A promotion as the ledger keeps it."""
    return PromotionRecord(
        **promotion.keys,
        **{name: getattr(promotion, name) for name in _SAME_FIELDS},
        model=promotion.workload.model,
        settings_key=promotion.settings.key,
        settings_json=promotion.settings.to_json(),
        evidence_json=promotion.figures.to_json(),
    )


def measurement_record(
    subject: Subject, run_id: str, settings: RuntimeSettings, outcome: Outcome, stage: Stage
) -> MeasurementRecord:
    """An outcome as the store keeps it, made now."""
    return MeasurementRecord(
        **subject.keys,
        run_id=run_id,
        series_digest=subject.series_digest,
        model_digest=subject.model_digest,
        settings_key=settings.key,
        settings_json=settings.to_json(),
        stage=stage,
        outcome=MEASURED if isinstance(outcome, Measured) else outcome.kind,
        detail="" if isinstance(outcome, Measured) else outcome.detail,
        measurement_json=measured_to_json(outcome) if isinstance(outcome, Measured) else None,
        measured_at=datetime.now(UTC),
    )


class Subjects:
    """Stored workloads and environments, each read once: thousands of symbols share a few."""

    def __init__(self, records: Repository) -> None:
        self._records = records
        self._workloads: dict[str, Workload] = {}
        self._environments: dict[str, Environment] = {}

    def about(self, record: MeasurementRecord | PromotionRecord) -> dict[str, Any]:
        """What a record names. Raises what reading it raises, ``StorageError`` when it is not there."""
        signature, fingerprint = record.workload_signature, record.environment_fingerprint
        if signature not in self._workloads:
            text = self._records.workload(signature).workload_json
            self._workloads[signature] = Workload.from_dict(json.loads(text))
        if fingerprint not in self._environments:
            text = self._records.environment(fingerprint).facts_json
            self._environments[fingerprint] = Environment.from_dict(json.loads(text))
        return {
            "symbol": record.symbol,
            "workload": self._workloads[signature],
            "environment": self._environments[fingerprint],
        }


def read_subject(record: MeasurementRecord, subjects: Subjects, store: str) -> Subject:
    """What a measurement was about. Raises ``AutotuneError`` when it cannot be read."""
    try:
        about = subjects.about(record)
        return Subject(**about, series_digest=record.series_digest, model_digest=record.model_digest)
    except (AutotuneError, TypeError, ValueError) as error:
        raise AutotuneError(
            f"{store}: what {record.symbol} was measured for cannot be read: {error}; "
            f"measure it afresh with `autotune run --symbol {record.symbol}`"
        ) from None


def read_promotion(record: PromotionRecord, subjects: Subjects, store: str) -> Promotion:
    """A line of the ledger. Raises ``AutotuneError`` when it cannot be read."""
    try:
        return Promotion(
            **subjects.about(record),
            **{name: getattr(record, name) for name in (*_SAME_FIELDS, *_FROM_THE_STORE)},
            settings=RuntimeSettings.from_json(record.settings_json),
            figures=figures_from_json(record.evidence_json),
        )
    except (AutotuneError, SettingsError, TypeError, ValueError) as error:
        raise AutotuneError(
            f"{store}: promotion {record.id} of {record.symbol} cannot be read: {error}; "
            f"`autotune rollback {record.symbol}` takes it out of use"
        ) from None


def telemetry_record(note: Note) -> TelemetryRecord:
    """A note as the store keeps it."""
    if isinstance(note, Quarantine):
        begun = ended = note.failed_at
    else:
        begun, ended = note.window_start, note.window_end
    return TelemetryRecord(
        symbol=note.symbol,
        settings_key=note.settings_key,
        window_start=begun,
        window_end=ended,
        payload_json=json.dumps(note_fields(note)),
    )


@contextlib.contextmanager
def stored_of(symbol: str) -> Iterator[None]:
    """Raise whatever goes wrong with what is stored of ``symbol`` as one line that names it.

    What strangers wrote can fail in any way; errors that say so already, and those of the whole store, stay what
    they are.
    """
    try:
        yield
    except (*OF_ONE_ROW, UsageError) as error:  # nobody asked wrongly: it stands so in the store
        raise AutotuneError(f"{symbol}: {error}") from None
    except (AutotuneError, StorageError):
        raise
    except Exception as error:
        raise AutotuneError(
            f"{symbol}: what is stored of it cannot be used: {cause(error)}; "
            f"measure it afresh with `autotune run --symbol {symbol}`"
        ) from None


def read_note(record: TelemetryRecord) -> Note:
    """A stored note. Raises ``NoteError`` when it cannot be read."""
    fields = read_fields(record.payload_json)
    for name in ("window_start", "window_end"):  # earlier versions left the times of a recheck to the columns
        if name not in fields:
            fields[name] = getattr(record, name).isoformat()
    return parse_note(fields)


def read_settings(text: str) -> RuntimeSettings | None:
    """Stored settings, None when another version or a stranger wrote something this one cannot read."""
    try:
        return RuntimeSettings.from_json(text)
    except SettingsError:
        return None


def settings_key(text: str) -> str:
    """Check settings JSON from outside and return its key. Raises ``SettingsError``."""
    return RuntimeSettings.from_json(text).key


def workload_signature(text: str) -> str:
    """Check workload JSON from outside and return its signature. Raises ``UsageError``."""
    return Workload.from_dict(json.loads(text)).signature


def read_outcome(record: MeasurementRecord) -> Outcome | None:
    """The outcome of a record, None when another version wrote something this one cannot read."""
    try:
        if record.outcome == MEASURED:
            return measured_from_json(record.measurement_json or "")
        return Failed(kind=record.outcome, detail=record.detail)
    except ValueError:
        return None


def owner_runs_still(run: RunRecord) -> bool:
    """Whether the process that owns a run counts as alive; without a host, stored before 0003, it is of this one."""
    owner = Owner(pid=run.owner_pid, started=run.owner_started, host=run.owner_host or this_host())
    return owner.may_work_on(run.resumed_at or run.started_at)


def to_take_up(
    unfinished: Sequence[RunRecord], study: str, *, resume: bool
) -> tuple[list[RunRecord], RunRecord | None]:
    """Which of a subject's unfinished runs (oldest first) to give up, and which one to go on with, None for none."""
    given_up: list[RunRecord] = []
    for run in reversed(unfinished):
        if run.status == "running" and owner_runs_still(run):
            continue
        if resume and run.study_name == study:
            return given_up, run
        given_up.append(run)
    return given_up, None


class Tried(Protocol):
    """What was tried, as far as it says whether that stands."""

    @property
    def series_digest(self) -> str:
        """Of the prices it was measured on."""
        ...

    @property
    def outcome(self) -> str:
        """``MEASURED``, or the kind of failure."""
        ...

    @property
    def run_id(self) -> str:
        """The run that measured it."""
        ...


def stands(tried: Tried, series_digest: str, run_id: str | None) -> bool:
    """Whether a run (the one of ``run_id`` where it goes on) takes up what was tried on these prices.

    A failure counts only within the run that is going on.
    """
    if tried.series_digest != series_digest:
        return False
    return tried.outcome == MEASURED or (tried.run_id == run_id and tried.outcome != "timeout")


def moment(stamp: Any) -> datetime:
    """A numpy time stamp, which is UTC here, as an aware ``datetime``."""
    converted: datetime = stamp.astype("datetime64[us]").item()
    return converted.replace(tzinfo=UTC)
