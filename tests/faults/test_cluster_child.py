"""A daemon's child that speaks to its cluster hangs, dies or talks nonsense: the tick goes on, and says why."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from autotuner.daemon import cluster_child
from autotuner.daemon.cluster import OnCluster, Owned
from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.places import Job, Place
from autotuner.environment import current_environment
from autotuner.store import Store

PLACE = Place(environment=current_environment(), name="a")
ANSWERS = (
    f"say({json.dumps({'places': [{'name': 'a', 'facts': dataclasses.asdict(PLACE.environment)}]})!r})\n"
)
JOBS = "sys.stdin.readline()\n"
ENDED = json.dumps({"job": 0, "document": {}, "cause": ""})
DONE = json.dumps({"done": True})


@dataclass
class Tick:
    """What a tick with a child that does so comes to."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    stop: threading.Event = field(default_factory=threading.Event)
    log: list[dict[str, Any]] = field(default_factory=list)
    results: list[Tuned] = field(default_factory=list)
    fault: str | None = None

    @contextmanager
    def cluster(self, does: str, beat: Callable[[], None] = lambda: None) -> Iterator[OnCluster]:
        stub = self.folder / "stub"
        stub.write_text(
            f"#!{sys.executable} -IS\nimport json, os, signal, subprocess, sys, time\n"
            "def say(line): os.write(1, line.encode() + b'\\n')\n" + does
        )
        stub.chmod(0o755)
        with self.monkeypatch.context() as patched, Store(str(self.folder / "s.db")) as store:
            patched.setattr(sys, "executable", str(stub))
            owned = OnCluster(
                owned=Owned(on="ray"),
                store=store,
                stop=self.stop,
                quiet=lambda: None,
                beat=beat,
                log=lambda event, **fields: self.log.append({"event": event, **fields}),
            )
            with owned:
                yield owned
            self.fault = owned.fault

    def measure(self, does: str, *, jobs: int = 1, beat: Callable[[], None] = lambda: None) -> None:
        with self.cluster(does, beat) as owned:
            self.results += [result for _, result in owned.measure(asked(jobs))]

    def told(self) -> list[str]:
        return [each["reason"] for each in self.log if each["event"] == "cluster"]


def asked(count: int, length: int = 0) -> list[Job]:
    return [
        Job(symbol=f"S{n}", place=PLACE, arguments=("run", "x" * length), seconds=0.1) for n in range(count)
    ]


@pytest.fixture
def tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tick:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cluster_child, "SECONDS_TO_ANSWER", 1.0)
    monkeypatch.setattr(cluster_child, "SECONDS_BEYOND", 0.9)
    monkeypatch.setattr(cluster_child, "INTERRUPT_SECONDS", 2.0)
    return Tick(tmp_path, monkeypatch)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("time.sleep(60)", "said nothing for 1 s"),
        (f"while True: say({DONE!r}); time.sleep(0.1)", "said nothing for 1 s"),
        (f"{ANSWERS}{JOBS}time.sleep(60)", "said nothing for 1 s"),
        (f"{ANSWERS}time.sleep(60)", "said nothing for 1 s"),
        (f"{ANSWERS}{JOBS}while True: say('{{}}'); time.sleep(0.1)", "said nothing for 1 s"),
        (f"{ANSWERS}{JOBS}os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        (
            f"{ANSWERS}sys.stderr.write('vm: a node\\n'); sys.stderr.flush(); {JOBS}os.kill(os.getpid(), 11)",
            "SIGSEGV",
        ),
        (f"{ANSWERS}{JOBS}sys.exit('Error: the cluster is gone')", "the cluster is gone"),
        (
            f"{ANSWERS}{JOBS}subprocess.Popen(['sleep', '9'], start_new_session=True); os._exit(3)",
            "exit code 3",
        ),
        (f"{ANSWERS}{JOBS}\nwhile True: os.write(1, b'x' * 1000000)", "said 8 MB without an end"),
        ("say(json.dumps({'places': [{}]}))\ntime.sleep(60)", "cannot be read: KeyError"),
    ],
)
def test_a_child_that_says_nothing_more_is_ended_and_the_reason_told_once(
    tick: Tick, does: str, reason: str
) -> None:
    began = time.monotonic()
    tick.measure(does)
    assert time.monotonic() - began < 8.0
    assert tick.results == []
    (told,) = [each for each in tick.told() if "passed over" not in each]
    assert told == tick.fault
    assert reason in told


