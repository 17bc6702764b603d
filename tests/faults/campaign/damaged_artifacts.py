"""Compiled code that was damaged, exchanged, linked, given away or changed while it is loaded is never run.

Short, the checks alone on files of a folder; long, also a real library of a small model, damaged and then loaded for
forecasts by processes that have no compiler: each goes on with what is intact, or in eager mode.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autotuner.serving.artifacts import CacheRefused
from autotuner.serving.manifest import MANIFEST, Damaged, add_files, link_verified
from tests.faults.campaign.table import Row, Size
from tests.faults.campaign.tally import Tally
from tests.support.loading_artifacts import real_artifact
from tests.support.storage_samples import NOBODY


def rows(size: Size) -> Iterator[Row]:
    """Of the checks, of races with them, and of real loads."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        yield from _checks(place, 100 if size == "long" else 15)
        yield _exchanged_by_name(place, 1500 if size == "long" else 60)
        yield _changed_in_place(place, 400 if size == "long" else 20)
        if size == "long":
            yield from _real_loads(place, 4)


# How a file or its list can be other than it was stored


def _truncated(path: Path, chance: random.Random) -> None:
    path.chmod(0o700)
    os.truncate(path, chance.randrange(path.stat().st_size))


def _flipped(path: Path, chance: random.Random) -> None:
    path.chmod(0o700)
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _zeroed(path: Path, chance: random.Random) -> None:
    path.chmod(0o700)
    content = bytearray(path.read_bytes())
    start = chance.randrange(len(content))
    content[start : start + 4096] = os.urandom(len(content[start : start + 4096]))
    path.write_bytes(content)


def _longer(path: Path, _: random.Random) -> None:
    path.chmod(0o700)
    with path.open("ab") as file:
        file.write(b"more")


def _anothers(path: Path, chance: random.Random) -> None:
    others = [each for each in _files(path.parents[1]) if each.read_bytes() != path.read_bytes()]
    shutil.copy(chance.choice(others), path.with_name("aside"))
    path.with_name("aside").replace(path)


def _linked(path: Path, _: random.Random) -> None:
    elsewhere = path.with_name(f"real-{path.name}")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _folder(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path, _: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _given_away(path: Path, _: random.Random) -> None:
    os.chown(path, NOBODY, NOBODY)


def _writable(path: Path, chance: random.Random) -> None:
    path.chmod(chance.choice((0o777, 0o720, 0o602)))


def _deleted(path: Path, _: random.Random) -> None:
    path.unlink()


Damage = Callable[[Path, random.Random], None]
_DAMAGES: tuple[tuple[str, Damage], ...] = (
    ("truncated", _truncated),
    ("a bit flipped", _flipped),
    ("overwritten in part", _zeroed),
    ("made longer", _longer),
    ("exchanged with another's", _anothers),
    ("a link", _linked),
    ("a folder", _folder),
    ("a pipe", _pipe),
    ("of another owner", _given_away),
    ("writable by others", _writable),
    ("deleted", _deleted),
)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _possible(damage: Damage) -> bool:
    return damage is not _given_away or os.geteuid() == 0


def _checks(place: Path, times: int) -> Iterator[Row]:
    stored, good = _stored(place)
    for what, damage in _DAMAGES:
        if not _possible(damage):
            continue
        tally = Tally(fault=f"artifact {what}")
        chance = random.Random(what)
        for _ in range(times):
            copy, into = place / "copy", place / "into"
            shutil.copytree(stored, copy)
            victim = chance.choice(_files(copy))
            damage(victim, chance)
            tally.add(*_taken(copy, into, good, refused=True), about=victim.name)
            shutil.rmtree(copy)
            shutil.rmtree(into, ignore_errors=True)
        yield tally.row()
    yield _lists(place, stored, good)


def _stored(place: Path) -> tuple[Path, set[str]]:
    """A folder of artifacts as it is kept, and the digests of its files."""
    made, stored = place / "made", place / "stored"
    for number in range(6):
        path = made / ("packages" if number < 2 else f"inductor/{number}") / f"{number}.so"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(random.Random(number).randbytes(20_000 * (number + 1)))
        path.chmod(0o500)
    stored.mkdir(mode=0o700)
    add_files(made, stored)
    return stored, {hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(made)}


def _taken(stored: Path, into: Path, good: set[str], *, refused: bool = False) -> Iterator[str]:
    """What is wrong with what a load would take from ``stored``."""
    try:
        taken = link_verified(stored, into)
    except (Damaged, CacheRefused) as error:
        yield "" if len(str(error).splitlines()) == 1 else f"more than a line: {error}"
        return
    except Exception as error:
        yield f"{type(error).__name__}: {error}"
        return
    if taken is None:
        yield "" if not (stored / MANIFEST).exists() else "nothing was taken although there is a list"
        return
    yield "it was taken" if refused else ""
    wrong = [p.name for p in _files(into) if hashlib.sha256(p.read_bytes()).hexdigest() not in good]
    yield f"other bytes were taken: {wrong[0]}" if wrong else ""


_ABSURD_LISTS = (
    "",
    "{}",
    "[]",
    "null",
    '{"format": 1, "files": []}',
    '{"format": 2, "files": {}}',
    '{"format": 1, "files": {"../escaped": {"sha256": "", "bytes": 0}}}',
    '{"format": 1, "files": {"/etc/passwd": {"sha256": "", "bytes": 0}}}',
    '{"format": 1, "files": {"packages": {"sha256": "", "bytes": 0}}}',
    '{"format": 1, "files": {"a\\u0000b": {"sha256": "", "bytes": 0}}}',
    '{"format": 1, "files": {"": {"sha256": "", "bytes": 0}}}',
    '{"format": 1, "files": {"packages/0.so": {"sha256": 5, "bytes": true}}}',
    '{"format": 1, "files": {"packages/0.so": {"sha256": "", "bytes": ' + "9" * 5000 + "}}}",
    '{"format": 1, "files": ' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"format": 1, "files": {"' + "a/" * 3000 + '": {"sha256": "", "bytes": 1}}}',
    '{"format": 1, "files": {"packages/0.so/1": {"sha256": "", "bytes": 1}}}',
)


