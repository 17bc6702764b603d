"""A server that is killed, or lost in mid-commit: nothing acknowledged is lost, nothing is stored twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from sqlalchemy import select, text

from autotuner.paths import studies_url
from autotuner.search.study_storage import open_storage
from storage.database import Database, open_database
from storage.errors import StoreUnavailable, TryAgain
from storage.models import MEASUREMENTS, PINS, PROMOTIONS, ROLLBACKS, RUNS, SERIES, TELEMETRY
from storage.patience import patience, repeated
from storage.records import TelemetryRecord
from storage.repository import Repository
from tests.support.cutting_proxy import CuttingProxy, What, cutting
from tests.support.postgres import Server, opened, or_skipped
from tests.support.storage_samples import (
    MEASUREMENT,
    NOW,
    PIN,
    PROMOTION,
    RUN,
    with_subjects,
)
from tests.support.storage_samples import (
    SERIES as A_SERIES,
)

TELEMETRY_RECORD = TelemetryRecord(
    symbol="AMD",
    settings_key="eager/fp32",
    window_start=NOW,
    window_end=NOW + timedelta(minutes=1),
    payload_json="{}",
)
WRITES: dict[str, Callable[[Repository], object]] = {
    "measurement": lambda records: records.add_measurement(MEASUREMENT),
    "promotion": lambda records: records.add_promotion(PROMOTION),
    "roll-back": lambda records: records.roll_back("AMD", "hot", NOW),
    "pin": lambda records: records.pin(PIN),
    "telemetry": lambda records: records.add_telemetry(TELEMETRY_RECORD),
    "a note": lambda records: records.add_new_telemetry([replace(TELEMETRY_RECORD, symbol="BTCUSD")]),
    "run": lambda records: records.start_run(replace(RUN, run_id="another")),
    "end of a run": lambda records: records.finish_run(RUN.run_id, "finished", NOW),
    "series": lambda records: records.put(replace(A_SERIES, digest="another")),
    "lease": lambda records: records.acquire_lease("cpu", "me", NOW, 30.0),
}


@pytest.fixture
def behind(
    postgres: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[CuttingProxy, Database]]:
    """A proxy, and a store that is reached through it."""
    url = postgres.new_database()
    open_database(url).close()
    home = tmp_path_factory.mktemp("p")
    with (
        cutting(home, postgres.home) as proxy,
        open_database(url.replace(str(postgres.home), str(home))) as database,
    ):
        yield proxy, database


def rows(database: Database) -> dict[str, int]:
    with database.read() as connection:
        return {
            table.name: len(connection.execute(select(table)).all())
            for table in (MEASUREMENTS, PROMOTIONS, ROLLBACKS, PINS, TELEMETRY, RUNS, SERIES)
        }


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_commit_that_is_not_answered_is_done_once(
    behind: tuple[CuttingProxy, Database], lost: What
) -> None:
    proxy, database = behind
    records = with_subjects(database)
    for number in range(3):
        records.add_promotion(replace(PROMOTION, settings_key=f"key-{number}"))
    for name, write in WRITES.items():
        before = rows(database)
        proxy.cut(lost)
        result = write(records)
        after = rows(database)
        assert not proxy.cuts, name
        more = {table: count - before[table] for table, count in after.items() if count != before[table]}
        assert sum(more.values()) == (0 if name in {"end of a run", "lease"} else 1), (name, more)
        assert (result is None) == (name in {"pin", "run", "series"})
    assert proxy.made == len(WRITES)
    (ended, _) = records.runs()
    assert ended.status == "finished"
    (lease,) = records.leases(NOW)
    assert lease.token == 1


def test_a_commit_lost_again_and_again_is_done_once(behind: tuple[CuttingProxy, Database]) -> None:
    proxy, database = behind
    records = with_subjects(database)
    for what in ("request", "request", "answer", "answer", "request"):
        proxy.cut(what)
    assert records.add_measurement(MEASUREMENT) == records.measurements()[-1].id
    assert rows(database)["measurements"] == 1
    assert proxy.made >= 3


def test_a_commit_whose_fate_stays_unknown_is_said_so_and_not_repeated(
    behind: tuple[CuttingProxy, Database],
) -> None:
    proxy, database = behind
    records = with_subjects(database)
    proxy.cut("answer", 200)
    with (
        patience(0.5, lambda _: None),
        pytest.raises(StoreUnavailable, match="not known: look before") as caught,
    ):
        records.add_measurement(MEASUREMENT)
    assert not isinstance(caught.value, TryAgain)
    proxy.cuts.clear()
    assert rows(database)["measurements"] == 1


def test_transactions_that_wait_for_each_other_are_both_done(postgres: Server) -> None:
    with opened(postgres) as database:
        with_subjects(database)
        both = threading.Barrier(2)
        tries: list[str] = []

        def swap(first: str, second: str) -> None:
            def act() -> None:
                tries.append(first)
                with database.write() as connection:
                    connection.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
                    for number, table in enumerate((first, second)):
                        if number == 1 and len(tries) <= 2:
                            both.wait(10)
                        connection.execute(text(f"LOCK TABLE {table} IN EXCLUSIVE MODE"))
                    connection.execute(SERIES.insert().values(vars(replace(A_SERIES, digest=first))))

            repeated(act)

        threads = [
            threading.Thread(target=swap, args=order) for order in (("pins", "leases"), ("leases", "pins"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(tries) == 3  # one of them was undone once
        assert {row.digest for row in _all(database, SERIES)} == {"series-1", "pins", "leases"}


def _all(database: Database, table: Any) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(table)))


def test_promotions_taken_back_at_once_are_taken_back_one_by_one(postgres: Server) -> None:
    with opened(postgres) as database:
        records = with_subjects(database)
        ids = [records.add_promotion(replace(PROMOTION, settings_key=f"k{number}")) for number in range(6)]
        taken: list[int | None] = []
        threads = [
            threading.Thread(target=lambda: taken.append(records.roll_back("AMD", "hot", NOW)[0].id))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(taken, key=str) == ids[1:]
        active = records.active_promotion("AMD")
        assert active is not None
        assert active.id == ids[0]


def test_all_queries_of_one_reading_see_the_same(postgres: Server) -> None:
    with opened(postgres) as database:
        records = with_subjects(database)
        with database.read() as connection:
            assert connection.execute(select(MEASUREMENTS)).all() == []
            records.add_measurement(MEASUREMENT)
            assert connection.execute(select(MEASUREMENTS)).all() == []
        assert len(records.measurements()) == 1


def test_processes_that_make_the_same_store_at_once_agree(postgres: Server) -> None:
    url, failed = postgres.new_database(), []

    def make() -> None:
        try:
            open_database(url).close()
            open_storage(studies_url(url)).engine.dispose()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []


def test_a_server_that_is_killed_and_comes_back_is_waited_for_and_one_that_stays_away_is_not() -> None:
    with or_skipped() as server, opened(server) as database:
        records = with_subjects(database)
        acknowledged = [records.add_measurement(MEASUREMENT)]
        said: list[str] = []
        server.kill()
        back = threading.Timer(2.5, server.start)
        back.start()
        with patience(60.0, said.append):
            while back.is_alive():  # its processes may answer for a moment yet: what they commit counts, too
                acknowledged.append(records.add_measurement(MEASUREMENT))
        back.join()
        assert [found.id for found in records.measurements()] == acknowledged
        assert said[0].startswith("waiting: postgresql+psycopg://autotune@/store_")
        assert "cannot be reached" in said[0]
        assert said[-1].startswith("the store is back after")

        def ask_for_long() -> None:
            while time.monotonic() - begun < 10.0:
                records.measurements()

        server.kill()
        begun = time.monotonic()
        with (
            patience(1.0, lambda _: None),
            pytest.raises(StoreUnavailable, match="cannot be reached") as caught,
        ):
            ask_for_long()
        assert time.monotonic() - begun < 10.0
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_study_goes_on_when_its_commits_are_not_answered(
    behind: tuple[CuttingProxy, Database], lost: What
) -> None:
    proxy, database = behind
    url = studies_url(database._engine.url.render_as_string(hide_password=False))
    storage = open_storage(url)
    study = optuna.create_study(storage=storage, study_name="one")
    for number in range(3):
        proxy.cut(lost)
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        proxy.cut(lost)
        study.tell(trial, float(number))
    last = study.ask()
    proxy.cut(lost)
    assert storage.set_trial_state_values(last._trial_id, optuna.trial.TrialState.COMPLETE, [3.0])
    assert proxy.made == 7
    told = [trial.value for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert told == [0.0, 1.0, 2.0, 3.0]
    finished = next(trial for trial in study.trials if trial.value == 2.0)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(finished._trial_id, optuna.trial.TrialState.FAIL)
    storage.remove_session()
    storage.engine.dispose()
