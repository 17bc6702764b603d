"""Examines the store, its snapshot, the compile cache and the model for the doctor, and changes none of them."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections import Counter
from pathlib import Path

from autotuner.commands.clear_up import left_behind
from autotuner.doctor.checks import Check, warning
from autotuner.engines.registry import claiming
from autotuner.files import mounted_noexec, unsafe
from autotuner.paths import is_file, snapshot_path, store_path
from autotuner.serving.cache_folders import cache_folders
from autotuner.serving.snapshot_age import origin_text
from storage.database import Database
from storage.errors import SnapshotError, StorageError, StoreCorrupt, StoreUnavailable
from storage.masking import masked_address
from storage.migrations import HEAD_REVISION, known_revisions
from storage.origin import Origin
from storage.patience import at_once
from storage.read_only import read_only
from storage.repository import Repository
from storage.snapshot import Snapshot, SnapshotEntry, SnapshotPin, read_snapshot, state_of_parts
from toto_core import model_files
from toto_core.model_files import CONFIG_FILE, EMBEDDED, WEIGHTS_FILE, CheckpointError

_READ_WHOLE_BYTES = 512 * 2**20  # SQLite checks some hundred MB a second
_LOW_SPACE_BYTES = 2**30  # the artifacts of one large compiled model take about a tenth of it
_ELSEWHERE = "set {} to a place of your own"
_PUBLISH = "autotune db upgrade (it publishes the snapshot again)"
_PARTS = "parts of it are damaged; look-ups of their symbols read all of it"


def store_checks(store: str, cache: Path, model: str) -> tuple[Check, ...]:
    """All checks of this module, in a fixed order."""
    from autotuner.doctor.server_checks import server_checks

    with at_once():
        return (
            check_database(store),
            *server_checks(store),
            check_snapshot(store),
            check_cache(cache),
            check_left_behind(store),
            check_model(model),
        )


def check_password(given: str | None) -> tuple[Check, ...]:
    """A warning when ``--db`` holds a password; ``given`` is what it says."""
    if given is None or masked_address(given) == given:
        return ()
    found = f"{masked_address(given)}: every user of this machine reads the password of --db in ps"
    return (
        warning(
            "password", found, "give the address in AUTOTUNE_DB, or the password in ~/.pgpass (chmod 600)"
        ),
    )


def check_database(store: str) -> Check:
    """Whether the store can be read, is whole, and is of this version; nothing is created or upgraded."""
    name = "database"
    try:
        path = store_path(store) if is_file(store) else None
    except StorageError as error:
        return _broken(name, error)
    if path is not None and not _holds_something(path):
        return _not_yet(name, path, "the first `autotune run` makes the store")
    try:
        with read_only(store) as database:
            return _judged(database)
    except StorageError as error:
        if path is not None and path.with_name(f"{path.name}-journal").exists():
            found = f"{path} was left in mid-write; the next opening restores it"
            return warning(name, found, "autotune db check")
        return _broken(name, error)


def check_snapshot(store: str) -> Check:
    """Whether the snapshot that production reads is whole and says what the store says."""
    name = "snapshot"
    try:
        path, contents = snapshot_path(store), _contents(store)
        snapshot = read_snapshot(path)
    except StoreUnavailable:
        return Check(name=name, found="none: the store has no place")
    except SnapshotError as error:
        if error.reason == "missing" and not any(contents or ()):
            return Check(name=name, found="none yet: nothing is promoted or pinned")
        return warning(name, f"{path}: {error.reason}; production runs eager fp32", _PUBLISH)
    if snapshot.origin is not None:
        return _fetched(path, snapshot, snapshot.origin)
    differs = contents is not None and contents != (snapshot.entries, snapshot.pins)
    if differs or state_of_parts(path) == "damaged":
        fault = "says something else than the store" if differs else _PARTS
        return warning(name, f"{path}: {fault}", _PUBLISH)
    found = f"{path}: {_symbols(snapshot)} symbols, written {snapshot.written_at:%Y-%m-%d %H:%M} UTC"
    return Check(name=name, found=found)


def _fetched(path: Path, snapshot: Snapshot, origin: Origin) -> Check:
    """A snapshot that ``autotune sync`` fetched says what another store says, and may be too old."""
    now = time.time()
    found = f"{path}: {_symbols(snapshot)} symbols, {origin_text(origin, now)}"
    if state_of_parts(path) == "damaged":
        return warning("snapshot", f"{path}: {_PARTS}", "autotune sync --from URL")
    if origin.is_old(now):
        return warning("snapshot", found, "autotune sync --from URL, then see why nobody called it")
    return Check(name="snapshot", found=found)


def _symbols(snapshot: Snapshot) -> int:
    return len({entry.symbol for entry in snapshot.entries} | {pin.symbol for pin in snapshot.pins})


def check_cache(folder: Path) -> Check:
    """Whether compile artifacts can be kept in ``folder``: caches are code, so it must be private."""
    name = "compile cache"
    try:
        state = folder.lstat()
    except FileNotFoundError:
        return _not_yet(name, folder, "made when it is needed")
    except OSError as error:
        return Check(name=name, found=f"{folder}: {error.strerror}", fix=_ELSEWHERE.format("AUTOTUNE_CACHE"))
    fault, fix = _fault(folder, state)
    if fault:
        return Check(name=name, found=f"{folder} {fault}", fix=fix)
    return _with_space(name, folder, f"{folder}, private, {_sizes(folder)}")


def check_left_behind(store: str) -> Check:
    """Whether killed processes left temporary folders or half-written files behind."""
    name = "left behind"
    try:
        found = left_behind(store)
    except StorageError:
        return Check(name=name, found="unknown: the store has no place")
    if not found:
        return Check(name=name, found="nothing")
    return warning(
        name,
        f"{len(found)} of killed processes, such as {found[0]}",
        "autotune db prune (every run does, too)",
    )


def _sizes(folder: Path) -> str:
    """How much lies in the cache, by kind."""
    total: Counter[str] = Counter()
    for each in cache_folders(folder):
        total[each.kind] += each.bytes
    parts = [f"{kind} {size / 2**20:,.0f} MB" for kind, size in total.most_common()]
    return f"{', '.join(parts)} (autotune db prune removes what nobody uses)" if parts else "empty"


def check_model(model: str) -> Check:
    """Whether the model's files are on this machine and fit each other; nothing is downloaded."""
    name = "model"
    try:
        folder = _on_this_machine(model)
        engine = claiming(folder)
        identity = engine.identity(str(folder))
    except CheckpointError as error:
        fix = "give a folder with both files, or use toto-mini"
        if model == EMBEDDED:
            fix = "pip install --force-reinstall toto-autotune"
        elif "hub cache" in str(error):
            fix = f"hf download {model} {CONFIG_FILE} {WEIGHTS_FILE}"
        return Check(name=name, found=str(error), fix=fix)
    size = f"{identity.weights_bytes / 2**20:.0f} MB"
    parts = (identity.about, size, f"digest {identity.digest[:12]}", f"engine {engine.name}")
    return Check(name=name, found=f"{model}: {', '.join(part for part in parts if part)}")


