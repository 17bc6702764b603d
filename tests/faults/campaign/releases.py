"""Sharing and fetching killed at random moments, meeting full disks at each write, and served damaged releases."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autotuner.environment import current_environment
from autotuner.errors import AutotuneError
from autotuner.paths import CACHE_VARIABLE, snapshot_path
from autotuner.serving.artifacts import compile_cache
from autotuner.serving.manifest import Damaged, link_verified
from autotuner.sharing.keys import KEY_VARIABLE
from autotuner.sharing.sync import Synced
from storage.errors import SnapshotError
from storage.snapshot import read_document
from tests.faults.campaign.counting import Tally, times
from tests.faults.campaign.killing import Tell, leftovers, marked, victim
from tests.faults.campaign.table import Row, Size
from tests.support.faulty_system import ALL, GROWING, Fault
from tests.support.forked_commands import shared_forks
from tests.support.releases import Desk, built
from tests.support.snapshots import COMPILED, entry

HERE = current_environment().fingerprint
VERSIONS = (b"machine code of the first build", b"that of the second" * 50_000)
LEFT = ("*.held", ".removed-*")


def rows(size: Size) -> Iterator[Row]:
    """A row for each end of the way and each kind of fault."""
    rng = random.Random(38)
    yield _killed("sync", times(size, short=20, long=4_000), rng)
    yield _killed("share", times(size, short=20, long=2_000), rng)
    yield _damaged(times(size, short=60, long=10_000), rng)
    yield _failing_calls("full disk", errno.ENOSPC, GROWING, most=times(size, short=12, long=400))
    yield _failing_calls("input/output error", errno.EIO, ALL, most=times(size, short=12, long=400))


@dataclass
class _Way:
    """A desk whose tuning machine shares one of two builds, and what its host may see."""

    desk: Desk
    documents: dict[bytes, int]

    def share(self, version: int) -> None:
        """Build and release that version on the machine that tunes."""
        with _cache(self.desk.home / "tuned" / "cache"):
            self.desk.publish(entry(settings=COMPILED, number=version + 1))
            built(
                HERE, COMPILED.key, self.desk.home / f"build{version}", {"packages/one.so": VERSIONS[version]}
            )
            document, _ = read_document(snapshot_path(self.desk.tuned))
            self.documents[document] = version
            self.desk.share()

    def sync(self) -> Synced:
        """Fetch on the host. Raises ``AutotuneError``."""
        with _cache(self.cache):
            return self.desk.sync()

    @property
    def cache(self) -> Path:
        return self.desk.home / "host" / "cache"

    def wrong(self, *, clean: bool) -> list[str]:
        """What a host may never see: half a snapshot, code that nobody shared, and, once ``clean``, what was left."""
        found = []
        path = snapshot_path(self.desk.host)
        try:
            if read_document(path)[0] not in self.documents:
                found.append("a snapshot that nobody shared")
        except SnapshotError as error:
            if error.reason != "missing":
                found.append(f"no whole snapshot: {error.reason}")
        with _cache(self.cache), tempfile.TemporaryDirectory(dir=self.desk.home) as into:
            folder = compile_cache(HERE, COMPILED.key)
            try:
                link_verified(folder, Path(into))
            except Damaged as error:
                found.append(f"damaged code: {error}")
            code = Path(into) / "packages" / "one.so"
            if code.exists() and code.read_bytes() not in VERSIONS:
                found.append("code that nobody built")
        if clean:
            places = (self.desk.home / "host", self.desk.home / "tuned", self.desk.place)
            found += [f"left behind: {path.name}" for path in leftovers(*places, patterns=LEFT)]
        return found


@contextmanager
def _way() -> Iterator[_Way]:
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        way = _Way(Desk(Path(folder)), {})
        _ = way.desk.key
        way.share(0)
        yield way


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(CACHE_VARIABLE, None)
        if before is not None:
            os.environ[CACHE_VARIABLE] = before


def _killed(what: str, kills: int, rng: random.Random) -> Row:
    """Kill one end while it goes to and fro between two releases; afterwards the host fetches, and has the newest."""
    tally = Tally(f"{'fetching' if what == 'sync' else 'sharing'} killed")
    with _way() as way:
        way.sync()
        for number in range(kills):
            version = (number + 1) % 2
            if what == "sync":
                way.share(version)
                _kill(way.sync, rng.uniform(0.0, 0.03))
            else:
                way.documents |= _documents(way, version)
                _kill(partial(way.share, version), rng.uniform(0.0, 0.05))
            problems = way.wrong(clean=False)
            try:
                if what == "share":
                    way.sync()  # of what lies there now
                    problems += way.wrong(clean=False)
                    way.share(version)
                if way.sync().taken.said:
                    problems.append("code is refused")
            except AutotuneError as error:
                problems.append(f"the next one fails: {error}")
            if way.documents.get(read_document(snapshot_path(way.desk.host))[0]) != version:
                problems.append("the host has not the newest")
            tally.add(problems + way.wrong(clean=True))
    return tally.row()


def _documents(way: _Way, version: int) -> dict[bytes, int]:
    """What the machine that tunes is about to release: it may be killed before it could tell."""
    way.desk.publish(entry(settings=COMPILED, number=version + 1))
    return {read_document(snapshot_path(way.desk.tuned))[0]: version}


def _kill(act: Callable[[], object], within: float) -> None:
    def work(tell: Tell) -> None:
        marked(tell, "it", "once", act)

    with victim(work) as child:
        child.wait_for("it", 1)
        time.sleep(within)
        child.kill()


def _damaged(faults: int, rng: random.Random) -> Row:
    """Change one byte of anything at a place, or cut it: it is refused, and what the host has stays."""
    tally = Tally("a release with another byte, or cut")
    with _way() as way:
        way.sync()
        way.share(1)
        files = [way.desk.pointer, *way.desk.blobs()]
        for _ in range(faults):
            path = rng.choice(files)
            whole = path.read_bytes()
            place = rng.randrange(len(whole))
            cut = rng.random() < 0.3
            changed = bytes([whole[place] ^ (1 << rng.randrange(8))])
            path.write_bytes(whole[:place] if cut else whole[:place] + changed + whole[place + 1 :])
            with contextlib.suppress(AutotuneError):
                way.sync()
            tally.add(way.wrong(clean=True))
            path.write_bytes(whole)
        way.sync()
        tally.add(
            [] if way.documents[read_document(snapshot_path(way.desk.host))[0]] == 1 else ["not the newest"]
        )
    return tally.row()


def _failing_calls(name: str, error: int, kinds: int, *, most: int) -> Row:
    """Let the k-th system call that writes fail on the host, for every k until the command gets through."""
    tally = Tally(f"fetching meets {name} at each write")
    forks = shared_forks()
    with _way() as way:
        host = way.desk.home / "host"
        host.mkdir()
        command = ("sync", "--from", str(way.desk.place), "--db", way.desk.host)
        variables = {KEY_VARIABLE: str(way.desk.key.public), CACHE_VARIABLE: str(way.cache)}
        for call in range(1, most + 1):
            way.share(call % 2)
            fault = Fault(folder=host, first=call, error=error, kinds=kinds, lasting=False)
            done = forks.run(way.desk.home, *command, fault=fault, variables=variables)
            problems = [done.fault((0, 1))] if done.fault((0, 1)) else []
            problems += way.wrong(clean=False)
            again = forks.run(way.desk.home, *command, variables=variables)
            problems += [f"the next one: {again.err.strip()[-150:]}"] if again.code else []
            tally.add(problems + way.wrong(clean=True))
            if not done.failed:
                break
    return tally.row()
