"""Commands of the campaign as processes: the real command line, or a fork of this process, which starts at once."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from autotuner.cli import main
from tests.support.command import Cli
from tests.support.storage_samples import ROOT

MARK = "AUTOTUNE_CAMPAIGN"
GONE_WITHIN_S = 5.0
_POLL_S = 0.005
_TRIAL = re.compile(r"^\s*trial \d+:", re.MULTILINE)


@dataclass(frozen=True)
class Place(Cli):
    """A folder of its own for a store, caches, data and temporary files, and a mark for every process of it."""

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def temporary(self) -> Path:
        """What ``TMPDIR`` names."""
        return self.folder / "tmp"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """As of every command, without a compiler, so that no trial compiles."""
        nothing = self.folder / "no-compiler"
        own = {MARK: self.mark, "TMPDIR": str(self.temporary), "PATH": str(nothing)}
        return super().environment({**own, **(extra or {})})

    def processes(self) -> list[psutil.Process]:
        """Every process that bears the mark."""
        return [each for each in psutil.process_iter() if self._is_ours(each)]

    def left(self, within: float = GONE_WITHIN_S) -> list[psutil.Process]:
        """Those that still run after so many seconds."""
        alive: list[psutil.Process] = psutil.wait_procs(self.processes(), timeout=within)[1]
        return alive

    def end_all(self) -> None:
        """Kill whatever of it still runs."""
        for each in self.processes():
            with contextlib.suppress(psutil.Error):
                each.kill()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark
        except (psutil.Error, OSError):
            return False

    def temporary_files(self) -> list[str]:
        """Names of what lies in the folder for temporary files."""
        return sorted(path.name for path in self.temporary.iterdir())


@contextmanager
def new_place(folder: Path) -> Iterator[Place]:
    """A new place; whatever runs in it ends with the block."""
    place = Place(folder)
    place.temporary.mkdir(parents=True)
    (folder / "no-compiler").mkdir()
    try:
        yield place
    finally:
        place.end_all()


def tiny_model() -> tuple[str, ...]:
    """Options of a run of a model that forecasts in a millisecond."""
    sizes = ("--context-length", "64", "--prediction-length", "4", "--num-samples", "8", "--threads", "1")
    return ("--model", _made_model(), *sizes)


@functools.cache
def _made_model() -> str:
    # In a process of its own: torch's threads would not survive the forks of this one.
    folder = tempfile.mkdtemp(prefix="campaign-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    imports = "from pathlib import Path; import sys; from tests.support.tiny_model import save_tiny_model"
    code = f"{imports}; save_tiny_model(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, check=True)
    return folder


class Command:
    """A command under way whose output goes to files; it does not outlive ``ended``."""

    def __init__(self, place: Place, *arguments: str, forked: bool = False) -> None:
        name = uuid.uuid4().hex[:8]
        self._out, self._err = (place.folder / f"{name}.{stream}" for stream in ("out", "err"))
        self.begun = time.monotonic()
        self.code: int | None = None
        with self._out.open("wb") as out, self._err.open("wb") as err:
            if forked:
                self._process, self.pid = None, _fork(place, arguments, out.fileno(), err.fileno())
            else:
                self._process = subprocess.Popen(
                    [*place.interpreter[:1], "-c", place.interpreter[1], *arguments],
                    env=place.environment(),
                    cwd=place.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                )
                self.pid = self._process.pid

    @property
    def said(self) -> str:
        """Standard error so far."""
        return self._err.read_text(errors="replace")

    @property
    def answered(self) -> str:
        """Standard output so far."""
        return self._out.read_text(errors="replace")

    @property
    def trials(self) -> int:
        """How many trials it has told, which is after it stored them."""
        return len(_TRIAL.findall(self.said))

    def running(self) -> bool:
        """Whether it has not ended."""
        if self.code is None:
            if self._process is not None:
                self.code = self._process.poll()
            else:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    def wait_until(self, what: Callable[[], bool], seconds: float) -> bool:
        """Whether it came to that before it ended or the time was up."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if what():
                return True
            if not self.running():
                return what()
            time.sleep(_POLL_S)
        return False

    def says(self, text: str, seconds: float) -> bool:
        """Wait for a text on standard error."""
        return self.wait_until(lambda: text in self.said, seconds)

    def send(self, which: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.running():
            os.kill(self.pid, which)

    def ended(self, seconds: float) -> int:
        """Its exit code, waited for; killed, and -9, when it does not end in time."""
        self.wait_until(lambda: False, seconds)
        if self.running():
            self.send(signal.SIGKILL)
            self.wait_until(lambda: False, seconds=60.0)
        assert self.code is not None
        return self.code


def _fork(place: Place, arguments: tuple[str, ...], out: int, err: int) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.environ.clear()
        os.environ.update(place.environment())
        tempfile.tempdir = None  # TMPDIR is another one now
        main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