def _judged(database: Database) -> Check:
    name, label, revision = "database", database.label, database.revision()
    found = f"{label}: schema revision {revision}"
    if revision is None:
        return _without_tables(database)
    if revision not in known_revisions():
        found += f", this version knows {HEAD_REVISION} at most"
        return Check(name=name, found=found, fix="pip install --upgrade toto-autotune")
    if revision != HEAD_REVISION:
        return warning(name, f"{found}, this version's is {HEAD_REVISION}", "autotune db upgrade")
    size = 0 if database.path is None else database.path.stat().st_size
    problems = database.check() if size <= _READ_WHOLE_BYTES else []
    if problems:
        more = f" and {len(problems) - 1} more" if problems[1:] else ""
        return Check(name=name, found=f"{label}: {problems[0]}{more}", fix="restore a backup")
    extent = "whole" if size <= _READ_WHOLE_BYTES else "too large to be read to the end here"
    return Check(name=name, found=f"{found}, {size / 2**20:.1f} MB, {extent}")


def _without_tables(database: Database) -> Check:
    if database.path is None:
        found = f"{database.label}: no store yet; the first `autotune run` makes it"
        return Check(name="database", found=found)
    fix = "name another file with --db or AUTOTUNE_DB"
    return Check(name="database", found=f"{database.path} is no store of autotune", fix=fix)


def _contents(store: str) -> tuple[tuple[SnapshotEntry, ...], tuple[SnapshotPin, ...]] | None:
    """What a snapshot of the store would hold; None when that cannot be told."""
    if is_file(store) and not _holds_something(store_path(store)):
        return (), ()
    try:
        with read_only(store) as database:
            return Repository(database).snapshot_contents()
    except StorageError:
        return None


def _broken(name: str, error: StorageError) -> Check:
    found, _, advice = str(error).rpartition(": ")
    if not (found and advice) or not isinstance(error, StoreCorrupt | StoreUnavailable):
        found, advice = str(error), "autotune db check, then restore a backup"
    return Check(name=name, found=found, fix=advice)


def _holds_something(path: Path) -> bool:
    try:
        return path.stat().st_size > 0 or not path.is_file()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # what may not be looked at is reported when it is opened


def _not_yet(name: str, path: Path, when: str) -> Check:
    """What is not there yet can be made when the nearest folder above it may be written."""
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        variable = "AUTOTUNE_CACHE" if name == "compile cache" else "AUTOTUNE_DB"
        found = f"{path} is not there and {above} cannot be written"
        return Check(name=name, found=found, fix=_ELSEWHERE.format(variable))
    return _with_space(name, above, f"none yet at {path}; {when}")


def _with_space(name: str, folder: Path, found: str) -> Check:
    free = shutil.disk_usage(folder).free
    found += f", {free / 2**30:.1f} GB free"
    if free >= _LOW_SPACE_BYTES:
        return Check(name=name, found=found)
    return warning(name, found, f"free some space under {folder}")


def _fault(folder: Path, state: os.stat_result) -> tuple[str, str]:
    """Why no compiled code can be kept in ``folder``, and the fix; empty when it can."""
    elsewhere, private = _ELSEWHERE.format("AUTOTUNE_CACHE"), f"chmod 700 {shlex.quote(str(folder))}"
    fixes = {"is a link": "set AUTOTUNE_CACHE to the real folder", "is writable by others": private}
    if fault := unsafe(state, folder=True):
        return fault, fixes.get(fault, elsewhere)
    if not os.access(folder, os.W_OK | os.X_OK):
        return "cannot be written", private
    if mounted_noexec(folder):
        return "is mounted noexec: compiled code cannot be loaded from it", elsewhere
    return "", ""


def _on_this_machine(model: str) -> Path:
    looks_local = model == EMBEDDED or Path(model).is_dir() or model.count("/") != 1
    if looks_local or model.startswith((".", "/", "~")):
        return model_files.locate(model)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(model, name) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    except HFValidationError:
        raise CheckpointError(f"{model}: no such folder, and not a hub id") from None
    if not all(isinstance(path, str) for path in found):
        raise CheckpointError(f"{model}: not in the local hub cache")
    return Path(str(found[0])).parent
