from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from autotuner.daemon import intake
from autotuner.daemon.intake import stored_notes, take_in
from autotuner.serving.spool import Labels, parse_note
from autotuner.serving.telemetry import Telemetry
from storage.database import open_database
from storage.records import TelemetryRecord
from storage.repository import Repository
from tests.support.clocks import at
from tests.support.notes import QUARANTINE, RECHECK, WINDOW, insert, unreadable
from toto_core.compile_report import CompileReport

LABELS = {"symbol": "AMD", "settings_key": "k", "environment_fingerprint": "f"}
SHAPE = (512, 8, 256)
NOW = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_said", set())  # a process says a thing once; a test must not keep another's


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Repository]:
    with open_database(str(tmp_path / "autotune.db")) as database:
        yield Repository(database)


def test_windows_of_real_counters_are_stored_and_removed(tmp_path: Path, records: Repository) -> None:
    spool = tmp_path / "spool"
    telemetry = Telemetry(Labels(**LABELS), spool, window_seconds=3600)
    for _ in range(3):
        telemetry.observe(1.5, SHAPE, CompileReport())
    telemetry.close()
    found = take_in(records, spool)

    assert (found.telemetry, found.quarantines, found.refused) == (1, 0, 0)
    assert list(spool.iterdir()) == []
    (stored,) = records.telemetry("AMD")
    assert json.loads(stored.payload_json)["calls"] == 3
    assert take_in(records, spool).telemetry == 0


