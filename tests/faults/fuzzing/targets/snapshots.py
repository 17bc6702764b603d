"""Snapshots: any bytes, and a valid digest over any document; a lookup answers within its time and never raises."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from autotuner.paths import snapshot_path
from autotuner.serving.canary import Canary
from storage.errors import SnapshotError
from storage.snapshot import SNAPSHOT_SCHEMA, read_snapshot
from tests.faults.fuzzing import json_mutation, mutation, scratch, stores
from tests.faults.fuzzing.verdicts import refused_with
from tests.support.promoted_store import duel_figures
from tests.support.snapshots import BF16, COMPILED, entry, pin, published
from toto_core.settings import RuntimeSettings

SECONDS = 0.5
_MAGIC = b"SQLite format 3"


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """Documents, which are put under their digest, and whole files."""
    canary = replace(duel_figures(), canary=Canary(share=0.5, previous=RuntimeSettings())).to_json()
    store = str(scratch.folder("snapshots-seed") / "autotune.db")
    path = published(
        store,
        entry(promised_json=canary),
        entry(settings=COMPILED, profile="accuracy", number=2, newest=False),
        entry("MSFT", settings=BF16, number=3, promised_json=duel_figures().to_json()),
        pins=(pin("MSFT"),),
    )
    with closing(sqlite3.connect(path)) as connection:
        (document,) = connection.execute("SELECT document FROM snapshot").fetchone()
    # its page of 64 KiB is blank for the most part
    return (
        document,
        b'{"schema":1,"written_at":"2026-05-04T12:00:00+00:00","entries":[],"pins":[],"texts":[]}',
        path.read_bytes(),
    )


def mutated(data: bytes, chance: random.Random) -> bytes:
    return (
        mutation.any_bytes(data, chance) if data.startswith(_MAGIC) else json_mutation.document(data, chance)
    )


def one(data: bytes) -> None:
    put_in(data)


def put_in(data: bytes) -> float:
    """Put a snapshot of the bytes in place and look up; the longest that a lookup took."""
    store = scratch.folder("snapshots") / "autotune.db"
    path = snapshot_path(str(store))
    aside = path.with_suffix(".new")
    if data.startswith(_MAGIC):
        aside.write_bytes(data)
    else:
        write(aside, data)
    aside.replace(path)
    os.utime(path)  # a clock that is coarse must not make it the one before
    worst = stores.looked_up(store, "AMD", "MSFT", "TSLA")
    with refused_with(SnapshotError):
        read_snapshot(path)
    return worst


def write(path: Path, document: bytes) -> None:
    """A snapshot of the document under its own digest."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(f"PRAGMA user_version={SNAPSHOT_SCHEMA}")
        connection.execute("CREATE TABLE snapshot (sha256 TEXT NOT NULL, document BLOB NOT NULL)")
        connection.execute(
            "INSERT INTO snapshot VALUES (?, ?)", (hashlib.sha256(document).hexdigest(), document)
        )
