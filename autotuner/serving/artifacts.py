"""Folders for compile artifacts: one per environment and settings, owned and private, because caches are code.

torch unpickles and loads what lies in them, so that whoever can write there can run code here.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import shlex
import shutil
from pathlib import Path
from urllib.parse import quote, unquote

from autotuner.errors import AutotuneError, UsageError
from autotuner.files import failing_as, levels, mounted_noexec, unsafe
from autotuner.machine.process import Owner
from autotuner.paths import cache_folder
from autotuner.serving.manifest import ManifestSummary, add_files
from toto_core.held_folders import SUFFIX, HeldFolder, remove_left_behind

_WORKPLACE = re.compile(r"run-(?P<pid>\d{1,9})(-(?P<started>\d+)-(?P<host>.+))?-[^-]+")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_REMEDIES = {
    "is a link": "name the real folder",
    "is not a folder": "move it aside",
    "is writable by others": "chmod it to 0700",
}


class CacheRefused(AutotuneError):  # noqa: N818 - reads as the message it stands for
    """A cache folder could have been written by someone else, or cannot be made; the message is one line."""


def refuse_noexec(root: Path) -> None:
    """Raise ``CacheRefused`` for a place from which no compiled code could be loaded, before any is made."""
    if mounted_noexec(root):
        raise CacheRefused(
            f"compile cache {root} is mounted noexec, so that compiled code cannot be loaded from it: name a folder "
            "elsewhere in AUTOTUNE_CACHE"
        )


def refuse_foreign(folder: Path) -> None:
    """Make a folder of the cache, which is to be filled and loaded from.

    Raises ``CacheRefused`` when it, or a folder it lies in, could be written by others, or when something in it is
    another user's.
    """
    root = _root()
    with failing_as(CacheRefused, f"compile cache {folder} cannot be used"):
        for above in reversed(root.parents):
            _make(above)
        for level in (root, *levels(root, folder)):
            _make(level)
            _refuse_unsafe(level)
        for path in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                if path.lstat().st_uid != os.geteuid():
                    raise CacheRefused(
                        f"compile cache {path} belongs to user {path.lstat().st_uid}: remove it"
                    )


def compile_cache(environment_fingerprint: str, settings_key: str) -> Path:
    """The folder of these settings' artifacts in this environment, made 0700 where it is missing.

    Raises ``CacheRefused`` when the cache folder or a folder in it is a link, not the effective user's own,
    writable by others, or cannot be made or named in a compiler call.
    """
    if _FINGERPRINT.fullmatch(environment_fingerprint) is None:
        raise CacheRefused(f"compile cache: {environment_fingerprint!r} is no environment fingerprint")
    root = _root()
    folder = settings_folder(root, environment_fingerprint, settings_key)
    if _is_split(str(folder)):
        raise CacheRefused(
            f"compile cache {str(root)!r} has a space or a quote in its name, at which torch's compiler calls "
            "break: name another folder in AUTOTUNE_CACHE"
        )
    with failing_as(CacheRefused, f"compile cache {folder} cannot be used"):
        refuse_noexec(root)
        for above in reversed(root.parents):
            _make(above)
        for level in (root, *levels(root, folder)):
            _make(level)
            _refuse_unsafe(level)
    return folder


def settings_folder(root: Path, environment_fingerprint: str, settings_key: str) -> Path:
    """Where in the cache at ``root`` the artifacts of these settings lie."""
    return root / environment_fingerprint / hashlib.sha256(settings_key.encode()).hexdigest()[:16]


def workplace(environment_fingerprint: str) -> Path:
    """A private folder of this process beside the cache folders, removed when it ends.

    Those of processes that were killed are removed here. Raises ``CacheRefused``.
    """
    above = compile_cache(environment_fingerprint, "").parent
    remove_left_behind(above, "run-")
    for left in above.glob("run-*"):
        if not left.name.endswith(SUFFIX) and _is_left_behind(left.name):
            shutil.rmtree(left, ignore_errors=True)
    owner = Owner.current()  # in its name for earlier versions, which know nothing of locks
    name = f"run-{owner.pid}-{owner.started:.0f}-{quote(owner.host, safe='')}-"
    with failing_as(CacheRefused, f"compile cache {above} cannot be used"):
        folder = HeldFolder(name, above)
    atexit.register(folder.remove)
    return folder.path


def store(made: Path, environment_fingerprint: str, settings_key: str) -> tuple[Path, ManifestSummary] | None:
    """Keep what was compiled below ``made`` for later processes; where, and its summary, None when it is nothing.

    Raises ``CacheRefused`` when the settings' folder or its neighbourhood is unsafe or cannot be filled.
    """
    folder = compile_cache(environment_fingerprint, settings_key)
    with failing_as(CacheRefused, f"compile cache {folder} cannot be filled"):
        summary = add_files(made, folder)
    return (folder, summary) if summary else None


def wipe(path: Path) -> None:
    """Remove a folder that ``compile_cache`` gave, with all it holds; nothing when it is not there.

    Follows no link. Raises ``CacheRefused`` for a folder elsewhere and for one that cannot be removed.
    """
    root = _root()
    if ".." in path.parts or root not in path.parents:
        raise CacheRefused(f"{path} is not in the compile cache {root}: it is not removed")
    with failing_as(CacheRefused, f"{path} cannot be removed"), contextlib.suppress(FileNotFoundError):
        for level in (root, *levels(root, path)):
            _refuse_unsafe(level)
        shutil.rmtree(path)


def _root() -> Path:
    try:
        return cache_folder().absolute()
    except (OSError, RuntimeError, UsageError) as error:
        raise CacheRefused(f"compile cache: {error}; name a folder in AUTOTUNE_CACHE") from None


def _is_split(path: str) -> bool:
    try:
        return shlex.split(path) != [path]  # torch splits its compiler calls so, without quoting paths
    except ValueError:
        return True


def _make(level: Path) -> None:
    try:
        level.mkdir(mode=0o700)
    except FileExistsError:
        return
    except OSError:
        if not level.is_dir():  # a folder above, such as a read-only root, need not be made
            raise


def _refuse_unsafe(level: Path) -> None:
    if fault := unsafe(level.lstat(), folder=True):
        remedy = _REMEDIES.get(fault, "use a folder of your own")
        raise CacheRefused(f"compile cache {level} {fault}: {remedy}")


def _is_left_behind(name: str) -> bool:
    """Whether the process is gone that an earlier version named a workplace after; not asked of another host's."""
    found = _WORKPLACE.fullmatch(name)
    if found is None:
        return True
    pid, started, host = int(found["pid"]), found["started"], found["host"]
    if host is None:  # named by a version that knew the id alone
        import psutil

        return not psutil.pid_exists(pid)
    return Owner(pid=pid, started=float(started), host=unquote(host)).is_alive() is False
