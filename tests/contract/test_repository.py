"""What every backend of the store must do: add a backend's name to `BACKENDS` and a branch to `store`."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from storage.database import Database
from storage.errors import InvalidDocument, InvalidRecord, MissingReference, NotFound, StorageError
from storage.models import ARTIFACTS
from storage.records import (
    ArtifactRecord,
    EnvironmentRecord,
    PinRecord,
    PromotionRecord,
    SelfTestRecord,
    TelemetryRecord,
    WorkloadRecord,
)
from storage.repository import Repository
from storage.rows import to_record
from storage.snapshot import read_snapshot
from tests.support.postgres import Server, emptied, opened
from tests.support.storage_samples import (
    ENVIRONMENT,
    MEASUREMENT,
    NOW,
    PIN,
    PROMOTION,
    RUN,
    SERIES,
    WORKLOAD,
    new_store,
    with_subjects,
)

BACKENDS = ["sqlite", "postgresql"]
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def on_server(postgres: Server) -> Iterator[Database]:
    with opened(postgres) as database:
        yield database


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        with new_store(tmp_path / "autotune.db") as database:
            yield database
    else:
        yield emptied(request.getfixturevalue("on_server"))


@pytest.fixture
def repository(store: Database) -> Repository:
    return with_subjects(store)


def _key(settings_json: str) -> str:
    if not isinstance(json.loads(settings_json), dict):
        raise ValueError("settings are not an object")
    return f"key:{settings_json}"


# Subjects


def test_subjects_are_kept_as_they_were_first_seen(repository: Repository) -> None:
    repository.put(replace(ENVIRONMENT, facts_json="{}", first_seen=NOW + HOUR))
    repository.put(replace(WORKLOAD, workload_json="{}", first_seen=NOW + HOUR))
    repository.put(replace(SERIES, points=5, first_seen=NOW + HOUR))
    assert repository.environment("env-1") == ENVIRONMENT
    assert repository.workload("load-1") == WORKLOAD
    assert repository.series("series-1") == SERIES


@pytest.mark.parametrize("subject", ["environment", "workload", "series"])
def test_an_unknown_subject_is_not_found(repository: Repository, subject: str) -> None:
    with pytest.raises(NotFound, match=f"no {subject} nowhere"):
        getattr(repository, subject)("nowhere")


def test_times_come_back_in_utc_to_the_microsecond(store: Database) -> None:
    there = datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=timezone(timedelta(hours=-7)))
    Repository(store).put(replace(ENVIRONMENT, first_seen=there))
    seen = Repository(store).environment("env-1").first_seen
    assert (seen, seen.utcoffset()) == (there, timedelta(0))


@pytest.mark.parametrize("text", ["'; DROP TABLE series; --", "ü\u2028\n\t\x01", "\U0001d7d9" * 2000])
def test_any_text_is_kept_as_it_is(repository: Repository, text: str) -> None:
    repository.put(replace(SERIES, digest="other", source=text))
    assert repository.series("other").source == text


# Measurements


def test_measurements_come_back_whole_and_in_order(repository: Repository) -> None:
    failed = replace(MEASUREMENT, outcome="crashed", detail="signal 11", measurement_json=None)
    added = [repository.add_measurement(record) for record in (MEASUREMENT, failed, MEASUREMENT)]
    assert added == sorted(set(added))
    assert repository.measurements() == tuple(
        replace(record, id=number)
        for record, number in zip((MEASUREMENT, failed, MEASUREMENT), added, strict=True)
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("symbol", "NVDA"),
        ("workload_signature", "load-2"),
        ("environment_fingerprint", "env-2"),
        ("model_digest", "model-2"),
        ("settings_key", "other"),
        ("stage", "duel"),
        ("run_id", "run-2"),
    ],
)
def test_measurements_are_found_by_each_of_their_fields(
    repository: Repository, field: str, value: str
) -> None:
    repository.put(replace(WORKLOAD, signature="load-2"))
    repository.put(replace(ENVIRONMENT, fingerprint="env-2"))
    repository.start_run(replace(RUN, run_id="run-2"))
    repository.add_measurement(MEASUREMENT)
    other = repository.add_measurement(replace(MEASUREMENT, **{field: value}))  # type: ignore[arg-type]
    wanted: dict[str, Any] = {field: value}
    assert [found.id for found in repository.measurements(**wanted)] == [other]
    wanted[field] = "none such"
    assert repository.measurements(**wanted) == ()
    assert len(repository.measurements()) == 2


def test_measurements_are_found_since_a_time_given_in_any_zone(repository: Repository) -> None:
    for hours in range(3):
        repository.add_measurement(replace(MEASUREMENT, measured_at=NOW + hours * HOUR))
    since = (NOW + HOUR).astimezone(timezone(timedelta(hours=9)))
    assert [found.measured_at for found in repository.measurements(since=since)] == [
        NOW + HOUR,
        NOW + 2 * HOUR,
    ]


@pytest.mark.parametrize(
    "field", ["workload_signature", "environment_fingerprint", "series_digest", "run_id"]
)
def test_a_measurement_of_something_unknown_is_refused(repository: Repository, field: str) -> None:
    with pytest.raises(MissingReference):
        repository.add_measurement(replace(MEASUREMENT, **{field: "unknown"}))  # type: ignore[arg-type]
    assert repository.measurements() == ()


def test_a_measurement_that_bears_an_id_is_not_new(repository: Repository) -> None:
    with pytest.raises(InvalidRecord, match="id is set"):
        repository.add_measurement(replace(MEASUREMENT, id=1))


# Runs


def test_a_run_is_unfinished_until_it_ends(repository: Repository) -> None:
    assert repository.unfinished_runs() == (RUN,)
    ended = repository.finish_run(RUN.run_id, "finished", NOW + HOUR, '{"trials":40}')
    assert ended == replace(RUN, status="finished", finished_at=NOW + HOUR, summary_json='{"trials":40}')
    assert repository.runs() == (ended,)
    assert repository.unfinished_runs() == ()


def test_an_interrupted_run_can_be_taken_over(repository: Repository) -> None:
    interrupted = repository.finish_run(RUN.run_id, "interrupted", NOW + HOUR)
    assert repository.unfinished_runs("AMD") == (interrupted,)
    owner: dict[str, Any] = {"owner_pid": 99, "owner_started": 12.5, "owner_host": "elsewhere"}
    resumed = repository.resume_run(RUN.run_id, **owner, resumed_at=NOW + 2 * HOUR)
    assert resumed == replace(RUN, **owner, resumed_at=NOW + 2 * HOUR)
    assert repository.runs() == (resumed,)


def test_a_run_whose_host_is_unknown_is_kept_so(repository: Repository) -> None:
    without = replace(RUN, run_id="run-2", owner_host=None)
    repository.start_run(without)
    assert without in repository.runs()


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_a_run_ends_once(repository: Repository, status: Any) -> None:
    ended = repository.finish_run(RUN.run_id, status, NOW)
    with pytest.raises(StorageError, match=f"has ended as {status}"):
        repository.finish_run(RUN.run_id, "interrupted", NOW)
    with pytest.raises(StorageError, match=f"has ended as {status}"):
        repository.resume_run(
            RUN.run_id, owner_pid=1, owner_started=1.0, owner_host="elsewhere", resumed_at=NOW
        )
    assert repository.runs() == (ended,)


def test_a_run_is_not_ended_by_nonsense(repository: Repository) -> None:
    with pytest.raises(InvalidRecord, match="status"):
        repository.finish_run(RUN.run_id, "asleep", NOW)  # type: ignore[arg-type]
    with pytest.raises(InvalidRecord, match="finished_at"):
        repository.finish_run(RUN.run_id, "running", NOW)
    with pytest.raises(NotFound, match="no run unknown"):
        repository.finish_run("unknown", "finished", NOW)
    assert repository.runs() == (RUN,)


def test_a_run_starts_once_and_running(repository: Repository) -> None:
    with pytest.raises(StorageError, match="stored already"):
        repository.start_run(replace(RUN, seed=8))
    with pytest.raises(InvalidRecord, match="starts as running"):
        repository.start_run(replace(RUN, run_id="run-2", status="failed", finished_at=NOW))
    assert repository.runs("AMD") == (RUN,)


@pytest.mark.parametrize("field", ["symbol", "workload_signature", "environment_fingerprint", "profile"])
def test_unfinished_runs_are_found_by_each_of_their_fields(repository: Repository, field: str) -> None:
    wanted: dict[str, Any] = {field: getattr(RUN, field)}
    assert repository.unfinished_runs(**wanted) == (RUN,)
    assert repository.unfinished_runs(**{field: "OTHER"}) == ()


def test_the_runs_of_a_symbol_come_in_the_order_they_started(repository: Repository) -> None:
    later = replace(RUN, run_id="0", started_at=NOW + HOUR)
    repository.start_run(later)
    earlier = replace(RUN, run_id="zzz", started_at=NOW - HOUR)
    repository.start_run(earlier)
    assert repository.runs("AMD") == repository.runs() == (earlier, RUN, later)
    assert repository.runs("NVDA") == ()


# The ledger


def test_the_newest_promotion_is_active_whatever_its_clock_says(repository: Repository) -> None:
    repository.add_promotion(PROMOTION)
    newest = replace(PROMOTION, settings_key="k2", promoted_at=NOW - HOUR)
    number = repository.add_promotion(newest)
    assert repository.active_promotion("AMD") == replace(newest, id=number)
    assert [promotion.settings_key for promotion in repository.promotions("AMD")] == ["default/bf16", "k2"]


def test_active_settings_are_kept_apart_by_profile_workload_and_environment(repository: Repository) -> None:
    repository.put(replace(WORKLOAD, signature="load-2"))
    repository.put(replace(ENVIRONMENT, fingerprint="env-2"))
    places = list(itertools.product(("production", "accuracy"), ("load-1", "load-2"), ("env-1", "env-2")))
    for key in ("old", "new"):
        for profile, load, environment in places:
            repository.add_promotion(
                replace(
                    PROMOTION,
                    profile=profile,
                    workload_signature=load,
                    environment_fingerprint=environment,
                    settings_key=f"{key}:{profile}:{load}:{environment}",
                )
            )
    for profile, load, environment in places:
        found = repository.active_promotion(
            "AMD", profile=profile, workload_signature=load, environment_fingerprint=environment
        )
        assert found is not None
        assert found.settings_key == f"new:{profile}:{load}:{environment}"
    assert len(repository.active_promotions()) == len(places)
    last = repository.active_promotion("AMD", environment_fingerprint="env-1")
    assert last is not None
    assert last.settings_key == "new:accuracy:load-2:env-1"


def test_what_was_never_promoted_has_no_active_settings(repository: Repository) -> None:
    repository.add_promotion(PROMOTION)
    assert repository.active_promotion("NVDA") is None
    assert repository.active_promotion("AMD", profile="accuracy") is None
    assert repository.active_promotion("amd; DROP TABLE promotions") is None


def test_rolling_back_brings_the_one_before_back_and_keeps_both_in_the_ledger(repository: Repository) -> None:
    first = replace(PROMOTION, id=repository.add_promotion(PROMOTION))
    second = replace(PROMOTION, settings_key="k2")
    second = replace(second, id=repository.add_promotion(second))
    taken, now_active = repository.roll_back("AMD", "slower at noon", NOW + HOUR)
    assert taken == replace(second, rolled_back_at=NOW + HOUR, rolled_back_reason="slower at noon")
    assert now_active == first == repository.active_promotion("AMD")
    assert repository.promotions("AMD") == (first, taken)
    assert repository.roll_back("AMD", "", NOW + HOUR)[1] is None
    with pytest.raises(NotFound, match="nothing to roll back for AMD") as caught:
        repository.roll_back("AMD", "again", NOW)
    assert len(str(caught.value).splitlines()) == 1
    again = repository.add_promotion(PROMOTION)
    assert repository.active_promotion("AMD") == replace(PROMOTION, id=again)


def test_rolling_back_can_be_kept_to_one_environment(repository: Repository) -> None:
    repository.put(replace(ENVIRONMENT, fingerprint="env-2"))
    here = repository.add_promotion(PROMOTION)
    there = repository.add_promotion(replace(PROMOTION, environment_fingerprint="env-2"))
    taken, now_active = repository.roll_back("AMD", "hot", NOW, environment_fingerprint="env-1")
    assert (taken.id, now_active) == (here, None)
    active = repository.active_promotion("AMD")
    assert active is not None
    assert active.id == there


def test_of_two_who_take_back_the_same_promotion_the_second_takes_back_nothing(
    repository: Repository,
) -> None:
    below = repository.add_promotion(PROMOTION)
    judged = repository.add_promotion(replace(PROMOTION, settings_key="k2"))
    repository.roll_back("AMD", "slower at noon", NOW, only=judged)
    with pytest.raises(NotFound, match=f"promotion {judged} is not active any more"):
        repository.roll_back("AMD", "slower at noon", NOW, only=judged)
    active = repository.active_promotion("AMD")
    assert active is not None
    assert active.id == below


def test_what_is_promoted_instead_of_another_is_so_only_while_that_one_is_active(
    repository: Repository,
) -> None:
    judged = repository.add_promotion(PROMOTION)
    elsewhere = replace(PROMOTION, profile="accuracy", settings_key="k2")
    repository.add_promotion(elsewhere)
    confirmed = replace(PROMOTION, reason="confirmed")
    newest = repository.add_promotion(confirmed, instead_of=judged)
    with pytest.raises(NotFound, match=f"promotion {judged} of AMD is not active any more"):
        repository.add_promotion(confirmed, instead_of=judged)
    active = repository.active_promotion("AMD", profile=PROMOTION.profile)
    assert active is not None
    assert active.id == newest
    assert len(repository.promotions("AMD")) == 3


def test_a_roll_back_at_no_time_is_refused_and_nothing_is_rolled_back(repository: Repository) -> None:
    repository.add_promotion(PROMOTION)
    with pytest.raises(InvalidRecord, match="rolled_back_at"):
        repository.roll_back("AMD", "now", datetime(2026, 1, 1))
    assert repository.active_promotion("AMD") is not None


@pytest.mark.parametrize("changes", [{"id": 5}, {"rolled_back_at": NOW}, {"rolled_back_reason": "why"}])
def test_a_promotion_that_is_not_new_is_refused(repository: Repository, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord, match=next(iter(changes))):
        repository.add_promotion(replace(PROMOTION, **changes))


@pytest.mark.parametrize("field", ["workload_signature", "environment_fingerprint", "run_id"])
def test_a_promotion_of_something_unknown_is_refused(repository: Repository, field: str) -> None:
    with pytest.raises(MissingReference):
        repository.add_promotion(replace(PROMOTION, **{field: "unknown"}))  # type: ignore[arg-type]
    assert repository.promotions() == ()


@pytest.mark.parametrize("table", ["promotions", "rollbacks", "pins"])
@pytest.mark.parametrize("change", ["DELETE FROM {}", "UPDATE {} SET reason = 'another'"])
def test_the_ledger_can_only_grow(store: Database, table: str, change: str) -> None:
    repository = with_subjects(store)
    repository.add_promotion(PROMOTION)
    repository.add_promotion(PROMOTION)
    repository.roll_back("AMD", "why", NOW)
    repository.pin(PIN)

    def alter() -> None:
        with store.write() as connection:
            connection.exec_driver_sql(change.format(table))

    before = (repository.promotions(), repository.pins())
    with pytest.raises(StorageError, match=f"{table} is append-only"):
        alter()
    assert (repository.promotions(), repository.pins()) == before


# Pins and symbols


def test_a_pin_holds_until_it_is_replaced_or_let_go(repository: Repository) -> None:
    repository.pin(PIN)
    repository.pin(replace(PIN, symbol="AAPL"))
    newer = replace(PIN, settings_key="k2", reason="")
    repository.pin(newer)
    assert repository.pins() == (replace(PIN, symbol="AAPL"), newer)
    assert repository.unpin("AMD", "week is over", NOW) == newer
    assert repository.pins() == (replace(PIN, symbol="AAPL"),)
    with pytest.raises(NotFound, match="AMD is not pinned"):
        repository.unpin("AMD", "again", NOW)
    repository.pin(PIN)
    assert PIN in repository.pins()


# The snapshot


def test_the_snapshot_holds_what_is_active_and_pinned(repository: Repository, tmp_path: Path) -> None:
    repository.put(replace(WORKLOAD, signature="load-2", workload_json='{"context_length":64}'))
    repository.add_promotion(replace(PROMOTION, settings_key="replaced"))
    first = repository.add_promotion(PROMOTION)
    last = repository.add_promotion(replace(PROMOTION, workload_signature="load-2"))
    repository.add_promotion(replace(PROMOTION, symbol="NVDA"))
    repository.roll_back("NVDA", "why", NOW)
    repository.pin(PIN)
    before = datetime.now(UTC)
    repository.publish_snapshot(tmp_path / "snapshot.db")
    read = read_snapshot(tmp_path / "snapshot.db")
    assert (read.entries, read.pins) == repository.snapshot_contents()
    assert [(entry.promotion_id, entry.newest) for entry in read.entries] == [(first, False), (last, True)]
    entry = read.entries[1]
    assert (entry.workload_json, entry.environment_json) == ('{"context_length":64}', ENVIRONMENT.facts_json)
    assert (entry.promised_json, entry.since) == (PROMOTION.evidence_json, NOW)
    assert [(pin.symbol, pin.settings_key, pin.since) for pin in read.pins] == [("AMD", "eager/fp32", NOW)]
    assert before <= read.written_at <= datetime.now(UTC)


# Leases, artifacts, telemetry


def test_one_lease_of_a_device_runs_at_a_time_and_tokens_only_grow(repository: Repository) -> None:
    lease = repository.acquire_lease("gpu:0", "a", NOW, 60)
    assert lease is not None
    assert repository.acquire_lease("gpu:0", "b", NOW + timedelta(seconds=59), 60) is None
    assert repository.acquire_lease("gpu:0", "a", NOW, 60) is None
    other = repository.acquire_lease("gpu:1", "b", NOW, 60)
    assert repository.leases(NOW) == (lease, other)

    late = NOW + timedelta(seconds=60)
    taken = repository.acquire_lease("gpu:0", "b", late, 60)
    assert taken is not None
    assert taken.token > lease.token
    assert repository.renew_lease(lease, late, 60) is None
    assert repository.release_lease(lease, late) is False
    assert repository.leases(late) == (taken,)

    assert repository.release_lease(taken, late) is True
    assert repository.leases(late) == ()
    assert repository.renew_lease(taken, late, 60) is None
    anew = repository.acquire_lease("gpu:0", "a", late, 60)
    assert anew is not None
    assert anew.token > taken.token


def test_a_renewed_lease_keeps_its_token_and_lasts_longer(repository: Repository) -> None:
    lease = repository.acquire_lease("cpu", "a", NOW, 60)
    assert lease is not None
    half = NOW + timedelta(seconds=30)
    renewed = repository.renew_lease(lease, half, 60)
    assert renewed == replace(lease, heartbeat_at=half, expires_at=half + timedelta(seconds=60))
    assert repository.acquire_lease("cpu", "b", NOW + timedelta(seconds=61), 60) is None


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_lease_without_an_end_or_a_length_is_refused(repository: Repository, ttl_s: float) -> None:
    with pytest.raises(InvalidRecord):
        repository.acquire_lease("cpu", "a", NOW, ttl_s)
    assert repository.leases(NOW) == ()


def test_artifacts_are_kept_with_their_environment_and_settings(
    store: Database, repository: Repository
) -> None:
    artifact = ArtifactRecord(
        environment_fingerprint="env-1",
        settings_key="default/bf16",
        model_digest="model-1",
        engine_version="0.1.0",
        path="artifacts/1",
        sha256="0" * 64,
        bytes=2**40,
        created_at=NOW,
    )
    stored = replace(artifact, id=repository.add_artifact(artifact))
    other = replace(artifact, settings_key="other")
    other = replace(other, id=repository.add_artifact(other))
    with store.read() as connection:
        rows = connection.execute(select(ARTIFACTS).order_by(ARTIFACTS.c.id))
        assert [to_record(ArtifactRecord, row, ARTIFACTS) for row in rows] == [stored, other]
    with pytest.raises(MissingReference):
        repository.add_artifact(replace(artifact, environment_fingerprint="unknown"))


def test_telemetry_is_found_by_symbol_and_time(repository: Repository) -> None:
    window = TelemetryRecord(
        symbol="AMD",
        settings_key="default/bf16",
        window_start=NOW,
        window_end=NOW + HOUR,
        payload_json='{"calls":12}',
    )
    repository.add_telemetry(window)
    later = replace(window, window_start=NOW + HOUR, window_end=NOW + 2 * HOUR)
    later = replace(later, id=repository.add_telemetry(later))
    repository.add_telemetry(replace(later, symbol="NVDA", id=None))
    assert repository.telemetry("AMD", since=NOW + HOUR) == (later,)
    assert len(repository.telemetry()) == 3


def test_telemetry_is_stored_all_or_none_and_none_twice(repository: Repository) -> None:
    window = TelemetryRecord(
        symbol="AMD", settings_key="k", window_start=NOW, window_end=NOW + HOUR, payload_json='{"calls":12}'
    )
    others = [replace(window, payload_json='{"calls":13}'), replace(window, window_start=NOW + HOUR / 2)]
    repository.add_new_telemetry([window])
    repository.add_new_telemetry([window, *others])
    repository.add_new_telemetry([])
    with pytest.raises(InvalidRecord):
        repository.add_new_telemetry([replace(window, symbol="NVDA"), replace(window, payload_json="{")])
    assert len(repository.telemetry()) == 3


def test_what_the_last_day_took_is_found_without_what_came_before(repository: Repository) -> None:
    repository.add_promotion(replace(PROMOTION, run_id=None))
    window = TelemetryRecord(
        symbol="AMD",
        settings_key="k",
        window_start=NOW,
        window_end=NOW + HOUR,
        payload_json='{"a":"recheck"}',
    )
    for each in (
        window,
        replace(window, payload_json='{"a":"window"}'),
        replace(window, window_start=NOW - 40 * HOUR, window_end=NOW - 30 * HOUR),
        replace(window, symbol="NVDA"),  # never promoted
    ):
        repository.add_telemetry(each)
    (found,) = repository.promoted_telemetry_with('"recheck"', since=NOW)
    assert (found.symbol, found.window_end) == ("AMD", NOW + HOUR)
    for number, hours in enumerate((1, 30)):
        run_id = f"run {number}"
        repository.start_run(replace(RUN, run_id=run_id, started_at=NOW - 31 * HOUR))
        repository.finish_run(run_id, "finished", NOW - hours * HOUR)
    repository.start_run(replace(RUN, run_id="it runs"))
    assert [row.run_id for row in repository.run_rows(ended_since=NOW - 24 * HOUR)] == ["run 0"]
    assert len(repository.run_rows()) == 4  # one more is of every store here


# Export and import


def _filled(repository: Repository) -> dict[str, Any]:
    repository.put(replace(WORKLOAD, signature="unused"))
    repository.add_promotion(replace(PROMOTION, profile="accuracy"))
    repository.add_promotion(PROMOTION)
    repository.add_promotion(replace(PROMOTION, symbol="NVDA"))
    repository.pin(PIN)
    document: dict[str, Any] = json.loads(json.dumps(repository.export_document()))
    return document


def test_a_document_carries_active_settings_and_pins_to_another_store(
    repository: Repository, tmp_path: Path
) -> None:
    document = _filled(repository)
    with new_store(tmp_path / "other.db") as database:
        other = Repository(database)
        counts = other.import_document(document, validate_settings=_key)
        assert (counts.environments, counts.workloads, counts.promotions, counts.pins) == (1, 1, 3, 1)
        active = other.active_promotion("AMD")
        assert active is not None
        assert (active.profile, active.kind, active.run_id) == ("production", "import", None)
        assert active.settings_key == _key(active.settings_json)
        assert active.promoted_at == NOW
        assert [workload.signature for workload in (other.workload("load-1"),)] == ["load-1"]
        with pytest.raises(NotFound):
            other.workload("unused")
        again = other.import_document(document, validate_settings=_key)
        assert (again.environments, again.workloads, again.promotions, again.pins) == (0, 0, 0, 0)


def test_an_import_keeps_the_order_across_symbols(repository: Repository, tmp_path: Path) -> None:
    for symbol, profile in (("AMD", "production"), ("NVDA", "production"), ("AMD", "accuracy")):
        repository.add_promotion(replace(PROMOTION, symbol=symbol, profile=profile))
    with new_store(tmp_path / "other.db") as database:
        other = Repository(database)
        other.import_document(repository.export_document(), validate_settings=_key)
        assert [record.symbol for record in other.promotions()] == ["AMD", "NVDA", "AMD"]


def test_importing_older_settings_makes_them_active(repository: Repository) -> None:
    document = _filled(repository)
    repository.add_promotion(replace(PROMOTION, settings_key="newer", profile="research"))
    counts = repository.import_document(document, validate_settings=_key)
    assert counts.promotions == 3  # their keys are the validator's now
    active = repository.active_promotion("AMD")
    assert active is not None
    assert (active.profile, active.settings_key) == ("production", 'key:{"compile_mode":"default"}')


def _without(document: dict[str, Any], *path: str | int) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(document))
    place: Any = copy
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return copy


def _with(document: dict[str, Any], value: object, *path: str | int) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(document))
    place: Any = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return copy


def test_a_bad_document_is_refused_by_field_and_leaves_the_store_alone(
    repository: Repository, tmp_path: Path
) -> None:
    document = _filled(repository)
    bad: list[tuple[object, str]] = [
        (None, "the document"),
        ([], "the document"),
        ({}, "format"),
        (_with(document, "another", "format"), "version 1"),
        (_with(document, 2, "version"), "version 1"),
        (_with(document, {}, "promotions"), "promotions"),
        (_with(document, 7, "promotions", 1), r"promotions\[1\]"),
        (_with(document, "amd", "promotions", 2, "symbol"), r"promotions\[2\].*symbol"),
        (_with(document, "../A", "pins", 0, "symbol"), r"pins\[0\].*symbol"),
        (_with(document, [], "promotions", 0, "settings"), r"promotions\[0\].*settings"),
        (_with(document, "fast", "pins", 0, "settings"), r"pins\[0\].*settings"),
        (_with(document, float("nan"), "promotions", 0, "evidence"), r"promotions\[0\].*evidence"),
        (_with(document, "yesterday", "promotions", 0, "promoted_at"), r"promotions\[0\].*promoted_at"),
        (_with(document, "2026-01-01T00:00:00", "pins", 0, "pinned_at"), r"pins\[0\].*pinned_at"),
        (_with(document, "a\0", "promotions", 0, "reason"), r"promotions\[0\].*reason"),
        (_with(document, "\ud800", "promotions", 0, "verdict"), r"promotions\[0\].*verdict"),
        (_with(document, "", "environments", 0, "fingerprint"), r"environments\[0\].*fingerprint"),
        (_with(document, 5, "environments", 0, "first_seen"), r"environments\[0\].*first_seen"),
        (_with(document, document["pins"] * 2, "pins"), "pins"),
        (_with(document, document["workloads"] * 2, "workloads"), "workloads"),
        (_with(document, [], "workloads"), r"promotions\[0\].*workload_signature"),
        (_with(document, [], "environments"), r"promotions\[0\].*environment_fingerprint"),
        *(
            (_without(document, part, 0, field), rf"{part}\[0\] lacks the field {field}")
            for part in ("environments", "workloads", "promotions", "pins")
            for field in document[part][0]
            if field != "settings_key"
        ),
    ]
    with new_store(tmp_path / "other.db") as database:
        other = Repository(database)
        for wrong, named in bad:
            with pytest.raises(InvalidDocument, match=named) as caught:
                other.import_document(wrong, validate_settings=_key)
            assert len(str(caught.value).splitlines()) == 1
        assert (other.promotions(), other.pins(), other.runs()) == ((), (), ())
        with pytest.raises(NotFound):
            other.environment("env-1")


def test_a_workload_that_is_not_what_its_signature_says_is_refused(repository: Repository) -> None:
    document = _filled(repository)

    def signature(workload_json: str) -> str:
        return "load-1" if json.loads(workload_json) == {"context_length": 512} else "another"

    def nothing(workload_json: str) -> str:
        raise ValueError(f"cannot read {workload_json}")

    repository.import_document(document, validate_settings=_key, validate_workload=signature)
    poisoned = _with(document, {"context_length": 1}, "workloads", 0, "workload")
    for validate, named in ((signature, "signature"), (nothing, "cannot read")):
        with pytest.raises(InvalidDocument, match=rf"workloads\[0\].*{named}"):
            repository.import_document(poisoned, validate_settings=_key, validate_workload=validate)


letters = st.characters(codec="utf-8", exclude_characters="\0")
names = st.text(letters, min_size=1, max_size=12)
symbols = st.from_regex(r"[A-Z0-9^][A-Z0-9._=&/^-]{0,31}", fullmatch=True)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(letters),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(letters), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(letters), plain, max_size=3).map(json.dumps)
promotions = st.builds(
    PromotionRecord,
    symbol=symbols,
    profile=names,
    model=names,
    workload_signature=st.sampled_from(["load-1", "load-2"]),
    environment_fingerprint=st.sampled_from(["env-1", "env-2"]),
    settings_key=names,
    settings_json=objects,
    verdict=names,
    reason=names,
    evidence_json=objects,
    promoted_at=moments,
    kind=st.sampled_from(["run", "select", "import"]),
    run_id=st.none(),
    id=st.none(),
    rolled_back_at=st.none(),
    rolled_back_reason=st.none(),
)
pinned = st.builds(
    PinRecord, symbol=symbols, settings_key=names, settings_json=objects, reason=names, pinned_at=moments
)


@settings(max_examples=25, deadline=None)
@given(st.lists(promotions, max_size=5), st.lists(pinned, max_size=3), objects, objects)
def test_whatever_is_exported_is_the_same_after_an_import(
    promoted: list[PromotionRecord], pins: list[PinRecord], facts: str, workload: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Repository(new_store(Path(folder) / "source.db"))
        for suffix in ("1", "2"):
            source.put(EnvironmentRecord(fingerprint=f"env-{suffix}", facts_json=facts, first_seen=NOW))
            source.put(WorkloadRecord(signature=f"load-{suffix}", workload_json=workload, first_seen=NOW))
        for promotion in promoted:
            source.add_promotion(replace(promotion, settings_key=_key(_canonical(promotion.settings_json))))
        for pin in pins:
            source.pin(replace(pin, settings_key=_key(_canonical(pin.settings_json))))
        document = source.export_document()
        other = Repository(new_store(Path(folder) / "other.db"))
        other.import_document(json.loads(json.dumps(document)), validate_settings=_key)
        assert other.export_document() == document


def _canonical(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def test_the_newest_self_test_of_an_environment_is_found(repository: Repository) -> None:
    first = SelfTestRecord(environment_fingerprint="env-1", measured_at=NOW, result_json='{"rate": 0.01}')
    assert repository.newest_selftest("env-1") is None
    repository.add_selftest(first)
    later = replace(first, measured_at=NOW + HOUR)
    later = replace(later, id=repository.add_selftest(later))
    assert repository.newest_selftest("env-1") == later
    assert repository.newest_selftest("env-2") is None
    with pytest.raises(MissingReference):
        repository.add_selftest(replace(first, environment_fingerprint="unknown"))
