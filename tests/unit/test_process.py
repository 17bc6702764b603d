from __future__ import annotations

import platform
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from autotuner.machine.process import FOREIGN_LASTS, Owner

LATER = timedelta(minutes=1)


def test_what_versions_before_this_one_stored_is_read_and_written_so() -> None:
    stored = {"pid": 4321, "started": 1_777_000_000.25, "host": "trading-1"}

    owner = Owner.from_dict(stored)
    assert owner == Owner(pid=4321, started=1_777_000_000.25, host="trading-1")
    assert owner.to_dict() == stored


@pytest.mark.parametrize(
    "stored", [None, "me", {}, {"pid": 1, "started": 1.0}, {"pid": "x", "started": 1, "host": ""}]
)
def test_what_names_no_process_is_no_owner(stored: object) -> None:
    assert Owner.from_dict(stored) is None


def test_only_this_hosts_processes_can_be_asked_after() -> None:
    mine = Owner.current()

    assert mine.is_alive() is True
    assert replace(mine, started=mine.started - 60).is_alive() is False
    assert replace(mine, pid=2**62).is_alive() is False
    assert replace(mine, host="elsewhere").is_alive() is None


def test_a_clock_that_is_set_makes_nobody_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, earlier = Owner.current(), psutil.Process().create_time()
    assert replace(mine, started=earlier).is_alive() is True  # as versions before this one wrote it

    boot = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 3600)
    assert abs(psutil.Process().create_time() - earlier) == pytest.approx(3600, abs=5)
    assert mine.is_alive() is True
    assert Owner.current() == mine


def test_work_of_this_host_is_left_alone_as_long_as_its_process_lives() -> None:
    mine, now = Owner.current(), datetime.now(UTC)
    gone = replace(mine, started=mine.started - 60)

    assert all(mine.may_work_on(since) for since in (None, now, now - 100 * FOREIGN_LASTS))
    assert not any(gone.may_work_on(since) for since in (None, now))


def test_work_of_another_host_is_left_alone_for_a_day() -> None:
    other, now = replace(Owner.current(), host="elsewhere"), datetime.now(UTC)

    assert other.may_work_on(now - FOREIGN_LASTS + LATER)
    assert not other.may_work_on(now - FOREIGN_LASTS - LATER)
    assert not other.may_work_on(None)


def test_a_host_without_a_name_knows_its_own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "")

    assert Owner.current().host
    assert Owner.current().is_alive() is True