@pytest.mark.parametrize(
    "said",
    [
        "5",
        "null",
        "WARNING grpc",
        "[" * 100_000,
        '{"job": 7, "document": null, "cause": "x"}',
        '{"job": [], "host": "h"}',
        '{"job": 0, "host": 5}',
        '{"job": 0}',
        '{"event": "?"}',
    ],
)
def test_what_makes_no_sense_is_told_and_passed_over(tick: Tick, said: str) -> None:
    tick.measure(
        f"{ANSWERS}{JOBS}say({said!r}); say({ENDED!r}); say({ENDED!r}); say({DONE!r})\ntime.sleep(60)"
    )
    assert [each.document for each in tick.results] == [{}]
    assert tick.fault is None
    assert len(tick.told()) == 2  # this, and what ended twice
    assert all("passed over" in each and len(each) < 200 for each in tick.told())


def test_bytes_that_are_no_text_are_passed_over(tick: Tick) -> None:
    tick.measure(
        f"os.write(1, b'\\xff\\xfe\\n')\n{ANSWERS}{JOBS}say({ENDED!r}); say({DONE!r})\ntime.sleep(60)"
    )
    assert [each.document for each in tick.results] == [{}]
    assert tick.fault is None


def test_many_jobs_for_a_child_that_does_not_read_do_not_hold_the_tick(tick: Tick) -> None:
    beats: list[float] = []
    with tick.cluster(f"{ANSWERS}time.sleep(60)", lambda: beats.append(time.monotonic())) as owned:
        assert list(owned.measure(asked(20, length=100_000))) == []
    assert max(later - sooner for sooner, later in pairwise(beats)) < 2.5
    assert "said nothing" in str(tick.fault)


def test_what_ended_before_the_child_did_is_not_lost(tick: Tick) -> None:
    begun = json.dumps({"job": 1, "host": "h"})
    tick.measure(f"{ANSWERS}{JOBS}say({ENDED!r}); say({begun!r}); os._exit(3)", jobs=3)
    assert [(each.document, each.stopped) for each in tick.results] == [({}, False), (None, True)]


def test_a_failed_tick_lets_runs_store_that_they_were_interrupted(tick: Tick, tmp_path: Path) -> None:
    stored = tmp_path / "stored"
    does = f"signal.signal(15, lambda *_: (open({str(stored)!r}, 'w').close(), sys.exit(1)))\n{ANSWERS}{JOBS}"

    def fails() -> None:
        with tick.cluster(f"{does}say({ENDED!r})\ntime.sleep(60)") as owned:
            next(iter(owned.measure(asked(2))))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert stored.exists()


def test_a_job_that_no_node_took_did_not_begin(tick: Tick) -> None:
    host, failed = (
        json.dumps({"job": 0, "host": "h"}),
        {"document": None, "cause": "its environment has no node"},
    )
    said = [host, *(json.dumps({"job": job, **failed}) for job in (0, 1)), DONE]
    tick.measure(f"{ANSWERS}{JOBS}{'; '.join(f'say({each!r})' for each in said)}\ntime.sleep(60)", jobs=2)
    assert [(each.document, each.began) for each in tick.results] == [(None, True), (None, False)]


def test_a_stop_ends_the_child_in_seconds_though_another_process_holds_its_output(tick: Tick) -> None:
    holder = "subprocess.Popen(['sleep', '9'], start_new_session=True)"
    threading.Timer(0.5, tick.stop.set).start()
    began = time.monotonic()
    tick.monkeypatch.setattr(cluster_child, "SECONDS_BEYOND", 60.0)
    tick.measure(f"{ANSWERS}{JOBS}{holder}\ntime.sleep(60)")
    assert time.monotonic() - began < 5.0
    assert tick.fault is None


def test_a_child_that_cannot_be_started_leaves_nothing_open_and_is_told(tick: Tick) -> None:
    files = len(list(Path("/proc/self/fd").iterdir()))
    with Store(str(tick.folder / "s.db")) as store:
        inside = len(list(Path("/proc/self/fd").iterdir())) - files
        tick.monkeypatch.setattr(sys, "executable", "/nowhere")
        log: list[Any] = []
        with OnCluster(
            owned=Owned(on="ray"),
            store=store,
            stop=tick.stop,
            quiet=lambda: None,
            beat=lambda: None,
            log=lambda event, **fields: log.append(fields["reason"]),
        ) as owned:
            assert list(owned.measure(asked(1))) == []
        assert len(list(Path("/proc/self/fd").iterdir())) - inside == files
    assert log == ["the process that speaks to the cluster cannot be started: No such file or directory"]


def test_what_native_code_prints_in_the_child_is_no_answer() -> None:
    code = (
        "import os; from autotuner.cli.fleet_child import _own_output\nanswers = _own_output()\n"
        "os.write(1, b'native')\nprint('ray')\nanswers.write('answer')\nanswers.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "answer"
    assert set(done.stderr.split()) == {"nativeray"}
