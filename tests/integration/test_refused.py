"""What lies in the spool and is no note is set aside, whatever kind of thing it is, and holds up nothing."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autotuner.daemon import intake
from autotuner.daemon.intake import FUTURE, PAST, Intake, take_in, waiting_notes
from autotuner.serving import refused as refused_notes
from autotuner.serving.refused import MOST, refused, set_aside
from storage.database import open_database
from storage.repository import Repository
from tests.support.notes import WINDOW

pytestmark = pytest.mark.timeout(20)
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
Said = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_said", set())


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Repository]:
    with open_database(str(tmp_path / "autotune.db")) as database:
        yield Repository(database)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    return folder


def taken(records: Repository, spool: Path, said: Said | None = None, **options: Any) -> Intake:
    heard: Said = [] if said is None else said
    return take_in(
        records, spool, lambda event, **fields: heard.append({"event": event, **fields}), now=NOW, **options
    )


def window(**changes: Any) -> str:
    return json.dumps(json.loads(WINDOW) | changes)


def a_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_link_in_a_circle(path: Path) -> None:
    path.symlink_to(path.name)


def a_link_to_a_note(path: Path) -> None:
    beside = path.parent.parent / "note-elsewhere"
    beside.write_text(WINDOW)
    path.symlink_to(beside)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's address is short
        listening.bind(path.name)
        os.chdir(here)


def a_sparse_gigabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def a_full_folder(path: Path) -> None:
    (path / "deeper").mkdir(parents=True)
    (path / "deeper" / "a.json").write_text(WINDOW)


def unreadable(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{}")
    path.chmod(0)


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "a link": (a_link, "is a link, not a plain file"),
    "a link in a circle": (a_link_in_a_circle, "is a link"),
    "a link to a note": (a_link_to_a_note, "is a link"),
    "a pipe": (os.mkfifo, "is a pipe"),
    "a socket": (a_socket, "is a socket"),
    "a folder": (a_full_folder, "is a folder"),
    "a sparse gigabyte": (a_sparse_gigabyte, "is larger than"),
    "unreadable": (unreadable, "cannot be read"),
}


@pytest.mark.parametrize("kind", ODD)
def test_whatever_lies_there_is_set_aside_with_its_reason_and_its_neighbours_are_stored(
    kind: str, records: Repository, spool: Path
) -> None:
    make, reason = ODD[kind]
    make(spool / "m.json")
    for place, longest in (("a", 2.5), ("z", 2.6)):
        (spool / f"{place}.json").write_text(window(longest_ms=longest))
    said: Said = []
    began = time.perf_counter()
    found = taken(records, spool, said)

    assert time.perf_counter() - began < 2.0
    assert (found.telemetry, found.refused) == (2, 1)
    (line,) = said
    assert (line["event"], line["file"]) == ("refused", "m.json")
    assert reason in line["reason"]
    assert [path.name for path in spool.iterdir()] == ["refused"]
    kept = refused(spool)
    assert (kept.count, kept.newest.partition(": ")[0]) == (1, "m.json")
    assert reason in kept.newest
    assert stat.S_IMODE((spool / "refused").stat().st_mode) == 0o700
    assert sum(path.lstat().st_size for path in (spool / "refused").rglob("*")) < 1 << 17
    assert Path("/etc/passwd").exists()
    assert taken(records, spool, said).refused == 0
    assert len(said) == 1


def test_a_link_is_kept_as_the_link_it_is(spool: Path) -> None:
    (spool / "a.json").symlink_to("/etc/passwd")
    set_aside(spool / "a.json", "is a link")

    (kept,) = (path for path in (spool / "refused").iterdir() if path.is_symlink())
    assert str(kept.readlink()) == "/etc/passwd"


def test_a_link_in_the_place_of_the_folder_leads_nowhere(records: Repository, spool: Path) -> None:
    elsewhere = spool.parent / "elsewhere"
    elsewhere.mkdir()
    (spool / "refused").symlink_to(elsewhere)
    (spool / "a.json").write_text("[]")

    assert taken(records, spool).refused == 1
    assert list(elsewhere.iterdir()) == []
    assert refused(spool).count == 1


def test_refused_notes_are_bounded_and_the_oldest_go(records: Repository, spool: Path) -> None:
    for number in range(MOST + 50):
        (spool / f"{number:04}.json").write_text(f"no note {number}")
    said: Said = []

    assert taken(records, spool, said).refused == MOST + 50
    assert len(said) == 21
    assert said[-1]["file"] == f"{MOST + 30} more"
    assert refused(spool).count == MOST
    texts = {path.read_text() for path in (spool / "refused").iterdir() if path.suffix != ".reason"}
    assert texts == {f"no note {number}" for number in range(50, MOST + 50)}
    assert len(list((spool / "refused").iterdir())) == 2 * MOST


def test_refused_notes_are_bounded_in_bytes_too(
    records: Repository, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_notes, "MOST_BYTES", 10_000)
    for number in range(10):
        (spool / f"{number}.json").write_text(str(number) * 3_000)
    a_full_folder(spool / "z.json")
    taken(records, spool)

    assert 0 < refused(spool).count <= 4
    assert "z.json" in refused(spool).newest


def test_a_link_weighs_what_a_link_does_whatever_it_leads_to(
    records: Repository, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_notes, "MOST_BYTES", 10_000)
    elsewhere = spool.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "large").write_text("x" * 11_000)
    (spool / "a.json").symlink_to(elsewhere)
    (spool / "b.json").write_text("no note")
    taken(records, spool)

    assert refused(spool).count == 2


def test_a_name_that_is_refused_again_overwrites_nothing(records: Repository, spool: Path) -> None:
    for number in range(3):
        (spool / "a.json").write_text(f"{number}")
        taken(records, spool)

    texts = {path.read_text() for path in (spool / "refused").iterdir() if path.suffix != ".reason"}
    assert texts == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"window_end": "9999-12-31T23:59:59Z"}, "window_end: must be a time from 2000 to 2200"),
        ({"window_start": "0001-01-01T00:00:00Z"}, "window_start: must be a time from"),
        (
            {"window_end": (NOW + FUTURE * 1.1).isoformat()},
            "window_end: 2026-12-01 13:06 UTC lies in the future",
        ),
        (
            {"window_start": (NOW - PAST * 1.1).isoformat()},
            "window_start: 2025-10-24 lies more than 366 days",
        ),
        ({"symbol": "A\u202e"}, "symbol: "),
    ],
)
def test_times_that_are_nobodys_are_refused(
    records: Repository, spool: Path, changes: dict[str, str], reason: str
) -> None:
    (spool / "a.json").write_text(window(**changes))
    said: Said = []

    assert taken(records, spool, said).refused == 1
    assert said[0]["reason"].startswith(reason)
    assert records.telemetry() == ()


@pytest.mark.parametrize("off", [-PAST * 0.99, timedelta(minutes=59)])
def test_a_clock_that_is_a_little_off_costs_no_note(records: Repository, spool: Path, off: timedelta) -> None:
    ended = NOW + off
    (spool / "a.json").write_text(
        window(window_start=(ended - timedelta(minutes=1)).isoformat(), window_end=ended.isoformat())
    )

    assert taken(records, spool).telemetry == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_note_of_another_user_is_refused_unless_the_store_is_theirs(
    records: Repository, spool: Path
) -> None:
    (spool / "a.json").write_text(WINDOW)
    os.chown(spool / "a.json", 4321, -1)
    said: Said = []

    assert taken(records, spool, said).refused == 1
    assert said[0]["reason"] == "file: belongs to user 4321"
    (spool / "b.json").write_text(WINDOW)
    os.chown(spool / "b.json", 4321, -1)
    assert taken(records, spool, owners={0, 4321}).telemetry == 1


def test_a_spool_that_others_could_write_to_is_made_private(records: Repository, spool: Path) -> None:
    spool.chmod(0o777)
    (spool / "a.json").write_text(WINDOW)

    assert taken(records, spool).telemetry == 1
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700


def test_from_a_spool_that_is_a_link_nothing_is_taken_and_it_is_said_once(
    records: Repository, spool: Path
) -> None:
    (spool / "a.json").write_text(WINDOW)
    link = spool.with_name("link")
    link.symlink_to(spool)
    said: Said = []
    for _ in range(2):
        assert taken(records, link, said) == Intake()

    assert [line["reason"] for line in said] == ["is a link, not a folder: no note is taken in"]
    assert (spool / "a.json").exists()


def test_what_waits_is_looked_at_with_the_same_care(spool: Path) -> None:
    os.mkfifo(spool / "a.json")
    (spool / "b.json").symlink_to("/etc/passwd")
    a_sparse_gigabyte(spool / "c.json")
    now = datetime.now(UTC)
    (spool / "d.json").write_text(window(window_start=now.isoformat(), window_end=now.isoformat()))

    waiting = list(waiting_notes(spool, since=now - timedelta(hours=1)))
    assert [note.symbol for note in waiting] == ["AMD"]
