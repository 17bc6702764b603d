"""The process that speaks to a daemon's cluster, as the daemon has it: no call to it takes longer than a limit."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from autotuner.daemon.measuring_child import INTERRUPT_SECONDS, last_line
from autotuner.daemon.places import Job
from autotuner.errors import AutotuneError, one_line
from autotuner.paths import DATABASE_VARIABLE

SECONDS_TO_ANSWER = 300.0
"""Until the cluster's environments are known: Ray connects, and every node is looked at."""
SECONDS_BEYOND = 900.0
"""A child with jobs may be silent for as long as the longest of them takes, and this much longer: a run that does not
begin is taken back, a node that went is waited for, and the jobs of thousands of symbols are prepared."""
_LONGEST_LINE = 8 << 20
_BLOCK = 1 << 16
_POLL_SECONDS = 0.1
_SECONDS_TO_SAY_WHY = 5.0
_LONGEST_QUOTE = 80
_IT = "the process that speaks to the cluster"


class ClusterChild:
    """The process that speaks to the cluster, in JSON lines; ``goes_on`` is asked all the while.

    ``found`` is what it said of the cluster, ``tell`` hears of what is passed over. Whatever it does or does not,
    each call ends. Raises ``AutotuneError`` when it ends before it is told to, or says nothing for too long.
    """

    def __init__(
        self, owned: str, store: str, goes_on: Callable[[], bool], tell: Callable[[str], None]
    ) -> None:
        self._goes_on, self._tell = goes_on, tell
        self._why = ""  # it ended, once it has
        self._heard: deque[dict[str, Any]] = deque()
        self._begun = bytearray()  # a line that is not whole
        self._unsent = b""
        with contextlib.ExitStack() as undo:
            try:
                self._said = undo.enter_context(tempfile.TemporaryFile())
                lifeline, self._ours = os.pipe()
                undo.callback(os.close, self._ours)
                with contextlib.closing(os.fdopen(lifeline, "rb", buffering=0)):
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", "autotuner.cli.fleet_child", str(lifeline), owned],
                        env={**os.environ, DATABASE_VARIABLE: store},
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=self._said,
                        pass_fds=(lifeline,),
                        start_new_session=True,
                        bufsize=0,
                    )
            except OSError as error:
                raise AutotuneError(f"{_IT} cannot be started: {error.strerror or error}") from None
            undo.pop_all()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        try:
            found = self._first()
        except BaseException:
            self._kill("")
            raise
        if found is None:
            raise AutotuneError("stopped before the cluster answered")
        self.found = found

    def work(self, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
        """What becomes of the jobs, until all have ended or it does not go on."""
        if self._why:
            raise AutotuneError(self._why)
        asked = [
            {
                "environment": job.place.environment.fingerprint,
                "seconds": job.seconds,
                "arguments": job.arguments,
            }
            for job in jobs
        ]
        self._unsent = f"{json.dumps(asked)}\n".encode()
        left = set(range(len(jobs)))
        silence = max(job.seconds for job in jobs) + SECONDS_BEYOND
        until = time.monotonic() + silence
        while (event := self._next(until, silence)) is not None and "done" not in event:
            if not _is_of(event, left):
                self._pass_over(event)
                continue
            if "host" not in event:
                left.remove(event["job"])
            yield event
            until = time.monotonic() + silence

    def leave(self, why: str = "it was ended") -> None:
        """End it: what it has on nodes stores that it was interrupted."""
        if self._why:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(INTERRUPT_SECONDS)
        self._kill(why)

    def _first(self) -> dict[str, Any] | None:
        until = time.monotonic() + SECONDS_TO_ANSWER
        while (found := self._next(until, SECONDS_TO_ANSWER)) is not None and "places" not in found:
            self._pass_over(found)
        return found

    def _pass_over(self, said: object) -> None:
        """Tell of something that makes no sense."""
        text = said.decode(errors="replace") if isinstance(said, bytes) else json.dumps(said)
        self._tell(f"its process said what makes no sense, which is passed over: {text[:_LONGEST_QUOTE]!a}")

    def _next(self, until: float, seconds: float) -> dict[str, Any] | None:
        """What it says next; None once it was stopped. ``seconds`` is how long it has been silent at ``until``."""
        while self._goes_on():
            if self._heard:
                return self._heard.popleft()
            if time.monotonic() >= until:
                self.leave(f"{_IT} said nothing for {seconds:.0f} s")
                raise AutotuneError(self._why)
            self._exchange()
        self.leave()
        return None

    def _exchange(self) -> None:
        """Send what is to be sent, hear what is said, for a moment; raises when nothing will be said any more."""
        has_ended = self._process.poll() is not None  # before it is read: what it said last is not lost
        ready = select.poll()
        ready.register(self._out, select.POLLIN)
        if self._unsent and not has_ended:
            ready.register(self._in, select.POLLOUT)
        events = dict(ready.poll(_POLL_SECONDS * 1000))
        if self._in in events:
            self._send()
        if self._out in events:
            block = os.read(self._out, _BLOCK)
            if not block:
                raise self._ended()
            self._take(block)
        elif has_ended:  # another process may hold its output for ever
            raise self._ended()

    def _send(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._in, self._unsent) :]
        except BlockingIOError:
            return
        except OSError:  # it reads no more: that it has ended is heard
            self._unsent = b""

    def _take(self, block: bytes) -> None:
        *whole, rest = block.split(b"\n")
        for line in whole:
            self._begun += line
            self._hear(bytes(self._begun))
            self._begun.clear()
        self._begun += rest
        if len(self._begun) > _LONGEST_LINE:
            raise self._kill(f"{_IT} said {len(self._begun) >> 20} MB without an end")

    def _hear(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        if isinstance(said, dict):
            self._heard.append(said)
        else:
            self._pass_over(line)

    def _ended(self) -> AutotuneError:
        """It has closed its output, and may say why yet."""
        try:
            self._process.wait(_SECONDS_TO_SAY_WHY)
        except subprocess.TimeoutExpired:
            return self._kill(f"{_IT} closed its output")
        return self._kill("")

    def _kill(self, why: str) -> AutotuneError:
        """End its whole group, and let go of everything, once; without ``why`` it has said itself why it ended."""
        if not self._why:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            code = -signal.SIGKILL
            with contextlib.suppress(subprocess.TimeoutExpired):  # a disk that does not answer holds it
                code = self._process.wait(_SECONDS_TO_SAY_WHY)
            said = last_line(self._said, code).removeprefix("Error: ")
            self._why = why or one_line(f"{_IT} was {said}" if code < 0 else said)
            for stream in (self._process.stdin, self._process.stdout, self._said):
                if stream is not None:
                    stream.close()
            os.close(self._ours)
        return AutotuneError(self._why)


def _is_of(event: Mapping[str, Any], left: Collection[int]) -> bool:
    """Whether this says of one of these jobs that it is begun, or how it ended."""
    if not isinstance(event.get("job"), int) or event["job"] not in left:
        return False
    if "host" in event:
        return isinstance(event["host"], str)
    return isinstance(event.get("document", ""), dict | None) and isinstance(event.get("cause"), str)
