"""Forks children that say what they begin and what is done, and kills them in the midst of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from autotuner.errors import cause

Tell = Callable[[str, str, str], None]
"""Says ``begun``, ``done`` or ``raised`` of what kind of operation, with a word of its own."""
BEGUN, DONE, RAISED = "begun", "done", "raised"


@dataclass
class Life:
    """What a child said before it was killed: ``done`` by kind, and what it was at, begun with ``word``."""

    done: dict[str, list[str]] = field(default_factory=dict)
    at: str | None = None
    word: str = ""
    raised: list[str] = field(default_factory=list)

    def hear(self, line: bytes) -> str:
        """Take in one line of the child; what it says."""
        what, kind, word = line.decode().rstrip("\n").split("\t")
        if what == BEGUN:
            self.at, self.word = kind, word
        elif what == DONE:
            self.at = None
            self.done.setdefault(kind, []).append(word)
        else:
            self.at = None
            self.raised.append(f"{kind}: {word}")
        return what


class Victim:
    """A forked child at work; it does not outlive the block."""

    def __init__(self, work: Callable[[Tell], None]) -> None:
        reading, writing = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            _be_the_child(work, writing)
        os.close(writing)
        self.life = Life()
        self._lines: BinaryIO = os.fdopen(reading, "rb")
        self.alive = True

    def wait_for(self, kind: str, times: int) -> bool:
        """Listen until it has begun ``kind`` so many times; False when it ended before."""
        for line in self._lines:
            if self.life.hear(line) == BEGUN and self.life.at == kind:
                times -= 1
                if times <= 0:
                    return True
        return False

    def kill(self) -> Life:
        """Kill it, and hear it out."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            for line in self._lines:
                self.life.hear(line)
            self._lines.close()
            os.waitpid(self.pid, 0)
            self.alive = False
        return self.life


@contextmanager
def victim(work: Callable[[Tell], None]) -> Iterator[Victim]:
    """A forked child that does ``work``, killed at the latest when the block ends."""
    child = Victim(work)
    try:
        yield child
    finally:
        child.kill()


def _be_the_child(work: Callable[[Tell], None], writing: int) -> None:
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)

    def tell(what: str, kind: str, word: str) -> None:
        clean = " ".join(word.split())[:400]
        os.write(writing, f"{what}\t{kind}\t{clean}\n".encode())

    try:
        work(tell)
    except BaseException as error:  # whatever it is, the parent shall hear of it, and nothing of it run twice
        with contextlib.suppress(OSError):
            tell(RAISED, type(error).__name__, cause(error))
    finally:
        os._exit(0)


def marked(tell: Tell, kind: str, word: str, act: Callable[[], object], *, begun: str = "") -> None:
    """Do it between the two marks."""
    tell(BEGUN, kind, begun or word)
    try:
        act()
    except Exception as error:
        tell(RAISED, kind, cause(error))
    else:
        tell(DONE, kind, word)


def leftovers(*folders: Path, patterns: tuple[str, ...]) -> list[Path]:
    """What lies below the folders and has a name that no command may leave behind."""
    return sorted({path for folder in folders for pattern in patterns for path in folder.rglob(pattern)})
