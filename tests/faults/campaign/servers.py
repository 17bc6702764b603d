"""A PostgreSQL server that goes away in the middle of everything and comes back, and disks that are slow."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from autotuner.paths import store_location
from autotuner.serving.lookup import lookup
from autotuner.store import Store
from storage.database import open_database
from storage.errors import StorageError
from storage.repository import Repository
from tests.faults.campaign.table import Row, Size
from tests.faults.campaign.tally import Tally
from tests.support import writing_commands
from tests.support.faulty_system import ALL, Fault
from tests.support.forked_commands import Done, Forks, shared_forks
from tests.support.postgres import Server, running
from tests.support.promoted_store import FAST, promotion
from tests.support.storage_samples import MEASUREMENT, with_subjects
from tests.support.store_states import damage_in, lookup_fault, state_of
from tests.support.writing_commands import WRITING

_SLOWEST_LOOKUP_MS = 50.0
_ENDINGS: tuple[tuple[str, Callable[[Server], None]], ...] = (
    ("restarted", lambda server: server.stop("fast")),
    ("stopped at once", lambda server: server.stop("immediate")),
    ("killed", lambda server: server.kill()),
)


def rows(size: Size) -> Iterator[Row]:
    """Of the server, where one is installed, and of slow disks."""
    forks = shared_forks()
    with tempfile.TemporaryDirectory() as name:
        if size == "long":
            with contextlib.suppress(LookupError):
                yield from _server_rows(forks, Path(name))
        yield _slow_disks(forks, Path(name), size)


@dataclass(frozen=True)
class _Served:
    forks: Forks
    server: Server
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        return WRITING[0].variables(self.folder) | {"AUTOTUNE_DB": self.server.url()}

    def run(self, *arguments: str) -> Done:
        return self.forks.run(self.folder, *arguments, variables=self.variables, seconds=120)

    def call(self, function: str, *arguments: object) -> Done:
        asked = {"call": f"{__name__}:{function}", "arguments": arguments}
        return self.forks.ask(asked, self.folder, variables=self.variables, seconds=120)

    @contextlib.contextmanager
    def going_away(self, end: Callable[[Server], None], *, after: float) -> Iterator[None]:
        """The server ends ``after`` seconds, is away for one, and comes back."""

        def go() -> None:
            time.sleep(after)
            end(self.server)
            time.sleep(1.0)
            self.server.start()

        thread = threading.Thread(target=go)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def _server_rows(forks: Forks, place: Path) -> Iterator[Row]:
    folder = place / "served"
    folder.mkdir(mode=0o700)
    with running() as server:
        served = _Served(forks, server, folder)
        (folder / "quiet.toml").write_text('[daemon]\nquiet = ["00:00-23:59 mon-sun"]\nload_ceiling = 64.0\n')
        ready = served.call("prepare")
        if ready.code:
            raise AssertionError(ready.err)
        for what, end in _ENDINGS:
            yield _while_writing(served, what, end, 4)
            yield _while_running(served, what, end, 3)
            yield _while_looking_up(served, what, end, 3)
        yield _while_away(served)


def _while_writing(served: _Served, what: str, end: Callable[[Server], None], times: int) -> Row:
    tally, acknowledged = Tally(fault=f"PostgreSQL {what} while rows are written"), 0
    for number in range(times):
        with served.going_away(end, after=0.3 + 0.1 * number):
            done = served.call("write_on", f"{what} {number}", 4.0)
        told = [line.partition(" ") for line in done.out.splitlines()]
        rows = {text for kind, _, text in told if kind == "stored"}
        failures = [text for kind, _, text in told if kind == "failed"]
        acknowledged += len(rows)
        with open_database(served.server.url()) as database:
            stored = {record.detail for record in Repository(database).measurements()}
            damage = database.check()
        lost = rows - stored
        tally.add(
            done.fault((0,)),
            f"{len(lost)} acknowledged rows are lost" if lost else "",
            "it was not noticed, so nothing was tried" if not failures else "",
            "nothing was stored after it came back" if not told or told[-1][0] == "failed" else "",
            *damage,
        )
    return tally.row(f"{acknowledged:,} rows acknowledged")


def _while_running(served: _Served, what: str, end: Callable[[Server], None], times: int) -> Row:
    """The run ends well, or with one line and then the same command goes on where it was."""
    tally, chance, ended = Tally(fault=f"PostgreSQL {what} during a run"), random.Random(what), 0
    run = next(each for each in WRITING if each.name == "run --replay").arguments
    arguments = (*run[:-1], served.server.url(), "--fresh")
    for number in range(times):
        before = _rows(served)
        with served.going_away(end, after=0.2 + 1.5 * chance.random()):
            done = served.run(*arguments)
        after = _rows(served)
        ended += done.code == 0
        tally.add(done.fault(), "rows are lost" if after < before else "", about=f"number {number}")
        again = served.run(*arguments[:-1])
        tally.add(again.fault((0,)), "rows are lost" if _rows(served) < after else "", about="the next one")
    return tally.row(f"{ended} of {times} went through")


def _rows(served: _Served) -> int:
    with open_database(served.server.url()) as database:
        return len(Repository(database).measurements())


def _while_looking_up(served: _Served, what: str, end: Callable[[Server], None], times: int) -> Row:
    tally, slowest = Tally(fault=f"PostgreSQL {what} while others look up"), 0.0
    for _ in range(times):
        with served.going_away(end, after=0.3):
            done = served.call("look_up_on", 2.5)
        tally.add(done.fault((0,)))
        slowest = max(slowest, float(done.out.split()[-1]))
    return tally.row(f"the slowest lookup {slowest:.1f} ms")


def _while_away(served: _Served) -> Row:
    """Every command says so in one line, a lookup goes on, and a tick later is as ever."""
    tally = Tally(fault="PostgreSQL away, every command")
    served.server.stop("fast")
    for arguments in (*writing_commands.READING, *(each.arguments for each in WRITING if not each.empty)):
        if "--db" in arguments or arguments[:1] in {("cron",)} or arguments[:2] == ("db", "prune"):
            continue
        done = served.run(*arguments)
        tally.add(done.fault((1, 2)), about=" ".join(arguments))
    tally.add(served.call("look_up_on", 0.2).fault((0,)), about="lookup")
    served.server.start()
    tally.add(
        served.run("daemon", "--once", "--config", "quiet.toml").fault((0,)), about="tick when it is back"
    )
    return tally.row()


def _slow_disks(forks: Forks, place: Path, size: Size) -> Row:
    """Each write and sync takes so long; nothing else changes, least of all for who looks up."""
    tally, chance, slowest = Tally(fault="a slow disk: each write takes 50 to 200 ms"), random.Random(1), 0.0
    names = (
        "pin",
        "rollback",
        "export",
        "db backup",
        "import",
        "daemon --once",
        "db upgrade of 0.1.0",
        "select",
    )
    for command in [each for each in WRITING if each.name in (names if size == "long" else names[:1])]:
        folder, quick = place / "slow", place / "quick"
        for each in (folder, quick):
            each.mkdir(mode=0o700)
            writing_commands.prepare(command, each)
        undisturbed = forks.run(quick, *command.arguments, variables=command.variables(quick))
        delay = chance.randrange(50_000, 200_000) if size == "long" else 5_000
        fault = Fault(folder=folder, kinds=ALL, delay_us=delay)
        with _looking_up(folder) as latencies:
            done = forks.run(
                folder, *command.arguments, variables=command.variables(folder), fault=fault, seconds=300
            )
        slowest = max(slowest, *latencies)
        tally.add(
            done.fault((0,)),
            undisturbed.fault((0,)),
            "" if state_of(folder) == state_of(quick) else "it came to something else than on a quick disk",
            damage_in(folder),
            lookup_fault(folder),
            f"a lookup took {slowest:.0f} ms" if slowest > 10 * _SLOWEST_LOOKUP_MS else "",
            about=command.name,
        )
        shutil.rmtree(folder)
        shutil.rmtree(quick)
    return tally.row(f"the slowest lookup beside them {slowest:.1f} ms")


@contextlib.contextmanager
def _looking_up(folder: Path) -> Iterator[list[float]]:
    """Look up all the while; the milliseconds each took."""
    latencies, stopped = [0.0], threading.Event()

    def go() -> None:
        while not stopped.wait(0.002):
            begun = time.perf_counter()
            lookup("AMD", db=str(folder / "autotune.db"))
            latencies.append(1e3 * (time.perf_counter() - begun))

    lookup("AMD", db=str(folder / "autotune.db"))
    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield latencies
    finally:
        stopped.set()
        thread.join()


# What processes on the server's store do


def prepare() -> None:
    """Promote one symbol, and store what measurements refer to."""
    with Store(os.environ["AUTOTUNE_DB"]) as store:
        store.promote(promotion("AMD", FAST))
        with_subjects(store._database)


def write_on(name: str, seconds: float) -> None:
    """Write rows for so long, and say of each whether it was stored; what failed is tried again as another."""
    end, number = time.monotonic() + seconds, 0
    with open_database(os.environ["AUTOTUNE_DB"]) as database:
        repository = Repository(database)
        while time.monotonic() < end:
            detail = f"{name}.{number}"
            try:
                repository.add_measurement(replace(MEASUREMENT, detail=detail))
                sys.stdout.write(f"stored {detail}\n")
            except StorageError as error:
                if len(str(error).splitlines()) != 1:
                    raise
                sys.stdout.write(f"failed {detail}\n")
                time.sleep(0.1)
            number += 1


def look_up_on(seconds: float) -> None:
    """Look up for so long; the milliseconds of the slowest."""
    end, slowest = time.monotonic() + seconds, 0.0
    first = lookup("AMD", db=store_location())
    while time.monotonic() < end:
        begun = time.perf_counter()
        found = lookup("AMD", db=store_location())
        slowest = max(slowest, 1e3 * (time.perf_counter() - begun))
        if found.settings != FAST or found != first:
            raise AssertionError(f"lookup gives {found}")
        time.sleep(0.0005)
    sys.stdout.write(f"{slowest}")
