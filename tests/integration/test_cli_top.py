"""``autotune top``: what running processes report, waiting in the spool or stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autotuner.daemon.intake import take_in
from autotuner.paths import spool_folder
from autotuner.report.live_calls import live_calls
from autotuner.serving.spool import Window, write_note
from autotuner.store import Store
from tests.support.command import Cli
from tests.support.invoking import document, run
from tests.support.promoted_store import FAST
from tests.support.seen_store import window

pytestmark = pytest.mark.usefixtures("no_variables")


def minute_ago(minutes: float = 1.0) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)


def leave(place: Path, note: Window, name: str = "telemetry-1-a-0.json") -> None:
    write_note(spool_folder(str(place)), name, note)


def test_what_waits_and_what_is_stored_is_counted_once(place: Path) -> None:
    note = replace(window("AMD", FAST, minute_ago(2)), buckets={40: 120})
    leave(place, note)
    leave(place, replace(note, buckets={40: 60}, longest_ms=9.0), "telemetry-2-b-0.json")

    waiting = document(place, "top")["symbols"]
    with Store(str(place)) as store:
        take_in(store.records, spool_folder(str(place)))
    stored = document(place, "top", "AMD")["symbols"]

    assert waiting == stored
    (row,) = stored
    assert (row["symbol"], row["settings"], row["calls"]) == ("AMD", FAST.label, 180)
    assert row["calls_per_second"] == pytest.approx(3.0)
    assert row["p50_ms"] == pytest.approx(note.quantile_ms(0.5))
    assert row["longest_ms"] == 9.0


def test_trouble_is_said_in_words_beside_what_was_promised(place: Path) -> None:
    slow = replace(window("AMD", FAST, minute_ago(), place=100), recompiles=2, eager_calls=3, out_of_memory=1)
    leave(place, slow)

    (row,) = document(place, "top")["symbols"]
    assert row["promised_p50_ms"] is not None
    assert row["trouble"][0].startswith("p50 ")
    assert row["trouble"][-3:] == ["2 recompiled", "3 eager", "1 short of memory"]
    shown = run(place, "top").stdout
    assert "2 recompiled; 3 eager; 1 short of memory" in " ".join(shown.split())


def test_other_symbols_old_windows_and_what_is_no_note_are_left_out(place: Path) -> None:
    leave(place, window("ETHUSD", FAST, minute_ago()), "telemetry-1-a-0.json")
    leave(place, window("AMD", FAST, minute_ago(30)), "telemetry-1-a-1.json")
    (spool_folder(str(place)) / "telemetry-1-a-2.json").write_text("{")

    assert document(place, "top", "AMD")["symbols"] == []
    assert [row["symbol"] for row in document(place, "top")["symbols"]] == ["ETHUSD"]
    assert len(document(place, "top", "--minutes", "60")["symbols"]) == 2
    assert "each reports once a minute" in run(place, "top", "AMD").stdout


def test_settings_that_the_store_does_not_know_are_named_by_their_key() -> None:
    note = window("AMD", FAST, minute_ago())
    (row,) = live_calls([note], [], since=minute_ago(5))
    assert row.settings == f"key {FAST.key[:12]}"
    assert row.promised_p50_ms is None
    assert row.trouble == ()


def test_on_a_terminal_it_goes_on_until_ctrl_c_and_ends_well(tmp_path: Path) -> None:
    autotune = Cli(tmp_path)
    with Store(str(autotune.db)):
        pass

    code, drawn = autotune.on_a_terminal("top", "--interval", "0.2", until="Ctrl-C ends")

    assert code == 0, drawn
    assert "Traceback" not in drawn
