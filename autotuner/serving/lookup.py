"""``lookup``: the settings a symbol is to run with, from the snapshot alone, in microseconds once cached."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from pathlib import Path
from types import NoneType
from typing import Any

from autotuner.environment import current_environment
from autotuner.errors import one_line
from autotuner.paths import DATABASE_VARIABLE, snapshot_path, store_location
from autotuner.serving.resolution import (
    KILL_SWITCH,
    MODE_VARIABLE,
    SAFE,
    LookupRequest,
    Resolution,
    resolve,
)
from autotuner.workload import DEFAULT_MODEL, Workload
from storage.errors import SnapshotError, StorageError
from storage.masking import masked_address
from storage.snapshot import Snapshot, read_snapshot, read_snapshot_part
from toto_core import compile_config
from toto_core.settings import RuntimeSettings
from toto_core.symbols import MAX_QUOTED_LENGTH, SymbolError, parse_symbol, quoted

__all__ = ["Resolution", "lookup"]

_DEVICES = ("cpu", "cuda")
_TYPES: dict[str, tuple[type, ...]] = {
    "model": (str, NoneType),
    "workload": (Workload, NoneType),
    "profile": (str, NoneType),
    "settings": (RuntimeSettings, NoneType),
    "db": (str, NoneType),
    "device": (str,),
}
_MOST_RESOLUTIONS, _MOST_SNAPSHOTS = 10_000, 8  # bounds; beyond them everything is forgotten and read again

_Identity = tuple[int, ...] | None
_resolutions: dict[tuple[Any, ...], Resolution] = {}
_snapshots: dict[str, tuple[_Identity, Snapshot]] = {}


def lookup(
    symbol: str,
    *,
    model: str | None = None,
    workload: Workload | None = None,
    profile: str | None = None,
    settings: RuntimeSettings | None = None,
    db: str | None = None,
    device: str = "cpu",
) -> Resolution:
    """The settings ``symbol`` is to run with on ``device`` (``cpu`` or ``cuda``).

    The first of: kill switch ``TOTO_DISABLE_COMPILE``, ``settings``, ``TOTO_COMPILE_MODE`` (the mode only),
    the symbol's pin, its active settings for this environment, the newest winner of the same workload on this
    environment, eager fp32. None for ``model``, ``workload`` or ``profile`` means what the symbol was last
    promoted for; ``model`` overrides the workload's own. Never raises, whatever it is given and the store holds,
    and waits for nothing: it falls back, and ``reasons`` says why.
    """
    try:
        # what compile_config.apply filled in is its default, and no wish of this process
        mode = None if compile_config.filled_in(MODE_VARIABLE) else os.environ.get(MODE_VARIABLE)
        variables = os.environ.get(KILL_SWITCH), mode
        store = db or os.environ.get(DATABASE_VARIABLE)
        home = None if store and "~" not in store else os.environ.get("HOME")
        data_home = None if store else os.environ.get("XDG_DATA_HOME")
        path, fault = _snapshot_file(store, home, data_home)
        identity = _identity(path)
        text = symbol if isinstance(symbol, str) else None
        given = ascii(symbol) if text is None else text
        age = _age(path)
        key = (given, text, model, workload, profile, settings, device, variables, path, fault, identity, age)
        return _resolutions.get(key) or _resolve_afresh(key)
    except Exception as error:  # a forecast must not fail for how it might have run faster
        arguments = {"model": model, "workload": workload, "profile": profile, "settings": settings}
        return _unresolved(symbol, {**arguments, "db": db, "device": device}, error)


def _resolve_afresh(key: tuple[Any, ...]) -> Resolution:
    given, text, model, workload, profile, settings, device, variables, path, fault, identity, _ = key
    wrong = _wrong(model=model, workload=workload, profile=profile, settings=settings, device=device)
    if wrong:
        raise TypeError(wrong)
    symbol, why_no_symbol = _symbol(text, given)
    kind, why_no_device = _device(device)
    request = LookupRequest(
        symbol=symbol,
        given=given[:MAX_QUOTED_LENGTH],
        model=model or None,
        workload=_with_model(workload, model),
        profile=profile,
        settings=settings,
        environment=current_environment(kind),
        kill_switch=variables[0],
        mode=variables[1],
    )
    snapshot, why_no_snapshot = (None, fault) if fault else _snapshot(path, identity, symbol or "SYMBOL")
    why = [each for each in (why_no_symbol, why_no_device) if each]
    told = why_no_snapshot or _fetched(snapshot)
    try:
        found = resolve(request, snapshot, (*why, told) if told else tuple(why))
    except SnapshotError:  # its part does not say enough, or is of a file that was replaced meanwhile
        snapshot, told = _whole(Path(path), symbol or "SYMBOL")
        found = resolve(request, snapshot, (*why, told) if told else tuple(why))
    if snapshot is not None or identity == ():  # a read that failed may succeed the next time
        if len(_resolutions) >= _MOST_RESOLUTIONS:
            _resolutions.clear()
        _resolutions[key] = found
    return found


def _unresolved(symbol: object, arguments: dict[str, Any], error: Exception) -> Resolution:
    """The safe default for what nobody foresaw; touches nothing of the arguments that could fail again."""
    reason = _wrong(**arguments) or _name_and_message(error)
    model = arguments["model"]
    return Resolution(
        symbol=symbol[:MAX_QUOTED_LENGTH] if type(symbol) is str else type(symbol).__name__,
        settings=SAFE,
        source="default",
        reasons=(one_line(f"lookup: {reason}; eager fp32 is safe"),),
        model=model if type(model) is str and model else DEFAULT_MODEL,
    )


def _wrong(**arguments: object) -> str:
    """Which argument is of another type than it must be, empty for none."""
    for name, value in arguments.items():
        kind = _TYPES[name]
        if not issubclass(type(value), kind):  # isinstance would ask the object, which may lie or fail
            return f"{name} must be {kind[0].__name__}, not {type(value).__name__}"
    return ""


def _name_and_message(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an argument's own kind of error may fail to say what it is
        return type(error).__name__


@functools.lru_cache(maxsize=64)
def _snapshot_file(store: str | None, home: str | None, data_home: str | None) -> tuple[str, str]:
    """The snapshot's path, or an empty one and the reason; ``home`` and ``data_home`` only decide it."""
    try:
        return str(snapshot_path(store_location(store))), ""
    except (OSError, RuntimeError, ValueError, StorageError) as error:
        named = None if store is None else masked_address(store)
        return "", one_line(f"snapshot: the store {named!r} has no place: {error}; name a file or a server")