def _lists(place: Path, stored: Path, good: set[str]) -> Row:
    tally = Tally(fault="list of artifacts rewritten by hand")
    for text in _ABSURD_LISTS:
        copy, into = place / "copy", place / "into"
        shutil.copytree(stored, copy)
        (copy / MANIFEST).write_text(text)
        tally.add(*_taken(copy, into, good, refused=True), about=text[:60])
        tally.add("a name led outside" if (place / "escaped").exists() else "")
        shutil.rmtree(copy)
        shutil.rmtree(into, ignore_errors=True)
    return tally.row()


# Changed between check and load


def _exchange(victim: str, good: bytes, bad: bytes, end: Any) -> None:
    """Put the one and the other in its place, by renaming, until told to stop."""
    path = Path(victim)
    while not end.is_set():
        for content in (bad, good):
            aside = path.with_name("aside.tmp")
            aside.write_bytes(content)
            aside.chmod(0o500)
            aside.replace(path)


def _overwrite(victim: str, good: bytes, bad: bytes, end: Any) -> None:
    """Write the one and the other into the same file until told to stop."""
    with Path(victim).open("r+b") as file:
        while not end.is_set():
            for content in (bad, good):
                file.seek(0)
                file.write(content)
                file.flush()


@contextlib.contextmanager
def _racing(victim: Path, act: Callable[..., None]) -> Iterator[None]:
    good = victim.read_bytes()
    bad = bytes(byte ^ 1 for byte in good)
    victim.chmod(0o700)
    context = multiprocessing.get_context("fork")
    end = context.Event()
    process = context.Process(target=act, args=(str(victim), good, bad, end))
    process.start()
    try:
        yield
    finally:
        end.set()
        process.join()


def _exchanged_by_name(place: Path, times: int) -> Row:
    tally = Tally(fault="artifact exchanged, again and again, by another process while loads go on")
    shutil.rmtree(place / "made")
    shutil.rmtree(place / "stored")
    stored, good = _stored(place)
    refused = 0
    with _racing(stored / "packages" / "1.so", _exchange):
        for _ in range(times):
            into = place / "into"
            found = list(_taken(stored, into, good))
            refused += found == [""]
            tally.add(*found)
            shutil.rmtree(into, ignore_errors=True)
    return tally.row(f"{refused} refused, the others took the right bytes")


def _changed_in_place(place: Path, times: int) -> Row:
    """Whoever may write into the very file is the user whose code runs: counted, and no promise."""
    tally = Tally(fault="artifact overwritten in place by a process of the same user while loads go on")
    stored, changed = place / "stored", 0
    listed = json.loads((stored / MANIFEST).read_text())["files"]["packages/1.so"]["sha256"]
    with _racing(stored / "packages" / "1.so", _overwrite):
        for _ in range(times):
            into = place / "into"
            try:
                link_verified(stored, into)
                time.sleep(0.001)
                changed += hashlib.sha256((into / "packages" / "1.so").read_bytes()).hexdigest() != listed
                tally.add()
            except Damaged as error:
                tally.add("" if len(str(error).splitlines()) == 1 else f"more than a line: {error}")
            shutil.rmtree(into, ignore_errors=True)
    return tally.row(
        f"{changed} loads had bytes that changed after they were checked: the same user is trusted"
    )


# Real libraries, really loaded


def _real_loads(place: Path, times: int) -> Iterator[Row]:
    real = real_artifact()
    for what, damage in _DAMAGES:
        if not _possible(damage):
            continue
        tally = Tally(fault=f"real library or its list {what}, then loaded")
        chance = random.Random(what)
        for number in range(times):
            folder = place / "real"
            shutil.copytree(real.folder, folder)
            stored = next(path.parent for path in (folder / "cache").rglob(MANIFEST))
            victims = _files(stored)
            libraries = [path for path in victims if path.parent.name == "packages"]
            victim = libraries[0] if number % 3 == 0 else chance.choice(victims)
            damage(victim, chance)
            done = real.load(folder)
            silent = (
                done.code == 0
                and json.loads(done.out)["mode"] == "eager"
                and not json.loads(done.out)["warnings"]
            )
            tally.add(real.fault(done), "eager without a word" if silent else "", about=victim.name)
            shutil.rmtree(folder)
        yield tally.row()
