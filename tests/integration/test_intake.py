from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotuner.daemon.intake import take_in
from autotuner.serving.spool import Labels
from autotuner.serving.telemetry import Telemetry
from storage.database import open_database
from storage.repository import Repository
from toto_core.compile_report import CompileReport

LABELS = {"symbol": "AMD", "settings_key": "k", "environment_fingerprint": "f"}
SHAPE = (512, 8, 256)


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


def test_a_quarantine_is_stored_at_its_time(tmp_path: Path, records: Repository) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    at = datetime(2026, 5, 4, 12, tzinfo=UTC)
    note = {**LABELS, "kind": "quarantine", "reason": "no g++", "failed_at": at.isoformat()}
    (spool / "quarantine-1.json").write_text(json.dumps(note))

    assert take_in(records, spool).quarantines == 1
    assert records.telemetry("AMD")[0].window_start == at


def test_what_is_no_note_is_removed_and_counted_and_spoils_nothing(
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
    found = take_in(records, spool)

    assert (found.telemetry, found.quarantines, found.refused) == (0, 1, len(bad) + 1)
    assert [path.name for path in spool.iterdir()] == ["readme.txt"]
    assert Path("/etc/passwd").exists()


def test_a_spool_that_is_not_there_is_empty(tmp_path: Path, records: Repository) -> None:
    assert take_in(records, tmp_path / "none").telemetry == 0
