from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autotuner.measurement.disturbance import DisturbanceWatch, HardwareReading
from autotuner.measurement.placement import Placement, busy_seconds, least_busy, place, with_siblings
from autotuner.measurement.rounds import Rounds
from tests.support.answering_arms import Answering, never
from tests.support.containers import limited
from toto_core.container import ROOT_VARIABLE

CPUS = sorted(os.sched_getaffinity(0))


def test_a_round_runs_on_the_cpus_that_were_least_busy() -> None:
    assert least_busy([0, 1, 2, 3], [5.0, 0.1, 3.0, 0.2], 2) == {1, 3}
    assert least_busy([0, 1], [0.0, 0.0], 1) == {1}
    assert least_busy([4, 5], [0.0], 1) == {5}


@pytest.mark.parametrize("width", [0, len(CPUS), len(CPUS) + 1])
def test_arms_that_want_every_cpu_are_left_where_they_are(width: int) -> None:
    assert Placement(width).next() is None


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
def test_a_quota_leaves_the_choice_among_all_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(limited(tmp_path, cpus=1, memory_bytes=1 << 30)))
    placement = Placement(1)
    assert placement.next() is not None
    assert placement.everywhere == set(CPUS)


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
def test_a_neighbour_is_seen_on_the_cpu_it_keeps_busy() -> None:
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        place(neighbour.pid, frozenset(CPUS[:1]))
        time.sleep(0.2)
        before = busy_seconds()
        time.sleep(0.6)
        spent = busy_seconds()[CPUS[0]] - before[CPUS[0]]
    finally:
        neighbour.kill()
        neighbour.wait()

    assert spent > 0.4


def test_a_neighbour_disturbs_the_rounds_on_its_own_cpu() -> None:
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        place(neighbour.pid, frozenset(CPUS[:1]))
        time.sleep(0.2)
        watch = DisturbanceWatch(lambda: 0.0)
        watch.start(frozenset(CPUS[:1]))
        time.sleep(0.5)
        disturbed = watch.disturbed()
    finally:
        neighbour.kill()
        neighbour.wait()

    assert disturbed


def test_a_neighbour_elsewhere_is_reported_and_disturbs_no_round_that_has_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Other tests use whatever CPU is free, so what the kernel counts is given here.
    far = 1 << 12  # a CPU that shares no core with another
    idle = [0.0] * (far + 1)
    spun = [100.0, *idle[1:]]
    readings = iter([idle, idle, spun, idle, spun])
    monkeypatch.setattr("autotuner.measurement.disturbance.busy_seconds", lambda: next(readings))
    watch = DisturbanceWatch(lambda: 0.0, HardwareReading)
    found = []
    for cpus in (frozenset({far}), None):
        watch.start(cpus)
        found.append(watch.disturbed())

    assert found == [False, True]
    assert watch.conditions(2).foreign_cpu_seconds > 190


def test_siblings_share_a_core_with_what_was_asked() -> None:
    assert frozenset(CPUS[:1]) <= with_siblings(frozenset(CPUS[:1]))
    assert with_siblings(frozenset({1 << 20})) == {1 << 20}


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
def test_rounds_get_as_many_cpus_as_their_arms_need() -> None:
    placement = Placement(1)

    assert all(len(placement.next() or ()) == 1 for _ in range(5))


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
def test_a_process_is_kept_on_its_cpus() -> None:
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        place(idle.pid, frozenset(CPUS[-1:]))
        assert os.sched_getaffinity(idle.pid) == set(CPUS[-1:])
    finally:
        idle.kill()
        idle.wait()


def test_a_process_that_is_gone_cannot_be_placed_and_that_is_no_error() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    before = os.sched_getaffinity(0)
    place(gone.pid, frozenset(CPUS[:1]))

    assert not psutil.pid_exists(gone.pid)
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
def test_all_arms_of_a_round_share_a_place_and_are_free_again_afterwards() -> None:
    calls: list[str] = []
    arms = [Answering("a", calls), Answering("b", calls)]
    Rounds(arms, shapes=1, order=random.Random(0), deadline=time.monotonic() + 60, width=1).take(3, never)
    placed = [call.partition("@") for call in calls if "@" in call]

    assert {name for name, _, _ in placed} == {"a", "b"}
    assert [cpus for name, _, cpus in placed if name == "a"] == [
        cpus for name, _, cpus in placed if name == "b"
    ]
    assert placed[-1][2] == str(CPUS)