def test_a_note_that_a_killed_intake_had_stored_but_not_removed_is_stored_once(
    tmp_path: Path, records: Repository
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    note = spool / "telemetry-1.json"
    note.write_text(WINDOW)
    assert take_in(records, spool, now=NOW).telemetry == 1
    note.write_text(WINDOW)

    take_in(records, spool, now=NOW)
    assert list(spool.iterdir()) == []
    assert len(records.telemetry()) == 1
    note.write_text(WINDOW.replace('"longest_ms":2.75', '"longest_ms":2.76'))
    assert take_in(records, spool, now=NOW).telemetry == 1


def test_two_notes_that_say_the_same_are_stored_once(tmp_path: Path, records: Repository) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    for name in "ab":
        (spool / f"telemetry-{name}.json").write_text(WINDOW)
    assert take_in(records, spool, now=NOW).telemetry == 1
    assert list(spool.iterdir()) == []


def test_a_note_that_took_the_place_of_one_that_was_read_is_left_for_the_next_intake(
    tmp_path: Path, records: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    note, later = spool / "telemetry-1.json", WINDOW.replace('"longest_ms":2.75', '"longest_ms":2.76')
    note.write_text(WINDOW)
    store = records.add_new_telemetry

    def replaced_meanwhile(several: Sequence[TelemetryRecord]) -> list[bool]:
        note.unlink()
        note.write_text(later)
        return store(several)

    monkeypatch.setattr(records, "add_new_telemetry", replaced_meanwhile)
    assert take_in(records, spool, now=NOW).telemetry == 1
    assert note.read_text() == later
    monkeypatch.setattr(records, "add_new_telemetry", store)
    assert take_in(records, spool, now=NOW).telemetry == 1
    assert not note.exists()


def test_a_quarantine_is_stored_at_its_time(tmp_path: Path, records: Repository) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    at = datetime(2026, 5, 4, 12, tzinfo=UTC)
    note = {**LABELS, "kind": "quarantine", "reason": "no g++", "failed_at": at.isoformat()}
    (spool / "quarantine-1.json").write_text(json.dumps(note))

    assert take_in(records, spool, now=NOW).quarantines == 1
    assert records.telemetry("AMD")[0].window_start == at


def test_what_is_no_note_is_set_aside_and_counted_and_spoils_nothing(
    tmp_path: Path, records: Repository
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    bad = [
        "",
        "{",
        "[]",
        '{"kind": "other"}',
        '{"kind": "telemetry"}',
        "\x00",
        '"telemetry"',
        "1" * (2 << 20),
    ]
    for number, text in enumerate(bad):
        (spool / f"a{number}.json").write_text(text)
    (spool / "link.json").symlink_to("/etc/passwd")
    (spool / "z.json").write_text(
        json.dumps({**LABELS, "kind": "quarantine", "reason": "x", "failed_at": "2026-05-04T00:00:00+00:00"})
    )
    (spool / "readme.txt").write_text("not ours")
    found = take_in(records, spool, now=NOW)

    assert (found.telemetry, found.quarantines, found.refused) == (0, 1, len(bad) + 1)
    assert {path.name for path in spool.iterdir()} == {"readme.txt", "refused"}
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize(("name", "text"), unreadable(LABELS | {"symbol": "AAPL"}).items())
def test_a_bad_note_is_refused_with_its_reason_and_its_neighbours_are_stored(
    tmp_path: Path, records: Repository, name: str, text: str
) -> None:
    for place, good in (("a", WINDOW), ("z", QUARANTINE)):
        (tmp_path / f"{place}.json").write_text(good)
    (tmp_path / "m.json").write_text(text)
    said: list[dict[str, str]] = []
    found = take_in(
        records, tmp_path, lambda event, **fields: said.append({"event": event, **fields}), now=NOW
    )

    assert (found.telemetry, found.quarantines, found.refused) == (1, 1, 1)
    (line,) = said
    assert (line["event"], line["file"]) == ("refused", "m.json")
    assert ": " in line["reason"]
    assert len(records.telemetry()) == 2
    assert not list(tmp_path.glob("*.json"))


def test_a_file_that_is_refused_again_is_counted_and_not_said_again(
    tmp_path: Path, records: Repository
) -> None:
    said: list[str] = []
    for _ in range(3):
        (tmp_path / "a.json").write_text("[]")
        assert take_in(records, tmp_path, lambda event, **fields: said.append(fields["file"])).refused == 1
    (tmp_path / "b.json").write_text("[]")
    take_in(records, tmp_path, lambda event, **fields: said.append(fields["file"]))

    assert said == ["a.json", "b.json"]


def test_a_recheck_in_the_spool_is_nobodys(tmp_path: Path, records: Repository) -> None:
    moment = "2026-05-04T12:00:00Z"
    times = {"window_start": moment, "window_end": moment}
    (tmp_path / "a.json").write_text(json.dumps(json.loads(RECHECK) | times))

    assert take_in(records, tmp_path, now=NOW).refused == 1


def test_rows_that_cannot_be_read_are_left_out_and_said_once(tmp_path: Path, records: Repository) -> None:
    bad = unreadable(LABELS)
    for number, payload in enumerate(bad.values()):
        insert(str(tmp_path / "autotune.db"), payload, symbol="AMD", settings_key="k", at=at(number))
    insert(str(tmp_path / "autotune.db"), WINDOW, symbol="AMD", settings_key="k", at=at(1000))
    said: list[str] = []
    for _ in range(2):
        notes = stored_notes(records.telemetry("AMD"), lambda event, **fields: said.append(event))
        assert notes == (parse_note(WINDOW),)

    assert said == ["skipped"] * len(bad)


def test_a_spool_that_is_not_there_is_empty(tmp_path: Path, records: Repository) -> None:
    assert take_in(records, tmp_path / "none").telemetry == 0


def test_a_note_that_cannot_be_removed_is_stored_once_and_said_once(
    tmp_path: Path, records: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    said: list[str] = []
    spool.mkdir()
    (spool / "1.json").write_text(WINDOW)

    def refuse(*_: object, **__: object) -> None:  # root may remove from any folder
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        for _ in range(3):
            take_in(records, spool, lambda event, **_: said.append(event), now=NOW)
    assert (len(records.telemetry("AMD")), said) == (1, ["kept"])
    (spool / "1.json").write_text(WINDOW.replace("2.75", "99.0"))
    assert take_in(records, spool, now=NOW).telemetry == 1
    assert list(spool.iterdir()) == []


def test_a_note_whose_taker_was_killed_before_it_was_removed_counts_once(
    tmp_path: Path, records: Repository
) -> None:
    (tmp_path / "1.json").write_text(WINDOW)
    take_in(records, tmp_path, now=NOW)
    (tmp_path / "1.json").write_text(WINDOW)
    (tmp_path / "2.json").write_text(WINDOW.replace("2.75", "99.0"))
    assert take_in(records, tmp_path, now=NOW).telemetry == 1
    assert len(records.telemetry("AMD")) == 2
    assert not list(tmp_path.glob("*.json"))


def test_many_notes_take_few_transactions(tmp_path: Path, records: Repository) -> None:
    for number in range(201):
        (tmp_path / f"{number}.json").write_text(WINDOW.replace("2.75", f"{number + 3}.0"))
    commits: list[object] = []
    heard = commits.append
    event.listen(Engine, "commit", heard)
    try:
        found = take_in(records, tmp_path, now=NOW)
    finally:
        event.remove(Engine, "commit", heard)
    assert (found.telemetry, len(commits)) == (201, 3)
    assert len(records.telemetry("AMD")) == found.telemetry