def _identity(path: str) -> _Identity:
    """Changes whenever the file does; empty when there is none, None when that cannot be told."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path costs as much as the rest of a cached lookup
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _age(path: str) -> int | None:
    """How old the fetched snapshot is that was read last, in hours; None for any other.

    An answer says it, and so holds for an hour.
    """
    known = _snapshots.get(path)
    origin = None if known is None else known[1].origin
    if origin is None:
        return None
    now = time.time()
    return -1 - int(origin.age_s(now) / 3600) if origin.is_old(now) else int(origin.age_s(now) / 3600)


def _fetched(snapshot: Snapshot | None) -> str:
    """How old a fetched snapshot is and where it is from, empty for one that was published here."""
    if snapshot is None or snapshot.origin is None:
        return ""
    from autotuner.serving.snapshot_age import origin_text

    return one_line(f"snapshot: {origin_text(snapshot.origin, time.time())}")


def _snapshot(path: str, identity: _Identity, symbol: str) -> tuple[Snapshot | None, str]:
    """What the snapshot says of a symbol, read again only when the file is another one; else None and the reason."""
    known = _snapshots.get(path)
    if known is not None and known[0] == identity and known[1].covers(symbol):
        return known[1], ""
    try:
        snapshot = _read(Path(path), identity, symbol)
    except SnapshotError as error:
        reason: str = error.reason
    except Exception:  # the right digest over a document of another shape can fail in any way
        reason = "truncated/corrupt"
    else:
        if len(_snapshots) >= _MOST_SNAPSHOTS:
            _snapshots.clear()
        _snapshots[path] = (identity, snapshot)
        return snapshot, ""
    return None, _why_unused(path, reason, symbol)


def _whole(path: Path, symbol: str) -> tuple[Snapshot | None, str]:
    """All that the snapshot says now, in one reading; else None and the reason."""
    try:
        snapshot = read_snapshot(path)
    except SnapshotError as error:
        return None, _why_unused(str(path), error.reason, symbol)
    return snapshot, _fetched(snapshot)


def _why_unused(path: str, reason: str, symbol: str) -> str:
    state = "is missing" if reason == "missing" else f"cannot be used ({reason})"
    return one_line(f"snapshot: {path} {state}; run `autotune run --symbol {symbol}`")


def _read(path: Path, identity: _Identity, symbol: str) -> Snapshot:
    if identity == ():
        raise SnapshotError(f"{path} is missing", "missing")
    if identity is None:
        raise SnapshotError(f"{path} is not a file", "unreadable")
    return read_snapshot_part(path, "symbols", symbol) or read_snapshot(path)


def _symbol(text: str | None, given: str) -> tuple[str | None, str]:
    if text is None:
        return None, f"symbol: {quoted(given)} is not text; give a symbol such as AMD"
    try:
        return parse_symbol(text), ""
    except SymbolError as error:
        return None, f"symbol: {error}"


def _device(device: str) -> tuple[str, str]:
    kind = device.partition(":")[0]
    if kind in _DEVICES:
        return kind, ""
    return "cpu", f"device: {quoted(device)} is neither cpu nor cuda; looked up for cpu"


def _with_model(workload: Workload | None, model: str | None) -> Workload | None:
    if workload is None or not model or workload.model == model:
        return workload
    return dataclasses.replace(workload, model=model, revision=None)
