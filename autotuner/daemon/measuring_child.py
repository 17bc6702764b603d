"""One measuring command as a child process of the daemon: nice, killable within seconds, dead when the daemon is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

INTERRUPT_SECONDS = 6.0
"""Between the request to stop and the kill: a run stores that it was interrupted and ends its own children."""
_POLL_SECONDS = 0.1
_LONGEST_CAUSE = 300
_TAIL = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """How a run ended: its document, or None and why there is none.

    ``stopped`` is that it was asked to, ``killed`` that somebody else ended it; ``began`` is False where it was never
    put to work.
    """

    document: dict[str, Any] | None
    cause: str = ""
    stopped: bool = False
    killed: bool = False
    began: bool = True


def run_tuner(
    arguments: Sequence[str],
    *,
    nice: int,
    seconds: float,
    stop: Callable[[], bool],
    beat: Callable[[], None],
    variables: Mapping[str, str] = MappingProxyType({}),
    without: Sequence[str] = (),
    heard: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Run ``autotune`` with ``arguments``, which ask for JSON, to its end, or until ``stop()``.

    ``beat`` is called all the while, ``heard`` with each line that it says; ``variables`` are its own, beside those
    of this process but ``without``. A command that takes longer than ``seconds`` is stopped. Whatever happens, no
    process of it is left when this returns; when this process is killed, the run's group kills itself.
    """
    lifeline, ours = os.pipe()
    command = [sys.executable, "-m", "autotuner.cli.daemon_child", str(lifeline), str(nice)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                [*command, *arguments],
                env={**{name: text for name, text in os.environ.items() if name not in without}, **variables},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=(lifeline,),
                start_new_session=True,
            )
        finally:
            os.close(lifeline)
        try:
            lines = _Lines(err.fileno(), heard)

            def pulse() -> None:
                beat()
                lines.tell()

            stopped = _wait(process, time.monotonic() + seconds, stop, pulse)
            lines.tell()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(ours)
        return _read(process.returncode, _text(out), _text(err), stopped=stopped)


class _Lines:
    """Tells each line of a file that another process writes, once it is whole."""

    def __init__(self, file: int, heard: Callable[[str], None]) -> None:
        self._file, self._heard = file, heard
        self._read, self._begun = 0, b""

    def tell(self) -> None:
        """What was written since."""
        while block := os.pread(
            self._file, 1 << 16, self._read
        ):  # its writer's place in the file stays as it is
            self._read += len(block)
            *whole, self._begun = (self._begun + block).split(b"\n")
            for line in whole:
                self._heard(line.decode(errors="replace"))


def _wait(
    process: subprocess.Popen[bytes], end: float, stop: Callable[[], bool], beat: Callable[[], None]
) -> bool:
    """Whether the run had to be stopped."""
    while process.poll() is None:
        beat()
        if stop() or time.monotonic() >= end:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(INTERRUPT_SECONDS)
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _read(code: int, out: str, err: str, *, stopped: bool) -> Tuned:
    if stopped:
        return Tuned(document=None, cause="stopped", stopped=True)
    try:
        if code == 0:
            return Tuned(document=json.loads(out))
    except ValueError:
        return Tuned(document=None, cause="its output was not JSON")
    return Tuned(document=None, cause=_last_line(err, code), killed=code < 0)


def last_line(file: Any, code: int) -> str:
    """The last line that a process which ended so wrote to a file: why it ended."""
    end = file.seek(0, os.SEEK_END)
    return _last_line(_text(file, max(0, end - _TAIL)), code)


def _last_line(text: str, code: int) -> str:
    if code < 0:  # what it said last was not why
        return f"ended by {_signal_name(-code)}"
    lines = text.strip().splitlines() or [f"exit code {code}"]
    return lines[-1][:_LONGEST_CAUSE]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _text(file: Any, start: int = 0) -> str:
    file.seek(start)
    text: str = file.read().decode(errors="replace")
    return text
