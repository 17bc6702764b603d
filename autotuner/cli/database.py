"""``autotune db``: bring the store up to date, copy it, look for damage."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autotuner.cli.options import ABOVE_ZERO, answer, json_option, note, refuse_own_files, store_options
from autotuner.errors import AutotuneError
from autotuner.paths import snapshot_path, store_location

if TYPE_CHECKING:
    from autotuner.store import Store


@click.group()
def db_command() -> None:
    """Look after the store.

    \b
    autotune db check
    autotune db backup autotune-backup.db
    autotune db copy autotune.db postgresql://tuner@db.example/autotune
    autotune db upgrade
    autotune db prune --dry-run
    """


@db_command.command()
@store_options
def upgrade(as_json: bool, db: str | None) -> None:
    """Make the store if there is none, update its tables, and publish the snapshot again.

    Tables of an older version are copied beside the store before they are changed.

    \b
    autotune db upgrade
    """
    from storage.database import open_database
    from storage.repository import Repository

    place = store_location(db)
    with open_database(place) as database:
        Repository(database).publish_snapshot(snapshot_path(place))
        label, revision = database.label, database.revision()
    document = {"store": label, "revision": revision, "snapshot": str(snapshot_path(place))}
    said = f"{label} is at schema revision {revision}; snapshot published at {snapshot_path(place)}"
    answer(document, said, as_json=as_json)


@db_command.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace PATH when it exists.")
@store_options
def backup(path: Path, force: bool, as_json: bool, db: str | None) -> None:
    """Copy the store to PATH, whole or not at all, while others go on using it.

    \b
    autotune db backup autotune-backup.db
    """
    from storage.backup import back_up
    from storage.database import open_database

    place = store_location(db)
    refuse_own_files(path, place)
    if path.exists() and not force:
        raise AutotuneError(f"{path} exists already: name another file, or replace it with --force")
    with open_database(place, create=False) as database:
        if force and database.path is not None:
            back_up(database.path, path, busy_timeout_s=database.busy_timeout_s, replace=True)
        else:
            database.backup(path)
        label = database.label
    document = {"store": label, "backup": str(path), "bytes": path.stat().st_size}
    said = f"{label} is copied to {path}; `autotune list --db {path}` reads the copy"
    answer(document, said, as_json=as_json)


@db_command.command()
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@json_option
def copy(source: str, target: str, as_json: bool) -> None:
    """Copy a whole store with its studies: a file to a server, a server to a file. Each is a path or a URL.

    TARGET must be empty or not exist. All of it is copied, or nothing: it is one transaction, and what was copied is
    read back before that ends. SOURCE stays as it is; what is written to it meanwhile is not copied, so end runs and
    the daemon first.

    \b
    autotune db copy autotune.db postgresql://tuner@db.example/autotune
    autotune db copy postgresql://tuner@db.example/autotune here.db
    """
    from autotuner.commands.copy_store import copy as copy_store

    place = store_location(target)
    origin, label, copied = copy_store(store_location(source), place, note)
    rows = sum(table.rows for table in copied)
    document = {
        "source": origin,
        "target": label,
        "snapshot": str(snapshot_path(place)),
        "rows": rows,
        "tables": {table.name: {"rows": table.rows, "digest": table.digest} for table in copied},
    }
    said = (
        f"{origin} is copied to {label}: {rows:,} rows of {len(copied)} tables, each the same when read back"
    )
    answer(document, said, f"snapshot published at {snapshot_path(place)}", as_json=as_json)


@db_command.command()
@click.option(
    "--days", type=ABOVE_ZERO, default=30.0, show_default=True, help="What was not used for so long goes."
)
@click.option(
    "--max-gb", type=ABOVE_ZERO, help="Then what runs compiled, longest unused first, until the rest fits."
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@store_options
def prune(days: float, max_gb: float | None, dry_run: bool, as_json: bool, db: str | None) -> None:
    """Remove compiled code from the cache that nobody has used for long.

    What a promotion or a pin starts from stays, and so does what was used within a day. The daemon does the same
    at every tick.

    \b
    autotune db prune --dry-run
    autotune db prune --days 7 --max-gb 5
    """
    from autotuner.commands.prune import prune as prune_cache
    from autotuner.store import Store

    place = store_location(db)
    most = None if max_gb is None else int(max_gb * 1e9)
    with Store(place, create=False) as store:
        done = prune_cache(store, now=datetime.now(UTC), days=days, most_bytes=most, dry_run=dry_run)
    removed, left = (sum(folder.bytes for folder in folders) for folders in (done.removed, done.left))
    document = {
        "removed": [
            {"path": str(folder.path), "kind": folder.kind, "bytes": folder.bytes} for folder in done.removed
        ],
        "removed_bytes": removed,
        "left_bytes": left,
        "failed": list(done.failed),
        "dry_run": dry_run,
    }
    verb = "would be removed" if dry_run else "removed"
    lines = [
        f"{verb}: {folder.path} ({folder.kind}, {folder.bytes / 1e6:,.0f} MB)" for folder in done.removed
    ]
    lines.append(f"{len(done.removed)} folders, {removed / 1e6:,.0f} MB {verb}; {left / 1e6:,.0f} MB stay")
    answer(document, *lines, as_json=as_json)
    if done.failed:
        raise AutotuneError(f"not removed: {'; '.join(done.failed)}")


@db_command.command()
@store_options
def check(as_json: bool, db: str | None) -> None:
    """Look for damage in the store, for settings nobody can read, and for a snapshot that is out of step.

    Exits with 1 when anything is found; each line says what fixes it.

    \b
    autotune db check
    """
    from autotuner.store import Store
    from storage.database import open_database

    place = store_location(db)
    with open_database(place, create=False) as database:
        label = database.label
        problems = [f"{problem}; restore a backup" for problem in database.check()]
    if not problems:
        with Store(place, create=False, publish=False) as store:
            problems = [*_unreadable(store), *_snapshot_problems(store, place)]
    lines = problems or [f"{label}: no problem found"]
    answer({"store": label, "problems": problems}, *lines, as_json=as_json)
    if problems:
        raise AutotuneError(f"{label}: {len(problems)} problem{'s' if problems[1:] else ''} found")


def _unreadable(store: Store) -> list[str]:
    """Active promotions and pins that this version cannot read."""
    from autotuner.record_mapping import read_settings
    from autotuner.report.documents import stored_document

    documents = (stored_document(store, record, None) for record in store.records.active_promotions())
    return [document["error"] for document in documents if "error" in document] + [
        f"the pin of {pin.symbol} cannot be read; `autotune unpin {pin.symbol}` lets go of it"
        for pin in store.records.pins()
        if read_settings(pin.settings_json) is None
    ]


def _snapshot_problems(store: Store, place: str) -> list[str]:
    """Whether production reads what the ledger says."""
    from storage.errors import SnapshotError
    from storage.snapshot import read_snapshot

    entries, pins = store.records.snapshot_contents()
    fix = "`autotune db upgrade` publishes it again"
    try:
        snapshot = read_snapshot(snapshot_path(place))
    except SnapshotError as error:
        if error.reason == "missing" and not entries and not pins:
            return []
        return [f"the snapshot {snapshot_path(place)} cannot be used ({error.reason}); {fix}"]
    if (snapshot.entries, snapshot.pins) != (entries, pins):
        return [f"the snapshot {snapshot_path(place)} says something else than the ledger; {fix}"]
    return []
