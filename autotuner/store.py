"""The only mapping between the tuner's own types and the store's records."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from autotuner.engines.interpreters import environment_like
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.machine.process import Owner
from autotuner.paths import is_file, snapshot_path, store_path
from autotuner.record_mapping import (
    Promotion,
    Subject,
    Subjects,
    moment,
    promotion_record,
    read_promotion,
    read_settings,
    to_take_up,
)
from autotuner.serving.manifest import ManifestSummary
from autotuner.stored_trials import StoredTrials
from autotuner.workload import Workload
from storage.database import open_database
from storage.errors import StorageError
from storage.records import (
    ArtifactRecord,
    EnvironmentRecord,
    PinRecord,
    PromotionRecord,
    RunRecord,
    RunStatus,
    SelfTestRecord,
    SeriesRecord,
    WorkloadRecord,
)
from storage.repository import Repository
from toto_core.prices.options import EMBEDDED, PriceSource
from toto_core.settings import RuntimeSettings

if TYPE_CHECKING:  # it needs numpy, which takes as long to import as a listing takes to print
    from toto_core.series import PriceSeries

__all__ = ["Promotion", "Store", "Subject"]


class Store(StoredTrials):
    """The store in the tuner's own words; a context manager. Methods raise ``StorageError``, one line each."""

    def __init__(self, location: str, *, create: bool = True, publish: bool = True) -> None:
        """Open the store at a path or URL; without ``create`` a missing file raises ``AutotuneError``.

        A snapshot that is not of the ledger's newest state is published again, where it can be; not without
        ``publish``, for who looks at the snapshot itself. ``published_again`` says whether it was.
        """
        if not create and is_file(location) and not store_path(location).exists():
            raise AutotuneError(
                f"{store_path(location)}: no store yet; `autotune run --symbol AMD` makes one, "
                "--db or AUTOTUNE_DB names another"
            )
        self.location = location
        self._database = open_database(location)
        self.records = Repository(self._database, snapshot_path(location))
        self._subjects = Subjects(self.records)
        self.published_again = False
        if publish:
            with contextlib.suppress(StorageError):  # what is asked of the store may be done all the same
                self.published_again = self.records.publish_if_behind()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def remember(self, subject: Subject, series: PriceSeries) -> None:
        """Store what a run's records will refer to."""
        self.remember_setting(subject.workload, subject.environment)
        self.records.put(
            SeriesRecord(
                digest=series.digest,
                symbol=series.symbol,
                source=series.source,
                points=len(series),
                first_timestamp=moment(series.timestamps[0]),
                last_timestamp=moment(series.timestamps[-1]),
                first_seen=datetime.now(UTC),
            )
        )

    def remember_setting(self, workload: Workload, environment: Environment) -> None:
        """Store a workload and an environment."""
        now = datetime.now(UTC)
        self.records.put(
            EnvironmentRecord(
                fingerprint=environment.fingerprint, facts_json=environment.to_json(), first_seen=now
            ),
            WorkloadRecord(signature=workload.signature, workload_json=workload.to_json(), first_seen=now),
        )

    def remember_artifacts(
        self, subject: Subject, settings: RuntimeSettings, folder: Path, summary: ManifestSummary
    ) -> None:
        """Store where the artifacts of a configuration lie and the checksum of their list."""
        self.records.add_artifact(
            ArtifactRecord(
                environment_fingerprint=subject.environment.fingerprint,
                settings_key=settings.key,
                model_digest=subject.model_digest,
                engine_version=subject.environment.engine,
                path=str(folder),
                sha256=summary.sha256,
                bytes=summary.bytes,
                created_at=datetime.now(UTC),
            )
        )

    def remember_selftest(self, environment: Environment, result: Mapping[str, Any], *, at: datetime) -> None:
        """Store what a self-test found of an environment."""
        self.records.add_selftest(
            SelfTestRecord(
                environment_fingerprint=environment.fingerprint, measured_at=at, result_json=dumps(result)
            )
        )

    def selftest(self, environment: Environment) -> dict[str, Any] | None:
        """The newest self-test of an environment with its ``measured_at``, None when there was none."""
        record = self.records.newest_selftest(environment.fingerprint)
        if record is None:
            return None
        result = loads(record.result_json)
        if not isinstance(result, dict):  # another version's, or a stranger's
            return None
        return result | {"measured_at": record.measured_at.isoformat()}

    def begin_run(
        self, subject: Subject, *, profile: str, seed: int, study: str, resume: bool
    ) -> tuple[str, bool]:
        """The id of a new run, or of a matching unfinished one whose owner is gone, and whether it goes on."""
        now = datetime.now(UTC)
        owner = {f"owner_{name}": value for name, value in Owner.current().to_dict().items()}
        unfinished = self.records.unfinished_runs(profile=profile, **subject.keys)
        given_up, taken_up = to_take_up(unfinished, study, resume=resume)
        for run in given_up:
            self.records.finish_run(run.run_id, "failed", now)
        if taken_up is not None:
            self.records.resume_run(taken_up.run_id, **owner, resumed_at=now)
            return taken_up.run_id, True
        run_id = str(uuid.uuid4())
        self.records.start_run(
            RunRecord(
                **subject.keys,
                **owner,
                run_id=run_id,
                profile=profile,
                seed=seed,
                started_at=now,
                study_name=study,
            )
        )
        return run_id, False

    def end_run(self, run_id: str, status: RunStatus, summary: Mapping[str, Any] | None = None) -> None:
        """Mark a run as finished, interrupted or failed."""
        text = None if summary is None else dumps(summary)
        self.records.finish_run(run_id, status, datetime.now(UTC), text)

    def champion(self, subject: Subject, profile: str) -> Promotion | None:
        """What is active for exactly this symbol, profile, workload and environment."""
        record = self.records.active_promotion(profile=profile, **subject.keys)
        return None if record is None else self.read(record)

    def active(self, symbol: str, profile: str | None = None) -> Promotion | None:
        """What the symbol was last promoted for."""
        record = self.records.active_promotion(symbol, profile=profile)
        return None if record is None else self.read(record)

    def active_in(self, symbol: str, profile: str | None, fingerprints: Collection[str]) -> Promotion | None:
        """What the symbol was last promoted for in an environment of these fingerprints, else in any."""
        wanted = [
            self.records.active_promotion(symbol, profile=profile, environment_fingerprint=fingerprint)
            for fingerprint in fingerprints
        ]
        found = [record for record in wanted if record is not None]
        return (
            self.read(max(found, key=lambda record: record.id or 0))
            if found
            else self.active(symbol, profile)
        )

    def fingerprints_like(self, environment: Environment) -> frozenset[str]:
        """What is stored of this environment, by whichever engine: each engine's has a fingerprint of its own."""
        like = {environment.fingerprint}
        for record in self.records.environments():
            with contextlib.suppress(TypeError, ValueError, AutotuneError):  # of another version
                known = Environment.from_dict(loads(record.facts_json))
                if environment_like(known, environment) == known:
                    like.add(record.fingerprint)
        return frozenset(like)

    def price_source(self, promotion: Promotion) -> PriceSource:
        """Where the prices lay on which a promotion rests, and how they were read.

        Of a promotion of a version that did not keep this: what its symbol was last measured on in its environment.
        """
        if promotion.figures.prices is not None:
            return promotion.figures.prices
        subject = self.measured_subject(promotion.symbol, {promotion.environment.fingerprint})
        if subject is None:
            return PriceSource()
        source = self.records.series(subject.series_digest).source
        return PriceSource(data=None if source == EMBEDDED else source)

    def winners_elsewhere(
        self, subject: Subject, ledger: Sequence[PromotionRecord] | None = None
    ) -> tuple[RuntimeSettings, ...]:
        """Configurations active for other symbols of the same workload and environment, newest first.

        ``ledger`` is what is active, read unless given.
        """
        same = (subject.workload.signature, subject.environment.fingerprint)
        found = [
            read_settings(record.settings_json)
            for record in (self.records.active_promotions() if ledger is None else ledger)
            if record.symbol != subject.symbol
            and (record.workload_signature, record.environment_fingerprint) == same
        ]
        return tuple(dict.fromkeys(settings for settings in reversed(found) if settings is not None))

    def promote(self, promotion: Promotion, *, instead_of: int | None = None) -> None:
        """Append to the ledger and publish the snapshot, both or neither.

        With ``instead_of``, an id, only while that promotion is active for the same: raises ``NotFound`` else.
        """
        self.remember_setting(promotion.workload, promotion.environment)
        self.records.add_promotion(promotion_record(promotion), instead_of=instead_of)

    def pin(self, symbol: str, settings: RuntimeSettings, reason: str) -> None:
        """Fix a symbol's settings, whatever is promoted."""
        self.records.pin(
            PinRecord(
                symbol=symbol,
                settings_key=settings.key,
                settings_json=settings.to_json(),
                reason=reason,
                pinned_at=datetime.now(UTC),
            )
        )

    def publish(self) -> None:
        """Write the snapshot that production reads once more; every change of the ledger does so by itself."""
        self.records.publish_snapshot(snapshot_path(self.location))

    def read(self, record: PromotionRecord) -> Promotion:
        """A line of the ledger in the tuner's own types. Raises ``AutotuneError`` when it cannot be read."""
        return read_promotion(record, self._subjects, self.location)
