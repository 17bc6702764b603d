"""What ``run --on`` refuses without a cluster, what nodes are told, and what a driver leaves to the next."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autotuner import __version__
from autotuner.cli.fleet import _chosen, _passed_on
from autotuner.cli.fleet_child import Job, _order, _places
from autotuner.cli.run import run_command
from autotuner.daemon import cluster_address
from autotuner.daemon.due import Overdue
from autotuner.daemon.measuring_child import Tuned
from autotuner.environment import current_environment
from autotuner.errors import AutotuneError
from autotuner.fleet import driver
from autotuner.fleet.campaign import GOES_ON, Campaign
from autotuner.fleet.cluster import Handle, RayNode
from autotuner.fleet.driver import Ended
from autotuner.fleet.nodes import Fleet, Node, Wanted
from autotuner.fleet.orders import Order, Schedule
from autotuner.fleet.station import News, Station, Task, file_here, look
from autotuner.machine.engine_versions import CHRONOS2, TOTO1
from autotuner.store import Store
from tests.support.invoking import refused, run
from tests.support.promoted_store import NOW, WORKLOAD, promotion


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotuner.fleet.campaign.data_folder", lambda: tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("--environment", "a"), 2, "--environment chooses between the nodes of a cluster"),
        (("--on", "http://h"), 2, "give ray, the cluster that this machine belongs to"),
        (("--on", "ray://"), 2, "give ray, the cluster that this machine belongs to"),
        (("--on", "ray://h:x"), 2, "give ray, the cluster that this machine belongs to"),
        (("--on", "ray://h?x=1"), 2, "give ray, the cluster that this machine belongs to"),
        (("--on", "ray://me:secret@h:1"), 2, "--on with a user name or a password: Ray takes none"),
        (("--on", "ray", "--environment", " "), 2, "--environment without a name: give the label"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    line = refused(run(tmp_path / "s.db", "run", "--symbol", "AMD", *arguments), code)
    assert reason in line
    assert "secret" not in line


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_address, "find_spec", lambda _: None)
    line = refused(run(tmp_path / "s.db", "run", "--symbol", "AMD", "--on", "ray"), 1)
    assert line == "Error: ray missing: pip install 'toto-autotune[cluster]'"


def test_nodes_get_the_options_of_the_run_with_paths_that_hold_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    given = [
        "--all",
        "--on",
        "ray",
        "--json",
        "--db",
        "secret",
        "--model",
        "toto-mini",
        "--model",
        "models/mine",
    ]
    given += ["--no-resume", "--fresh", "--trials", "3", "--timeout", "auto", "--because=-odd"]
    with run_command.make_context("run", given):
        assert sorted(_passed_on()) == [
            "--because=-odd",
            "--fresh",
            f"--model={tmp_path}/models/mine",
            "--model=toto-mini",
            "--no-resume",
            "--timeout=auto",
            "--trials=3",
        ]


def test_commands_for_other_symbols_or_environments_are_other_commands() -> None:
    others = (
        ["--all"],
        ["--symbol", "AMD"],
        ["--symbol", "MSFT"],
        ["--all", "--environment", "a"],
        ["--all", "--on", "ray://h"],
    )
    chosen = set()
    for arguments in others:
        on = [] if "--on" in arguments else ["--on", "ray"]
        with run_command.make_context("run", [*arguments, *on]):
            assert _passed_on() == ()
            chosen.add(_chosen())
    assert len(chosen) == len(others)


def test_a_killed_drivers_command_goes_on_and_a_finished_ones_begins_anew(tmp_path: Path) -> None:
    with Campaign("store", ["--trials=3"], anew=False) as first:
        assert not first.goes_on
    with Campaign("store", ["--trials=3"], anew=False) as second:
        assert second.goes_on
        assert second.begun == first.begun
        second.over()
    for anew, arguments in ((False, ["--trials=3"]), (True, ["--trials=3"]), (False, ["--trials=4"])):
        with Campaign("store", arguments, anew=anew) as later:
            assert not later.goes_on

    (file, *_) = sorted((tmp_path / "fleet").glob("*.json"))
    for text in ("{", json.dumps({"begun": (datetime.now(UTC) - GOES_ON - timedelta(hours=1)).isoformat()})):
        for each in (tmp_path / "fleet").glob("*.json"):
            each.write_text(text)
        with Campaign("store", ["--trials=3"], anew=False) as stale:
            assert not stale.goes_on
    assert file.exists()


def test_the_same_command_is_not_driven_twice_at_once() -> None:
    with (
        Campaign("store", [], anew=False),
        pytest.raises(AutotuneError, match="another process is at the same"),
    ):
        Campaign("store", [], anew=False)


class OneNode:
    """A cluster of one node that answers ``found``."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    def nodes(self) -> tuple[RayNode, ...]:
        return (RayNode(id="1", host="h", cpus=2, gpus=0),)

    def begin_look(self, node: RayNode, *_: object) -> Any:
        return node.id

    def looked(self, asked: Any) -> dict[str, Any]:
        return self.found


