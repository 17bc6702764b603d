"""Runs the C++ compiler for torch with its headers parsed once: most of a build is the same torch headers again.

What torch would compile is compiled, with the same flags; a header taken from here gives the same object to the byte.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from toto_core.held_folders import held_folder
from toto_core.private_folders import make_private, why_not_private

HEADERS_VARIABLE = "TOTO_PRECOMPILED_HEADERS"
"""Names the folder that ``precompiled`` uses. It must be private: who writes there writes code that is run."""

_FIRST_INCLUDE = re.compile(r"(?:\s|//[^\n]*\n)*#include <(torch/csrc/inductor/[\w./]+)>")
_NOT_FOR_PARSING = re.compile(r"-(?:o|l|L|c$|shared$)")


@contextmanager
def precompiled(folder: Path | None = None) -> Iterator[None]:
    """Calls of the compiler that torch makes meanwhile, in any thread, take their first header from ``folder``.

    One that is not there yet is made, unless another process is at it. Without a folder (the variable names none
    either), without GCC, and on a torch that calls its compiler in another way, everything is as torch has it.
    """
    from torch._inductor import cpp_builder  # here, because it takes seconds

    named = folder or os.environ.get(HEADERS_VARIABLE)
    run = getattr(cpp_builder, "run_compile_cmd", None)
    if not named or run is None:
        yield
        return

    def run_with_header(cmd_line: str, cwd: str) -> None:
        run(with_header(cmd_line, Path(named)), cwd)

    cpp_builder.run_compile_cmd = run_with_header
    try:
        yield
    finally:
        cpp_builder.run_compile_cmd = run


def with_header(command: str, folder: Path) -> str:
    """The compiler's command line with the first header of its source taken from ``folder``, or as it was."""
    words = shlex.split(command)
    source = next((word for word in words[1:] if word.endswith(".cpp")), None)
    if source is None or not _is_gcc(words[0]):
        return command
    with Path(source).open(encoding="utf-8") as text:
        found = _FIRST_INCLUDE.match(text.read(4096))
    header = found and _kept(found[1], words[0], _parsing_flags(words, source), folder)
    return shlex.join([words[0], "-include", str(header), *words[1:]]) if header else command


def _parsing_flags(words: list[str], source: str) -> list[str]:
    """The flags that decide how a header is parsed: all but what to compile, where to, and what to link."""
    flags = [word for word in words[1:] if word != source]
    return [
        word
        for before, word in zip(["", *flags], flags, strict=False)
        if before != "-o" and not _NOT_FOR_PARSING.match(word)
    ]


def _kept(include: str, compiler: str, flags: list[str], folder: Path) -> Path | None:
    """The header's own file, its parsed form beside it; None where that cannot be made now."""
    import torch  # here, because a parent that only names the folder needs none

    identity = (include, compiler_version(compiler), torch.__version__, torch.version.git_version, flags)
    place = folder / hashlib.sha256(repr(identity).encode()).hexdigest()[:24]
    header = place / "header.hpp"
    if why_not_private(folder) or why_not_private(place):
        return None  # what others could have put there is not compiled in
    if header.with_suffix(".hpp.gch").exists():
        with suppress(OSError):
            os.utime(place)  # who removes what nobody uses looks at this
        return header
    try:
        make_private(place)
        with _alone(place) as ours:
            return header if ours and _make(header, include, compiler, flags) else None
    except OSError:
        return None  # no space, no right: the header is parsed as without us


def _make(header: Path, include: str, compiler: str, flags: list[str]) -> bool:
    header.write_text(f"#include <{include}>\n", encoding="utf-8")
    with held_folder("building-", header.parent) as aside:
        made = aside / "header.hpp.gch"
        command = [compiler, "-x", "c++-header", str(header), *flags, "-o", str(made)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        made.replace(header.with_suffix(".hpp.gch"))
    return True


@contextmanager
def _alone(place: Path) -> Iterator[bool]:
    """Whether this process may make what belongs into ``place``; another one that does so is not waited for."""
    with (place / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@functools.cache
def compiler_version(compiler: str) -> str:
    """What the compiler says of itself, empty where there is none."""
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def _is_gcc(compiler: str) -> bool:
    return "Free Software Foundation" in compiler_version(compiler)
