"""Every command that writes something, with the folder it starts from and what is to hold of it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gzip
import json
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from autotuner.paths import snapshot_path
from autotuner.serving.spool import Quarantine, Window, write_note
from autotuner.store import Store
from tests.support import seen_store
from tests.support.forked_commands import Done
from tests.support.promoted_store import BF16, EAGER, FAST, NOW, promotion
from tests.support.storage_samples import ROOT

TABLE = ROOT / "tests" / "data" / "seed" / "results.csv"
EARLIER = ROOT / "tests" / "data" / "store-0.1.0"
NOTES = 5
READING = (
    ("list",),
    ("show", "AMD"),
    ("history",),
    ("explain", "AMD"),
    ("export",),
    ("db", "check"),
    ("report",),
    ("top", "--once"),
)
_CRONTAB = """#!/bin/sh
table='{table}'
case "$1" in
    -l) [ -e "$table" ] || {{ echo "no crontab for $(id -un)" >&2; exit 1; }}; cat "$table" ;;
    -) cat > "$table.new" && mv "$table.new" "$table" || {{ rm -f "$table.new"; exit 1; }} ;;
esac
"""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A command. ``once``: a failure must change nothing. ``repeats``: to give it again does it again.

    ``said``: what a second one is refused with, unless it is given ``later`` as well.
    """

    name: str
    arguments: tuple[str, ...]
    once: bool = True
    repeats: bool = False
    said: str = ""
    later: tuple[str, ...] = ()
    empty: bool = False
    old_store: bool = False
    slow: bool = False

    def variables(self, folder: Path) -> dict[str, str]:
        """What it sees besides the places of the folder."""
        path = f"{folder / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(folder), "TMPDIR": str(folder)}

    def is_done(self, again: Done) -> bool:
        """Whether a second one was refused because the first had done it."""
        return bool(self.said) and again.code == 1 and self.said in again.err


WRITING = (
    Writing(name="pin", arguments=("pin", "AMD", "--mode", "eager", "--reason", "week"), repeats=True),
    Writing(name="unpin", arguments=("unpin", "BTCUSD"), said="is not pinned"),
    Writing(name="rollback", arguments=("rollback", "AMD"), said="nothing to roll back"),
    Writing(name="select", arguments=("select", "AMD", "--profile", "accuracy")),
    Writing(name="import", arguments=("import", "other.json")),
    Writing(name="import into nothing", arguments=("import", "other.json"), empty=True),
    Writing(name="export", arguments=("export", "--output", "settings.json")),
    Writing(name="report", arguments=("report", "--html", "report.html")),
    Writing(
        name="db backup", arguments=("db", "backup", "copy.db"), said="exists already", later=("--force",)
    ),
    Writing(name="db backup --force", arguments=("db", "backup", "old.db", "--force"), repeats=True),
    Writing(name="db upgrade", arguments=("db", "upgrade"), repeats=True),
    Writing(name="db upgrade of nothing", arguments=("db", "upgrade"), empty=True, repeats=True),
    Writing(name="db upgrade of 0.1.0", arguments=("db", "upgrade"), old_store=True),
    Writing(name="db prune", arguments=("db", "prune")),
    Writing(name="daemon --once", arguments=("daemon", "--once", "--config", "quiet.toml"), once=False),
    Writing(
        name="run --replay",
        arguments=("run", "--symbol", "ETHUSD", "--replay", str(TABLE), "--db", "autotune.db"),
        once=False,
        repeats=True,
        slow=True,
    ),
    Writing(name="cron install", arguments=("cron", "install"), repeats=True),
)


