"""Where calls with a ``cache_policy`` keep what they compile: private, of one processor, model and settings."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from toto_core.settings import RuntimeSettings

CACHE_VARIABLE = "AUTOTUNE_CACHE"


class CacheUnavailableError(RuntimeError):
    """Nothing is stored, or the folder is not private; the message is one line."""


def cache_root(environ: Mapping[str, str]) -> Path:
    """The folder of compile caches, as autotune names it; nothing is created."""
    chosen = environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(os.path.expanduser(chosen))  # noqa: PTH111 - Path.expanduser raises for ~nobody
    import platformdirs

    return Path(platformdirs.user_cache_dir("autotune", appauthor=False)) / "compile"


def packages_of(model: str, settings: RuntimeSettings, environ: Mapping[str, str]) -> Path:
    """The folder of what was compiled for the model of this digest under ``settings`` on this processor."""
    identity = hashlib.sha256(f"{model} {settings.key}".encode()).hexdigest()[:16]
    return cache_root(environ) / "earlier" / _processor() / identity


def opened(folder: Path, *, policy: str, refresh: bool) -> Path | None:
    """``folder``, private, for ``prefer`` and ``only``; None for ``never``. ``refresh`` empties it first.

    What lies there is code. Raises ``CacheUnavailableError`` when others could write it, and for ``only`` when it
    holds nothing.
    """
    if policy == "never":
        return None
    above = folder.parents[1]
    try:
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (above, above / folder.parent.name, folder):
            each.mkdir(mode=0o700, exist_ok=True)
            _refuse_unsafe(each)
        if refresh:
            shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
        holds = any(folder.iterdir())
    except OSError as error:
        raise CacheUnavailableError(
            f"{folder}: cannot be used ({error.strerror or error}); name another folder in {CACHE_VARIABLE}"
        ) from None
    if policy == "only" and not holds:
        raise CacheUnavailableError(
            "cache_policy='only' asks for a compile cache, and none is stored for these settings: run once with "
            "torch_compile=True and cache_policy='prefer', or drop it"
        )
    return folder


def _refuse_unsafe(folder: Path) -> None:
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise CacheUnavailableError(
            f"{folder}: others could write what is loaded from here as code; chmod it to 0700 or name another folder "
            f"in {CACHE_VARIABLE}"
        )


def _processor() -> str:
    """What compiled code depends on: the processor and its instructions; homes are shared between machines."""
    told = f"{platform.machine()} {platform.processor()}"
    with (
        contextlib.suppress(OSError),
        Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines,
    ):
        told += "".join(
            sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
        )
    return hashlib.sha256(told.encode()).hexdigest()[:16]
