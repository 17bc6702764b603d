"""Files that people give us, and files of ours: read with one clear line when they are wrong, safe from others."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from autotuner.errors import AutotuneError, UsageError
from toto_core.prices.content import as_utf8
from toto_core.symbols import SymbolError, parse_symbol


def read_symbols(path: Path) -> tuple[str, ...]:
    """The symbols of a file with one a line, in its order, each once; ``#`` starts a comment.

    ``-`` is standard input. Any encoding that editors write is read. Raises ``UsageError``, which names the
    file and the line.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        lines = as_utf8(content, name).decode().splitlines()
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{name}: cannot be read: it is not text") from None
    found: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            found[parse_symbol(text)] = None
        except SymbolError as error:
            raise UsageError(f"{name}: line {number}: {error}") from None
    if not found:
        raise UsageError(f"{name}: names no symbol")
    return tuple(found)


@contextlib.contextmanager
def failing_as(kind: type[AutotuneError], what: str) -> Iterator[None]:
    """Raise an ``OSError`` of the block as one of ``kind``: ``what``, and the system's reason."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {error.strerror or error}") from None


def levels(root: Path, path: Path) -> Iterator[Path]:
    """Every folder below ``root`` down to ``path``, and that."""
    yield from reversed([level for level in (path, *path.parents) if root in level.parents])


def mounted_noexec(path: Path) -> bool:
    """Whether ``path``, or where it would be made, is mounted so that code in it cannot be loaded."""
    there = next((level for level in (path, *path.parents) if level.exists()), None)
    return there is not None and bool(os.statvfs(there).f_flag & getattr(os, "ST_NOEXEC", 0))  # not on macOS


def unsafe(state: os.stat_result, *, folder: bool) -> str:
    """Why what has this ``lstat`` could be another user's work, such as ``"is a link"``; empty when it cannot."""
    expected = stat.S_ISDIR(state.st_mode) if folder else stat.S_ISREG(state.st_mode)
    faults = (
        (stat.S_ISLNK(state.st_mode), "is a link"),
        (not expected, f"is not a {'folder' if folder else 'file'}"),
        (state.st_uid != os.geteuid(), f"belongs to user {state.st_uid}"),
        (state.st_mode & (stat.S_IWGRP | stat.S_IWOTH), "is writable by others"),
    )
    return next((fault for found, fault in faults if found), "")
