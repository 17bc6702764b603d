from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autotuner.serving.failures import Failures, failures
from autotuner.serving.spool import MOST_QUARANTINES, Quarantine, Window, leave_quarantine, parse_note
from tests.support.notes import QUARANTINE, WINDOW

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def note(process: str | None = "a", minutes: int = 0, pid: int | None = 1) -> Quarantine:
    found = parse_note(QUARANTINE)
    assert isinstance(found, Quarantine)
    at = NOW + timedelta(minutes=minutes)
    return replace(found, process=process, pid=pid, failed_at=at, reason=f"no g++ {minutes}")


def window(minutes: int, *, calls: int = 10, eager: int = 0, source: str = "promotion") -> Window:
    found = parse_note(WINDOW)
    assert isinstance(found, Window)
    at = NOW + timedelta(minutes=minutes)
    return replace(
        found, window_start=at, window_end=at, buckets={40: calls}, eager_calls=eager, source=source
    )


def test_nothing_failed_where_there_is_no_note_of_it() -> None:
    assert failures([]) == failures([window(1, eager=10)]) == Failures()
    assert not Failures().proven
    assert Failures().waits_for == ""


def test_one_process_alone_proves_nothing_however_often_it_says_so() -> None:
    found = failures([note(minutes=2), note(minutes=1), window(5)])

    assert (found.reasons, found.processes) == (("no g++ 1", "no g++ 2"), 1)
    assert found.newest == NOW + timedelta(minutes=2)
    assert not found.proven
    assert "another one does" in found.waits_for


def test_two_processes_prove_it_also_those_of_earlier_versions() -> None:
    assert failures([note("a"), note("b")]).proven
    assert failures([note(None, pid=1), note(None, pid=2)]).proven
    assert not failures([note(None, pid=None), note(None, pid=None)]).proven


def test_windows_of_uncompiled_calls_after_it_prove_it_and_no_others() -> None:
    assert failures([note(), window(1, eager=10)]).proven
    assert not failures([note(), window(-1, eager=10)]).proven
    assert not failures([note(), window(1, eager=4)]).proven  # shapes that nobody promised run uncompiled
    assert failures([note(), window(1, source="quarantined: no g++ 0")]).proven
    assert not failures([note(), window(1, source="quarantined: something else")]).proven


def test_every_process_leaves_a_note_and_of_a_crash_loop_the_newest_stay(tmp_path: Path) -> None:
    for number in range(3 * MOST_QUARANTINES):
        leave_quarantine(tmp_path, note(f"p{number}"))
        leave_quarantine(tmp_path, note(f"p{number}", minutes=1))
    left = [parse_note(path.read_text()) for path in tmp_path.iterdir()]

    assert len(left) == MOST_QUARANTINES
    processes = {each.process for each in left if isinstance(each, Quarantine)}
    assert f"p{3 * MOST_QUARANTINES - 1}" in processes
    assert len(processes) == MOST_QUARANTINES
    leave_quarantine(tmp_path, replace(note("x"), symbol="AAPL"))
    assert len(list(tmp_path.iterdir())) == MOST_QUARANTINES + 1


def test_a_process_has_a_name_of_its_own() -> None:
    import subprocess
    import sys

    from autotuner.machine.process import this_process

    code = (
        "import os; from autotuner.machine.process import this_process as name; "
        "print(name(), flush=True); os.fork() or print(name(), flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len({this_process(), *done.stdout.split()}) == 3
    assert this_process() == this_process()
