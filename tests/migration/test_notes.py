"""Notes as the version before typed ones wrote them still read, and what is written now reads there."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autotuner.daemon.intake import stored_notes, take_in
from autotuner.record_mapping import telemetry_record
from autotuner.serving.spool import Quarantine, Recheck, Window, note_fields, parse_note
from autotuner.workload import Workload
from storage.database import open_database
from storage.repository import Repository
from tests.support.notes import KEY, QUARANTINE, RECHECK, WINDOW, insert
from toto_core.settings import RuntimeSettings

AT = datetime(2026, 11, 25, 18, 48, 19, 260355, tzinfo=UTC)
SETTINGS = RuntimeSettings(compile_mode="default", num_threads=1)


def quiet(event: str, **fields: object) -> None:
    raise AssertionError((event, fields))


def test_a_spool_of_the_version_before_is_taken_in_whole(tmp_path: Path) -> None:
    (tmp_path / "telemetry-10135-0a1b2c3d-0.json").write_text(WINDOW)
    (tmp_path / "quarantine-99cde33d5e4858bb.json").write_text(QUARANTINE)
    with open_database(str(tmp_path / "a.db")) as database:
        records = Repository(database)
        found = take_in(records, tmp_path, quiet, now=AT)
        window, quarantine = stored_notes(records.telemetry("AMD"), quiet)

    assert (found.telemetry, found.quarantines, found.refused) == (1, 1, 0)
    assert isinstance(quarantine, Quarantine)
    assert isinstance(window, Window)
    assert (quarantine.settings, quarantine.workload) == (SETTINGS, Workload())
    assert quarantine.settings_key == window.settings_key == KEY == SETTINGS.key
    assert quarantine.file_name == "quarantine-99cde33d5e4858bb.json"
    assert (window.calls, window.shapes, window.recompiles) == (3, {(512, 8, 256): 3}, 1)
    assert round(window.quantile_ms(0.5), 3) == 1.522


def test_rows_of_the_version_before_read_with_the_times_of_their_columns(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    with open_database(path) as database:
        for payload in (WINDOW, QUARANTINE, RECHECK):
            insert(path, payload, symbol="AMD", settings_key=KEY, at=AT)
        window, quarantine, recheck = stored_notes(Repository(database).telemetry("AMD"), quiet)

    assert isinstance(window, Window)
    assert window.window_end - window.window_start == timedelta(seconds=60, microseconds=310)
    assert isinstance(quarantine, Quarantine)
    assert quarantine.failed_at == AT.replace(microsecond=263561)
    assert isinstance(recheck, Recheck)
    assert (recheck.window_start, recheck.broken, recheck.failed) == (AT, ("drift 2% above 1%",), None)


def test_what_is_written_now_has_every_field_that_the_version_before_read() -> None:
    for text in (WINDOW, QUARANTINE):
        written = json.loads(json.dumps(note_fields(parse_note(text))))
        assert json.loads(text).items() <= written.items()
    times = {"window_start": AT.isoformat(), "window_end": AT.isoformat()}
    recheck = parse_note(json.loads(RECHECK) | times)
    stored = json.loads(telemetry_record(recheck).payload_json)
    assert json.loads(RECHECK).items() <= stored.items()
