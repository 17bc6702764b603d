"""Compiles a library's wrapper while its kernels are compiled: torch waits for one before it begins the other."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Call = Callable[[str, str], None]
"""How torch calls a compiler: the command line and the folder to call it in."""


@contextmanager
def wrapper_beside() -> Iterator[None]:
    """Meanwhile torch's call that compiles a wrapper returns at once; the one that links it waits for it.

    On a torch that calls its compiler in another way, or names a wrapper otherwise, everything is as torch has it.
    No compiler is left at work.
    """
    from torch._inductor import cpp_builder  # here, because it takes seconds

    run = getattr(cpp_builder, "run_compile_cmd", None)
    if run is None:
        yield
        return
    calls = _Calls(run)
    cpp_builder.run_compile_cmd = calls
    try:
        yield
    finally:
        cpp_builder.run_compile_cmd = run
        calls.stop()


class _Calls:
    def __init__(self, run: Call) -> None:
        self._run = run
        self._at_work: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}

    def __call__(self, cmd_line: str, cwd: str) -> None:
        words = shlex.split(cmd_line)
        wrapper = _wrapper_made_by(words)
        if wrapper:
            # torch removes the folder it names for the call as soon as the call is over
            folder = Path(wrapper).parent
            compiler = subprocess.Popen(
                words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            self._at_work[wrapper] = (cmd_line, compiler)
            return
        for needed in self._at_work.keys() & set(words):
            self._wait_for(needed)
        self._run(cmd_line, cwd)

    def _wait_for(self, wrapper: str) -> None:
        cmd_line, compiler = self._at_work.pop(wrapper)
        if compiler.wait():
            self._run(
                cmd_line, str(Path(wrapper).parent)
            )  # once more, for torch's own account of what failed

    def stop(self) -> None:
        for _, compiler in self._at_work.values():
            compiler.kill()
            compiler.wait()


def _wrapper_made_by(words: list[str]) -> str:
    """The object that a call makes of a wrapper's source and nothing else; empty for other calls."""
    sources = [word for word in words[1:] if word.endswith(".cpp")]
    if "-c" not in words or "-o" not in words[:-1] or len(sources) != 1:
        return ""
    return words[words.index("-o") + 1] if sources[0].endswith("wrapper.cpp") else ""
