"""A fleet whose store is on a PostgreSQL server, which is killed, and restarted while runs begin."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from autotuner.paths import studies_url
from autotuner.search.study_storage import open_storage
from autotuner.store import Store
from storage.records import MeasurementRecord
from tests.support.command import Cli
from tests.support.postgres import Server, or_skipped
from tests.support.ray_cluster import NEEDS_RAY, Driver, ray_cluster

pytestmark = [pytest.mark.exhaustive, NEEDS_RAY, pytest.mark.timeout(1800)]

SYMBOLS = ("AMD", "AAPL")
HOW = ("--trials", "2", "--timeout", "90", "--context-length", "128", "--json")


@pytest.fixture
def server() -> Iterator[Server]:
    with or_skipped() as found:
        yield found


def measured(place: str) -> dict[int | None, MeasurementRecord]:
    with Store(place, publish=False) as store:
        return {each.id: each for each in store.records.measurements()}


def studies(place: str) -> list[str]:
    storage = open_storage(studies_url(place), read_only=True)
    try:
        return optuna.get_all_study_names(storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def test_what_nodes_had_acknowledged_outlasts_their_server_and_they_go_on_when_it_is_back(
    tmp_path: Path, server: Server
) -> None:
    cli, place = Cli(tmp_path), server.new_database()
    Store(place).__exit__(None, None, None)
    named = tuple(part for symbol in SYMBOLS for part in ("--symbol", symbol))
    with ray_cluster(cli.environment()) as cluster:
        for label in ("a", "b"):
            cluster.start_node(label)
        driver = Driver(
            cli,
            cluster,
            *(*named, "--on", "ray", *HOW),
            log=cli.folder / "driver.log",
            extra={"AUTOTUNE_DB": place},
        )
        driver.until(lambda: len(measured(place)) > 0, within=300)
        acknowledged = measured(place)
        server.kill()  # while trials are measured
        time.sleep(8.0)
        server.start()

        driver.until(lambda: " runs done" in driver.said, within=300)
        acknowledged |= measured(place)
        server.stop("fast")  # while the next run begins, which opens the store
        back = threading.Timer(15.0, server.start)
        back.start()
        back.join()
        code = driver.ends(within=900)

    assert code == 0, driver.said
    after = measured(place)
    assert {key: after.get(key) for key in acknowledged} == acknowledged
    assert "waiting: postgresql+psycopg://" in driver.said
    assert driver.said.count("the store is back after ") >= 2
    document = driver.document
    assert document["failed"] == []
    places = {each["fingerprint"] for each in document["environments"]}
    assert len(places) == 2
    expected = sorted((symbol, each) for symbol in SYMBOLS for each in places)
    assert sorted((each["symbol"], each["environment"]) for each in document["symbols"]) == expected
    with Store(place) as store:
        ended = [run for run in store.records.runs() if run.status == "finished"]
        active = [(each.symbol, each.environment_fingerprint) for each in store.records.active_promotions()]
    assert sorted((run.symbol, run.environment_fingerprint) for run in ended) == expected
    assert sorted(active) == expected
    assert len(studies(place)) >= 2
