"""The drill of docs/how-to/moving.md: a backup, more work, a damaged store, and back to what the backup holds."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autotuner.paths import snapshot_path
from autotuner.serving.lookup import lookup
from autotuner.store import Store, Subject
from tests.support.command import Cli
from tests.support.outcomes import measured, timing
from tests.support.promoted_store import BF16, EAGER, FAST, STEADY, measure, outcomes, promotion, reference
from tests.support.storage_samples import ROOT

PAGE = ROOT / "docs" / "how-to" / "moving.md"
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda whole: whole[:5000],
    "overwritten": lambda whole: b"\0" * 4096 + whole[4096:],
    "scrambled": lambda whole: whole[:8192] + b"\xff" * (len(whole) - 8192),
    "empty": lambda _: b"",
}


def documented() -> str:
    """The commands that the page gives for restoring ``monday.db``."""
    section = PAGE.read_text().split("## Restore a backup")[1].split("\n## ")[0]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def restored(place: Cli) -> subprocess.CompletedProcess[str]:
    python, code = place.interpreter
    programs = place.folder / "bin"
    programs.mkdir()
    (programs / "autotune").write_text(f"#!/bin/sh\nexec {python} -c '{code}' \"$@\"\n")
    (programs / "autotune").chmod(0o700)
    variables = place.environment()
    return subprocess.run(
        ["sh", "-ec", documented()],
        cwd=place.folder,
        env=variables | {"PATH": f"{programs}:{variables['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def begun(place: Cli, subject: Subject) -> str:
    """A run that stops in the middle, with one trial of its own."""
    with Store(str(place.db)) as store:
        run_id, _ = store.begin_run(subject, profile="accuracy", seed=0, study="left", resume=False)
        store.record(subject, run_id, BF16, measured(timing(40.0, 1.0)), "search")
        store.records.finish_run(run_id, "interrupted", promotion().promoted_at)
    return run_id


@pytest.mark.parametrize(
    "damage",
    [
        "overwritten",
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in DAMAGE if name != "overwritten"),
    ],
)
def test_a_damaged_store_is_restored_from_a_backup_as_the_page_says(damage: str, tmp_path: Path) -> None:
    place = Cli(tmp_path)
    subject = measure(place.db, outcomes())
    with Store(str(place.db)) as store:
        store.promote(promotion())
        store.pin("TSLA", EAGER, "calm")
    run_id = begun(place, subject)
    with Store(str(place.db)) as store:
        store._database.backup(tmp_path / "monday.db")
        store.promote(promotion(chosen=STEADY, minutes=1))
        store.pin("TSLA", BF16, "storm")
        store.end_run(
            store.begin_run(subject, profile="accuracy", seed=0, study="left", resume=True)[0], "finished"
        )
    place.db.write_bytes(DAMAGE[damage](place.db.read_bytes()))
    place.db.with_name(f"{place.db.name}-journal").write_bytes(
        b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\0" * 504
    )
    assert lookup("AMD", db=str(place.db)).settings == STEADY  # production goes on meanwhile

    done = restored(place)
    assert done.returncode == 0, done.stderr
    assert "no problem found" in done.stdout
    assert place.db.stat().st_mode & 0o777 == 0o600
    assert (lookup("AMD", db=str(place.db)).settings, lookup("TSLA", db=str(place.db)).settings) == (
        FAST,
        EAGER,
    )
    assert {entry.name for entry in (tmp_path / "damaged").iterdir()} >= {
        "autotune.db",
        "autotune.db-journal",
    }
    with Store(str(place.db)) as store:
        assert not store.published_again
        assert store.begin_run(subject, profile="accuracy", seed=0, study="left", resume=True) == (
            run_id,
            True,
        )
        assert set(store.known(subject, run_id=run_id)) == {reference(), FAST, STEADY, BF16}
        store.pin("TSLA", FAST, "afterwards")
    assert lookup("TSLA", db=str(place.db)).settings == FAST


def test_a_restored_store_is_published_by_the_next_command_also_when_a_step_is_forgotten(
    tmp_path: Path,
) -> None:
    db = tmp_path / "autotune.db"
    with Store(str(db)) as store:
        store.pin("AMD", EAGER, "calm")
        store._database.backup(tmp_path / "monday.db")
        store.pin("AMD", BF16, "storm")
    db.write_bytes((tmp_path / "monday.db").read_bytes())
    assert lookup("AMD", db=str(db)).settings == BF16
    with Store(str(db), create=False) as store:
        assert store.published_again
    assert lookup("AMD", db=str(db)).settings == EAGER
    assert snapshot_path(str(db)).exists()
