"""Builds ``faulty_system.cpp``, which makes chosen system calls fail, slow or recorded, and names its parts."""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("faulty_system.cpp")
OPENS, WRITES, SYNCS, NAMES, REMOVES, TRUNCATES = (1 << place for place in range(6))
GROWING = OPENS | WRITES | SYNCS | NAMES | TRUNCATES
"""What a full disk refuses: all but to remove."""
ALL = GROWING | REMOVES


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Which calls on files below ``folder`` fail, from the ``first`` on; 0: none, they are only counted.

    ``lasting`` ones go on; with ``partial`` the first write that fails writes a half. Every call is slow by
    ``delay_us``, the clock is off by ``clock_s``, and calls are appended to ``record`` unless that is empty.
    """

    folder: Path
    first: int = 0
    error: int = errno.ENOSPC
    kinds: int = GROWING
    lasting: bool = True
    partial: bool = False
    delay_us: int = 0
    clock_s: int = 0
    record: str = ""

    def variable(self) -> str:
        """What makes a process, and those it starts, do so from their first instruction."""
        numbers = (self.first, self.error, self.kinds, int(self.lasting), int(self.partial))
        return "|".join(map(str, (self.folder, *numbers, self.delay_us, self.clock_s)))

    def arm(self) -> None:
        """Do so in this process, in which the library is preloaded."""
        ctypes.CDLL(None).faulty_arm(
            os.fsencode(self.folder),
            ctypes.c_long(self.first),
            self.error,
            self.kinds,
            int(self.lasting),
            int(self.partial),
            ctypes.c_long(self.delay_us),
            ctypes.c_long(self.clock_s),
            self.record.encode(),
        )


def counted() -> tuple[int, int]:
    """How many calls counted since ``arm``, and how many of them failed."""
    library = ctypes.CDLL(None)
    library.faulty_counted.restype = library.faulty_failed.restype = ctypes.c_long
    return library.faulty_counted(), library.faulty_failed()


@functools.cache
def library() -> Path:
    """The built library. Raises ``LookupError`` where there is no compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise LookupError("no g++ to build the library of faults with")
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"autotune-tests-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    built = folder / f"faulty-{digest}.so"
    if not built.exists():
        aside = folder / f"faulty-{digest}.{os.getpid()}"
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(aside), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        aside.replace(built)
    return built