def prepare(command: Writing, folder: Path) -> None:
    """Fill ``folder`` with what ``command`` starts from."""
    (folder / "bin").mkdir()
    crontab = folder / "bin" / "crontab"
    crontab.write_text(_CRONTAB.format(table="crontab"))
    crontab.chmod(0o700)
    autotune = folder / "bin" / "autotune"
    autotune.write_text("#!/bin/sh\n")
    autotune.chmod(0o700)
    (folder / "data" / "autotune").mkdir(parents=True, mode=0o700)
    (folder / "quiet.toml").write_text('[daemon]\nquiet = ["00:00-23:59 mon-sun"]\nload_ceiling = 64.0\n')
    if command.old_store:
        earlier_store(folder)
    elif command.empty:
        shutil.copy(_template() / "other.json", folder)
    else:
        _tuned(folder)
    _old_cache(folder)


def lost_notes(folder: Path) -> str:
    """Which of the notes are neither in the store nor in the spool any more, empty when none is."""
    if not (folder / "notes").exists():
        return ""
    waiting = {note["profile"] for note in waiting_notes(folder, "telemetry-1-a-*.json")}
    with closing(sqlite3.connect(folder / "autotune.db", timeout=10)) as connection:
        payloads = connection.execute("SELECT payload_json FROM telemetry").fetchall()
    stored = {json.loads(payload).get("profile") for (payload,) in payloads}
    lost = {f"note-{number}" for number in range(NOTES)} - waiting - stored
    return f"notes are lost: {', '.join(sorted(lost))}" if lost else ""


def waiting_notes(folder: Path, names: str) -> Iterator[dict[str, Any]]:
    """The notes called ``names`` in the spool, and those that were refused and lie aside."""
    spool = folder / "autotune-spool"
    for path in (*spool.glob(names), *spool.glob("refused/*")):
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_text()) if path.is_file() else None
            if isinstance(found, dict) and "profile" in found:
                yield found


def _tuned(folder: Path) -> None:
    shutil.copytree(_template(), folder, dirs_exist_ok=True)


@functools.cache
def _template() -> Path:
    """A folder with a store, its snapshot and its spool, made once in this process."""
    folder = Path(tempfile.mkdtemp(prefix="autotune-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store = folder / "autotune.db"
    seen_store.tuned(store, "AMD")
    with Store(str(store)) as opened:
        opened.promote(promotion("BTCUSD", BF16))
        opened.pin("BTCUSD", EAGER, "a week")
    (folder / "notes").touch()
    for number in range(NOTES):
        at = NOW + timedelta(hours=1, minutes=number)
        note: Window | Quarantine = seen_store.window("AMD", FAST, at)
        if number == 0:
            note = seen_store.quarantine("AMD", FAST, at, "no g++")
        write_note(
            folder / "autotune-spool", f"telemetry-1-a-{number}.json", replace(note, profile=f"note-{number}")
        )
    shutil.copy(store, folder / "old.db")
    _other_settings(folder)
    return folder


def _other_settings(folder: Path) -> None:
    other = folder / "other.db"
    with Store(str(other)) as store:
        store.promote(promotion("ETHUSD", FAST))
        store.promote(promotion("MSFT", BF16))
        store.pin("MSFT", EAGER, "why")
        document = store.records.export_document()
    (folder / "other.json").write_text(json.dumps(document))
    other.unlink()
    snapshot_path(str(other)).unlink()


def earlier_store(folder: Path) -> None:
    """Put the store that version 0.1.0 wrote into ``folder``."""
    for kept, name in (
        ("autotune.db.gz", "autotune.db"),
        ("autotune.snapshot.db.gz", "autotune.snapshot.db"),
    ):
        with gzip.open(EARLIER / kept) as packed, (folder / name).open("wb") as file:
            shutil.copyfileobj(packed, file)


def _old_cache(folder: Path) -> None:
    """Compiled code that nobody used for two months."""
    for number in range(3):
        old = folder / "cache" / ("ab" * 8) / f"{number:016x}"
        old.mkdir(parents=True, mode=0o700)
        for file in ("manifest.json", "kernel.so"):
            (old / file).write_bytes(b"x" * 5000)
            os.utime(old / file, (NOW.timestamp() - 6e6,) * 2)
        os.utime(old, (NOW.timestamp() - 6e6,) * 2)
    for level in (folder / "cache", folder / "cache" / ("ab" * 8)):
        level.chmod(0o700)
