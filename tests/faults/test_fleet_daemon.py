"""A daemon that owns a real Ray cluster: ticks tune and recheck on its nodes, and a stop ends that in seconds."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotuner.store import Store
from tests.support.command import Cli
from tests.support.ray_cluster import NEEDS_RAY, RayCluster, ray_cluster
from tests.support.simulated_world import write_prices

pytestmark = [pytest.mark.exhaustive, NEEDS_RAY, pytest.mark.timeout(1800)]

CONFIG = """
[daemon]
on = "ray"
watchlist = "watchlist.txt"
load_ceiling = 0
run_seconds = 60
budget_seconds_per_day = 1000000
recheck_hours = 0.0001
quiet = [{quiet}]

[defaults]
data = "prices"
context_length = 128
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    (tmp_path / "prices").mkdir()
    for symbol in ("AMD", "AAPL"):
        write_prices(tmp_path / "prices", symbol, 1500)
    (tmp_path / "watchlist.txt").write_text("AMD\nAAPL\n")
    configure(tmp_path)
    return Cli(tmp_path)


def configure(folder: Path, quiet: str = "") -> None:
    (folder / "autotune.toml").write_text(CONFIG.format(quiet=f'"{quiet}"' if quiet else ""))


@pytest.fixture
def cluster(cli: Cli) -> Iterator[RayCluster]:
    with ray_cluster(cli.environment()) as found:
        for label in ("a", "b"):
            found.start_node(label)
        yield found


def tick(cli: Cli, cluster: RayCluster) -> subprocess.Popen[str]:
    config = str(cli.folder / "autotune.toml")
    return cli.start("daemon", "--once", "--config", config, extra={"RAY_ADDRESS": cluster.address})


def events(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def where(log: str, event: str) -> list[tuple[str, str]]:
    return sorted((each["symbol"], each["environment"]) for each in events(log) if each["event"] == event)


def until(reached: Callable[[], bool], process: subprocess.Popen[str], within: float) -> None:
    end = time.monotonic() + within
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)


def statuses(cli: Cli) -> list[str]:
    if not cli.db.exists():
        return []
    with Store(str(cli.db), publish=False) as store:
        return [run.status for run in store.records.runs()]


def measuring(cluster: RayCluster) -> list[psutil.Process]:
    """Processes of runs on nodes."""
    found = []
    for process in cluster.processes():
        try:
            if "autotuner.cli.daemon_child" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


EVERY = [("AAPL", "a"), ("AAPL", "b"), ("AMD", "a"), ("AMD", "b")]


def test_ticks_tune_and_recheck_in_each_environment_of_the_cluster(cli: Cli, cluster: RayCluster) -> None:
    with tick(cli, cluster) as first:
        _, log = first.communicate(timeout=600)
    assert first.returncode == 0, log
    assert where(log, "tuning") == where(log, "begun") == where(log, "tuned") == EVERY
    with Store(str(cli.db)) as store:
        active = store.records.active_promotions()
        ledger = {record.id for record in active}
    assert len({(each.symbol, each.environment_fingerprint) for each in active}) == 4
    assert {json.loads(each.evidence_json)["because"] for each in active} == {"never tuned"}

    write_prices(cli.folder / "prices", "AMD", 1520)
    with tick(cli, cluster) as second:
        _, log = second.communicate(timeout=300)
    assert second.returncode == 0, log
    assert where(log, "rechecked") == [("AMD", "a"), ("AMD", "b")]
    assert where(log, "tuning") == []
    assert statuses(cli) == ["finished"] * 4
    with Store(str(cli.db)) as store:
        assert {record.id for record in store.records.active_promotions()} == ledger


def test_a_stop_ends_what_runs_on_nodes_within_ten_seconds_and_the_next_tick_goes_on(
    cli: Cli, cluster: RayCluster
) -> None:
    with tick(cli, cluster) as stopped:
        until(lambda: statuses(cli) == ["running"], stopped, within=120)
        time.sleep(3.0)
        asked = time.monotonic()
        stopped.send_signal(signal.SIGTERM)
        _, log = stopped.communicate(timeout=60)
    assert time.monotonic() - asked < 10.0
    assert where(log, "failed") == where(log, "begun")
    assert [each["reason"] for each in events(log) if each["event"] == "held"] == ["the daemon is stopping"]
    assert statuses(cli) == ["interrupted"]
    time.sleep(1.0)
    assert measuring(cluster) == []


def test_a_quiet_window_that_begins_ends_what_runs_on_nodes(cli: Cli, cluster: RayCluster) -> None:
    begins = (datetime.now(UTC) + timedelta(seconds=100)).replace(second=0, microsecond=0)
    configure(cli.folder, f"{begins:%H:%M}-{begins + timedelta(hours=1):%H:%M}")
    with tick(cli, cluster) as held:
        until(lambda: "running" in statuses(cli), held, within=90)
        _, log = held.communicate(timeout=200)
    assert held.returncode == 0, log
    assert (datetime.now(UTC) - begins).total_seconds() < 15.0
    assert next(each["reason"] for each in events(log) if each["event"] == "held").startswith("quiet: ")
    assert "interrupted" in statuses(cli)
    assert measuring(cluster) == []


def test_a_cluster_that_is_lost_in_mid_tick_ends_the_tick_and_not_the_daemon(
    cli: Cli, cluster: RayCluster
) -> None:
    with tick(cli, cluster) as left:
        until(lambda: statuses(cli) == ["running"], left, within=120)
        cluster.stop()
        _, log = left.communicate(timeout=180)
    assert left.returncode == 1, log
    assert [each["event"] for each in events(log)].count("cluster") == 1
    assert events(log)[-1]["event"] == "tick"
    assert measuring(cluster) == []