class Deaf:
    """Hears nothing."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


def test_a_node_that_does_not_share_the_stores_file_is_passed_over(tmp_path: Path) -> None:
    place = tmp_path / "s.db"
    place.write_text("")
    found = look("cpu", (TOTO1,), str(place))
    wanted = Wanted(device="cpu", engines=(TOTO1,), store=str(place))
    Fleet(OneNode(found), wanted, Deaf()).settle()  # type: ignore[arg-type]

    assert file_here(str(tmp_path / "none")) is None
    machine, *file = found["file"]
    for file_there in (None, [f"{machine}2", *file], [machine, file[0], file[1] + 1]):
        fleet = Fleet(OneNode(found | {"file": file_there}), wanted, Deaf())  # type: ignore[arg-type]
        with pytest.raises(AutotuneError, match="is a file that this node does not share: SQLite is for one"):
            fleet.settle()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"fault": "toto-autotune is not installed there"}, "h: toto-autotune is not installed there"),
        (
            {"fault": None, "version": "0.0.1"},
            f"h: toto-autotune 0.0.1 is installed there, {__version__} here",
        ),
    ],
)
def test_a_node_that_is_no_use_says_why(answer: dict[str, Any], reason: str) -> None:
    wanted = Wanted(device="cpu", engines=(TOTO1,), store=None)
    with pytest.raises(AutotuneError) as failed:
        Fleet(OneNode(answer), wanted, Deaf()).settle()  # type: ignore[arg-type]
    assert str(failed.value) == f"the cluster has no node for --device cpu: {reason}"


def test_the_daemon_hears_of_the_environment_that_each_engine_has_on_a_node() -> None:
    found, wanted = look("cpu", (TOTO1,), None), Wanted(device="cpu", engines=(TOTO1,), store=None)
    ours = found["environments"][TOTO1]
    theirs = ours | {"engine": "chronos2 1+0.0.1", "torch": "2.0.0"}
    answer = found | {"environments": {TOTO1: ours, CHRONOS2: theirs}}
    fleet = Fleet(OneNode(answer), wanted, Deaf())  # type: ignore[arg-type]
    fleet.settle()
    (place,) = _places(fleet)
    assert (place["facts"], place["engines"]) == (ours, [ours, theirs])


def test_what_one_environment_promoted_last_is_not_due_in_the_other(tmp_path: Path) -> None:
    here = current_environment()
    there = dataclasses.replace(here, hardware=f"{here.hardware}, labelled b")
    with Store(str(tmp_path / "s.db")) as store:
        for environment, minutes in ((here, 0), (there, 5)):
            store.remember_setting(WORKLOAD, environment)
            store.promote(dataclasses.replace(promotion(minutes=minutes), environment=environment))
        overdue = Overdue(store)
        for environment in (here, there):
            (tuned,) = overdue.tuned_for("AMD", None, environment)
            assert tuned.environment == environment
            assert overdue.why(tuned, environment=environment, now=NOW + timedelta(hours=1)) is None
        elsewhere = dataclasses.replace(here, hardware="another")
        (newest,) = overdue.tuned_for("AMD", None, elsewhere)
        assert newest.environment == there
        assert overdue.why(newest, environment=elsewhere, now=NOW + timedelta(hours=1))


def a_node() -> Node:
    return Node(
        ray=RayNode(id="1", host="h", cpus=2, gpus=0),
        host="h",
        label="a",
        device="cpu",
        slots=1,
        environments={TOTO1: current_environment()},
    )


def test_a_daemons_job_waits_for_the_same_proof_as_a_run_of_that_symbol(tmp_path: Path) -> None:
    node = a_node()
    asked = ["run", "--symbol", "AMD", "--timeout", "60.0", "--because", "-odd; %s", "--trigger", "age"]
    asked += ["--device", "cpu", "--fresh", "--as-before"]
    with Store(str(tmp_path / "s.db")) as store:
        before = promotion()
        store.remember_setting(before.workload, before.environment)
        store.promote(before)
        as_before, plain, recheck = (
            _order(Job(environment=node.environment, seconds=1.0, arguments=each), node, store)
            for each in (asked, [*asked, "--context-length", "128"], ["recheck", "AMD", "--device", "cpu"])
        )
        other = Job(environment=node.environment, seconds=1.0, arguments=["run", "--symbol", "AMD", "--odd"])
        with pytest.raises(AutotuneError, match="--odd"):
            _order(other, node, store)
    assert as_before.results == ((WORKLOAD.signature, "production", node.environment),)
    assert plain.group != as_before.group
    assert recheck.group not in {as_before.group, plain.group}
    assert {each.symbol for each in (as_before, plain, recheck)} == {"AMD"}


def test_a_run_that_takes_longer_than_its_node_was_told_is_stopped(tmp_path: Path) -> None:
    here = current_environment()
    station = Station(
        Task(
            arguments=("run", "--symbol", "AMD", "--json", "--timeout", "60"),
            variables={
                "AUTOTUNE_DB": str(tmp_path / "s.db"),
                "AUTOTUNE_CACHE": str(tmp_path / "cache"),
                "XDG_DATA_HOME": str(tmp_path / "data"),
            },
            device="cpu",
            engine=TOTO1,
            fingerprint=here.fingerprint,
            seconds=1.0,
        )
    )
    until = time.monotonic() + 30.0
    while (ended := station.news(0).ended) is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert (ended.document, ended.stopped) == (None, True)


class BusyNodes(OneNode):
    """A cluster of nodes of which each of ``busy`` begins nothing: others have its CPUs."""

    def __init__(self, found: dict[str, Any], busy: dict[str, bool]) -> None:
        super().__init__(found)
        self.busy = busy
        self.taken_back: list[str] = []

    def nodes(self) -> tuple[RayNode, ...]:
        return tuple(RayNode(id=name, host=name, cpus=2, gpus=0) for name in self.busy)

    def looked(self, asked: Any) -> dict[str, Any]:
        return self.found | {"host": asked, "device": asked}

    def begin(self, node: RayNode, _: Task) -> Handle:
        return Handle(actor=node.id, asked=None)

    def news(self, handle: Handle) -> News | None:
        return None if self.busy[handle.actor] else News(lines=(), ended=Tuned(document={}))

    def end(self, handle: Handle) -> None:
        self.taken_back += [handle.actor] if self.busy[handle.actor] else []


@dataclasses.dataclass
class Heard:
    """What an audience heard."""

    begun_on: list[str] = dataclasses.field(default_factory=list)
    told: list[str] = dataclasses.field(default_factory=list)

    def tell(self, line: str) -> None:
        self.told.append(line)

    def begun(self, order: Order, host: str) -> None:
        self.begun_on.append(host)

    def said(self, order: Order, host: str, line: str) -> None: ...

    def ended(self, ended: Ended) -> None: ...


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("busy", "begun", "reason"),
    [
        (
            {"1": True},
            [],
            "its environment has had no node for 0 s: other tasks of the cluster use what it needs",
        ),
        ({"1": True, "2": False}, ["2", "2"], ""),
    ],
)
def test_a_run_whose_node_others_use_is_taken_back_and_did_not_begin(
    monkeypatch: pytest.MonkeyPatch, busy: dict[str, bool], begun: list[str], reason: str
) -> None:
    monkeypatch.setattr(driver, "SECONDS_TO_BEGIN", 0.2)
    monkeypatch.setattr(driver, "SECONDS_GONE", 0.4)
    cluster, heard = BusyNodes(look("cpu", (TOTO1,), None), busy), Heard()
    fleet = Fleet(cluster, Wanted(device="cpu", engines=(TOTO1,), store=None), heard)  # type: ignore[arg-type]
    fleet.settle()
    (environment,) = fleet.environments
    orders = [
        Order(symbol=symbol, environment=environment, place="a", results=((symbol, "p", environment),))
        for symbol in ("AMD", "AAPL")
    ]
    task = Task(arguments=(), variables={}, device="cpu", engine=TOTO1, fingerprint=environment)
    ended = list(
        driver.drive(fleet, cluster, Schedule(orders), task_of=lambda _: task, audience=heard)  # type: ignore[arg-type]
    )
    assert cluster.taken_back == ["1"]
    assert heard.begun_on == begun
    assert any(" on 1 (a): lost (not begun for 0 s: other tasks" in line for line in heard.told)
    assert [bool(each.host) for each in ended] == [not reason] * 2
    assert all(each.reason.startswith(reason) for each in ended)
