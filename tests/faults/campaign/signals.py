"""Signals at every phase of a run and of the daemon, and two daemons on one store at once."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil

from storage.database import open_database
from storage.repository import Repository
from tests.faults.campaign.counting import Tally, scaled, times
from tests.faults.campaign.kills_of_daemon import DaemonWorld, events
from tests.faults.campaign.kills_of_runs import TABLE
from tests.faults.campaign.running import Command, Place, new_place, tiny_model
from tests.faults.campaign.table import Row, Size
from tests.support.storage_samples import empty_store

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LONGEST_S = 240.0
_ENDS_WITHIN_S = 10.0
"""What the daemon and a run promise after SIGTERM."""
_STOPPED_S = 1.0
_LAST_WORDS = ("Error:", "Aborted!")  # the latter is click's, before there is anything to go on with
_ARM = "autotuner.measurement.child.main"


def rows(size: Size) -> Iterator[Row]:
    """A row for each command and signal, and one for two daemons."""
    rng = random.Random(22)
    for which in (signal.SIGTERM, signal.SIGSTOP) if size == "short" else (*ENDING, signal.SIGSTOP):
        yield _of_runs(which, times(size, short=1, long=30), rng, forked=True)
    if size == "long":
        for which in (*ENDING, signal.SIGSTOP):
            yield _of_runs(which, times(size, short=1, long=6), rng, forked=False)
        yield from _of_daemons(rng, times(size, short=1, long=10))
        yield _two_daemons(scaled(size, short=10.0, long=180.0))


def _of_runs(which: signal.Signals, wanted: int, rng: random.Random, *, forked: bool) -> Row:
    kind = "its trials answered from a table" if forked else "with processes that measure for it"
    tally, whole = Tally(f"{which.name} for a run, {kind}"), 1.0 if forked else 6.0
    with tempfile.TemporaryDirectory(prefix="campaign-") as above:
        model = () if forked else tiny_model()
        for number in range(wanted):
            with new_place(Path(above) / str(number)) as place:
                place.db.write_bytes(empty_store())
                how = ("--replay", str(TABLE)) if forked else ("--profile", "research", "--timeout", "60")
                arguments = ("run", "--json", "--symbol", "AMD", *how, *model, "--db", str(place.db))
                begun = time.monotonic()
                run = Command(place, *arguments, forked=forked)
                time.sleep(rng.uniform(0.0, whole))
                tally.add(_signalled(run, which, place, arguments, tally))
                whole = max(whole, 0.5 * (time.monotonic() - begun))
    return tally.row()


def _signalled(
    run: Command, which: signal.Signals, place: Place, arguments: tuple[str, ...], tally: Tally
) -> list[str]:
    problems: list[str] = []
    run.send(which)
    if which is signal.SIGSTOP:
        time.sleep(_STOPPED_S)
        run.send(signal.SIGCONT)
        code = run.ended(_LONGEST_S)
        problems += [] if code == 0 else [f"it does not go on: {code} {run.said[-200:]}"]
    else:
        begun = time.monotonic()
        code = run.ended(_LONGEST_S)
        took = time.monotonic() - begun
        problems += _ended_well(run, which, code, took)
        tally.noted["was done already" if code == 0 else "interrupted"] += 1
    problems += [f"a process is left: {each}" for each in place.left()]
    again = Command(place, *arguments, forked=not place.processes() and "--replay" in arguments)
    if (code := again.ended(_LONGEST_S)) != 0:
        return [*problems, f"the next run fails: {code} {again.said[-200:]}"]
    with open_database(place.db) as database:
        if Repository(database).unfinished_runs():
            problems.append("a run is unfinished after the next one")
    stray = place.temporary_files()
    return problems + ([f"left behind in TMPDIR: {', '.join(stray)}"] if stray else [])


def _ended_well(run: Command, which: signal.Signals, code: int, took: float) -> Iterator[str]:
    """An interrupt is told in one line once the command listens for it; before that and for SIGHUP it just dies."""
    if took > _ENDS_WITHIN_S and code != 0:
        yield f"ended late: {took:.1f} s after {which.name}"
    if code not in (0, 1, -which):
        yield f"ended with another code: {code} {run.said[-200:]}"
    if code == 1 and len([line for line in run.said.splitlines() if line.startswith(_LAST_WORDS)]) != 1:
        yield f"ended without one line that says so: {run.said[-200:]}"
    if "Traceback" in run.said:
        where = run.said.index("Traceback")
        yield f"ended with a traceback: {run.said[max(0, where - 100) : where]} {run.said[-200:]}"


def _of_daemons(rng: random.Random, wanted: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder, new_place(Path(folder)) as place:
        world = DaemonWorld(place)
        world.settle()
        for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGSTOP):
            tally = Tally(f"{which.name} for the daemon")
            for _ in range(wanted):
                tally.add([*_daemon_signalled(world, which, rng), *world.after()])
            yield tally.row()


def _daemon_signalled(world: DaemonWorld, which: signal.Signals, rng: random.Random) -> Iterator[str]:
    daemon = world.daemon("busy")
    daemon.says('"started"', _LONGEST_S)
    time.sleep(rng.uniform(0.0, 8.0))
    world.leave_note()
    daemon.send(which)
    if which in (signal.SIGHUP, signal.SIGSTOP):
        time.sleep(_STOPPED_S)
        daemon.send(signal.SIGCONT)
        ticks = events(daemon).count("tick")
        if not daemon.wait_until(lambda: events(daemon).count("tick") > ticks, _LONGEST_S):
            yield f"it does not tick any more: {daemon.said[-200:]}"
        daemon.send(signal.SIGTERM)
    begun = time.monotonic()
    code = daemon.ended(60.0)
    if (took := time.monotonic() - begun) > _ENDS_WITHIN_S:
        yield f"ended late: after {took:.1f} s"
    if code != 0 or events(daemon)[-1:] != ["stopped"]:
        yield f"ended with another word: {code} {daemon.said[-200:]}"


def _two_daemons(seconds: float) -> Row:
    """Both on the busy configuration: at no moment do arms of two runs measure, nor two runs of one symbol."""
    tally, together = Tally("a moment of two daemons on one store"), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder, new_place(Path(folder)) as place:
        world = DaemonWorld(place)
        world.settle()
        daemons = [world.daemon("busy") for _ in range(2)]
        end = time.monotonic() + seconds
        while time.monotonic() < end and all(each.running() for each in daemons):
            world.leave_note()
            measuring = _runs_that_measure(place)
            together[f"{len(measuring)} runs measuring"] += 1
            tally.add([f"two runs measure at once: {measuring}"] if len(measuring) > 1 else [])
            time.sleep(0.05)
        ended: list[str] = [f"a daemon ended: {each.said[-200:]}" for each in daemons if not each.running()]
        for each in daemons:
            each.send(signal.SIGTERM)
        codes = [each.ended(60.0) for each in daemons]
        ended += [] if codes == [0, 0] else [f"ended with other codes: {codes}"]
        ended += [f"a tick failed: {each.said[-200:]}" for each in daemons if "tick_failed" in events(each)]
        tally.add([*ended, *world.after()])
        tuned = sum(events(each).count("tuned") for each in daemons)
        failed = [line for each in daemons for line in each.said.splitlines() if '"failed"' in line]
        twice = _begun_while_another_ran(place)
    tally.noted.update(together)
    told = f"{tuned} runs done, {len(failed)} failed{': ' + _reason(failed[0]) if failed else ''}"
    return tally.row(f"{told}; {twice} begun while another of the same symbol was unfinished")


def _reason(line: str) -> str:
    return str(json.loads(line).get("reason"))[:80]


def _runs_that_measure(place: Place) -> list[int]:
    """Process ids of the runs whose arms are alive, all of them at the same moment."""
    arms = []
    for each in place.processes():
        with contextlib.suppress(psutil.Error):
            parent = each.parent()
            if _ARM in each.cmdline() and parent is not None and _ARM not in parent.cmdline():
                arms.append((each, parent.pid))
    # To look at all processes takes a while, in which one run may have ended and the next begun.
    return sorted({run for arm, run in arms if _is_alive(arm)})


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _begun_while_another_ran(place: Place) -> int:
    statement = (
        "SELECT COUNT(*) FROM runs a JOIN runs b ON a.symbol = b.symbol AND a.run_id <> b.run_id "
        "WHERE a.started_at > b.started_at AND a.started_at < b.finished_at"
    )
    with closing(sqlite3.connect(place.db)) as connection:
        (count,) = connection.execute(statement).fetchone()
    return int(count)
