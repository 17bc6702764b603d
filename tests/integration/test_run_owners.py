"""Two hosts share a store: each goes on with the runs its own dead processes left, and leaves the other's alone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autotuner.environment import current_environment
from autotuner.machine.process import FOREIGN_LASTS, Owner
from autotuner.store import Store, Subject
from storage.records import RunRecord
from tests.support.study_tables import WORKLOAD

STUDY = "study"
LATER = timedelta(minutes=1)


@pytest.fixture(scope="module")
def dead() -> Owner:
    """A process of this host that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return replace(Owner.current(), pid=child.pid)


@pytest.fixture
def subject() -> Subject:
    return Subject(
        symbol="AMD",
        workload=WORKLOAD,
        environment=current_environment(),
        series_digest="prices",
        model_digest="weights",
    )


@pytest.fixture
def store(tmp_path: Path, subject: Subject) -> Iterator[Store]:
    with Store(str(tmp_path / "autotune.db")) as opened:
        opened.remember_setting(subject.workload, subject.environment)
        yield opened


def run_of(store: Store, run_id: str) -> RunRecord:
    return next(run for run in store.records.runs() if run.run_id == run_id)


def left(store: Store, subject: Subject, owner: Owner, *, since: timedelta, **changes: Any) -> RunRecord:
    """A running run in the store that ``owner`` began ``since`` ago."""
    run = RunRecord(
        run_id="left",
        symbol=subject.symbol,
        workload_signature=subject.workload.signature,
        environment_fingerprint=subject.environment.fingerprint,
        profile="production",
        seed=0,
        started_at=datetime.now(UTC) - since,
        owner_pid=owner.pid,
        owner_started=owner.started,
        owner_host=owner.host,
        study_name=STUDY,
    )
    run = replace(run, **changes)
    store.records.start_run(run)
    return run


def begin(store: Store, subject: Subject, *, resume: bool = True) -> tuple[str, bool]:
    return store.begin_run(subject, profile="production", seed=0, study=STUDY, resume=resume)


def is_left_alone(store: Store, subject: Subject, run: RunRecord) -> bool:
    """Whether a run that begins now neither goes on with ``run`` nor ends it."""
    for resume in (True, False):
        run_id, resumed = begin(store, subject, resume=resume)
        if resumed or run_id == run.run_id or run_of(store, run.run_id) != run:
            return False
    return True


def elsewhere(owner: Owner) -> Owner:
    """Of the same id and start time on another host."""
    return replace(owner, host="elsewhere")


def test_a_run_of_another_host_is_left_alone_whatever_has_its_id_here(
    store: Store, subject: Subject, dead: Owner
) -> None:
    alive_here = left(store, subject, elsewhere(Owner.current()), since=FOREIGN_LASTS - LATER)
    dead_here = left(store, subject, elsewhere(dead), since=FOREIGN_LASTS - LATER, run_id="other")

    assert is_left_alone(store, subject, alive_here)
    assert is_left_alone(store, subject, dead_here)


def test_a_run_of_another_host_is_taken_over_after_a_day(store: Store, subject: Subject) -> None:
    left(store, subject, elsewhere(Owner.current()), since=FOREIGN_LASTS + LATER)

    assert begin(store, subject) == ("left", True)
    mine, run = Owner.current(), run_of(store, "left")
    assert (run.owner_pid, run.owner_started, run.owner_host) == (mine.pid, mine.started, mine.host)
    assert run.resumed_at is not None
    assert datetime.now(UTC) - run.resumed_at < LATER


def test_a_run_of_another_host_is_ended_after_a_day_by_who_does_not_go_on_with_it(
    store: Store, subject: Subject
) -> None:
    left(store, subject, elsewhere(Owner.current()), since=FOREIGN_LASTS + LATER)

    assert begin(store, subject, resume=False)[1] is False
    assert run_of(store, "left").status == "failed"


def test_the_day_begins_when_another_host_took_the_run_over(store: Store, subject: Subject) -> None:
    now, other = datetime.now(UTC), elsewhere(Owner.current())
    days = 3 * FOREIGN_LASTS
    fresh = left(store, subject, other, since=days, resumed_at=now - LATER)
    left(store, subject, other, since=days, resumed_at=now - FOREIGN_LASTS - LATER, run_id="stale")

    assert begin(store, subject) == ("stale", True)
    store.end_run("stale", "finished")
    assert is_left_alone(store, subject, fresh)


def test_a_host_takes_back_its_own_runs_a_day_after_it_was_renamed(
    store: Store, subject: Subject, dead: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = left(store, subject, dead, since=LATER)
    left(store, subject, dead, since=FOREIGN_LASTS + LATER, run_id="stale")
    monkeypatch.setattr(platform, "node", lambda: "renamed")

    assert begin(store, subject) == ("stale", True)
    store.end_run("stale", "finished")
    assert is_left_alone(store, subject, fresh)


@pytest.mark.parametrize(
    "keeps_host", [True, False]
)  # versions before the third revision of the store did not
def test_of_this_host_only_runs_of_living_processes_are_left_alone(
    store: Store, subject: Subject, dead: Owner, keeps_host: bool
) -> None:
    mine = Owner.current()
    old: dict[str, Any] = {} if keeps_host else {"owner_host": None}
    long_run = left(store, subject, mine, since=3 * FOREIGN_LASTS, run_id="alive", **old)
    assert is_left_alone(store, subject, long_run)

    for owner in (dead, replace(mine, started=mine.started - 60)):
        left(store, subject, owner, since=LATER, run_id=f"of {owner.pid}", **old)
        assert begin(store, subject) == (f"of {owner.pid}", True)
        store.end_run(f"of {owner.pid}", "finished")


def test_an_interrupted_run_of_another_host_is_free_at_once(store: Store, subject: Subject) -> None:
    left(store, subject, elsewhere(Owner.current()), since=LATER)
    store.end_run("left", "interrupted")

    assert begin(store, subject) == ("left", True)


def test_what_begins_here_bears_this_host(store: Store, subject: Subject) -> None:
    run_id, _ = begin(store, subject)
    run = run_of(store, run_id)

    assert (run.owner_pid, run.owner_host, run.resumed_at) == (os.getpid(), platform.node(), None)
