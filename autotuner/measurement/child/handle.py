"""The parent's handle of one child process: started in its own session, under wall and memory limits."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from autotuner.engines.interpreters import search_path
from autotuner.environment import available_threads
from autotuner.measurement.child.job import ArmJob
from autotuner.measurement.child.timing import WINDOW
from autotuner.measurement.outcome import Block, Failed
from autotuner.measurement.placement import LAUNCHING_CPUS, place
from autotuner.paths import headers_folder, inductor_folder
from toto_core.compile_report import CompileReport
from toto_core.compiling.headers import HEADERS_VARIABLE
from toto_core.settings import CUDA_GRAPH_MODES, RuntimeSettings

POLL_SECONDS = 0.25
_MOST_OUTPUT = 64 << 20
"""Bytes of output that are kept of a child: only the last lines are ever read, and only when it crashes."""
_NICE = 10
_COMPILE_WORKERS = 8
_INHERITED = (
    "TOTO_",
    "TORCH_LOGS",
    "TORCHINDUCTOR_",
    "TORCHDYNAMO_",
    "AOT_INDUCTOR_",
    "OMP_",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "CUDA_LAUNCH_BLOCKING",
    "CUBLAS_",
    "CUBLASLT_",
    "TRITON_",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)
"""Variables that would change what is measured; a child gets none of its parent's."""
_KEPT = ("TORCHINDUCTOR_VEC_ISA_OK",)
"""Spares torch six probes of the compiler in every empty cache, and changes nothing that runs."""


class ChildError(Exception):
    """The child is of no more use; ``failed`` says why."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(str(failed))
        self.failed = failed


class Child:
    """One arm in its own process group.

    Every method that asks it something raises ``ChildError`` when that fails, and then the process is gone.
    """

    def __init__(self, job: ArmJob) -> None:
        self._job, self.settings = job, job.settings
        self.start_ms = 0.0
        self.was_warm = self.reproduced = False
        self.threads = 0
        self.report = CompileReport()
        self.peak_bytes = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._answers, theirs = os.pipe()
        lifeline, self._lifeline = os.pipe()
        self._buffer = b""
        try:
            self._process = subprocess.Popen(
                [job.python, "-m", "autotuner.measurement.child.main", str(theirs), str(lifeline)],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env=child_environment(job),
                pass_fds=(theirs, lifeline),
                start_new_session=True,
            )
        finally:
            os.close(theirs)
            os.close(lifeline)
        self._write(job.to_json())

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def wait_started(self, deadline: float) -> None:
        """Wait until the model has answered; sets what is known of its start, and its ``threads``."""
        answer = self._expect("started", deadline)
        self.start_ms, self.was_warm = float(answer["start_ms"]), bool(answer["was_warm"])
        self.reproduced = bool(answer["reproduced"])
        self.threads = int(answer["threads"])

    def wait_ready(self, deadline: float) -> None:
        """Wait until the arm has reached a steady state."""
        self._note(self._expect("ready", deadline))

    def begin_block(self, shape: int, *, one_more: bool = False) -> None:
        """Have it begin a block of calls of a request shape, ``one_more`` than a block has."""
        self._request("block", shape=shape, calls=WINDOW + one_more)

    def end_block(self, deadline: float) -> Block:
        """Milliseconds of the calls of the block that it began."""
        milliseconds = self._expect("block", deadline)["ms"]
        return tuple(milliseconds[1:])  # the first call pays for the other arm's cache

    def forecasts(self, deadline: float, *, exact: bool = False) -> list[dict[str, Any]]:
        """Its forecasts of every request shape, or the float64 ones, as ``read_forecasts`` takes them."""
        shapes: list[dict[str, Any]] = self._ask("exact" if exact else "forecasts", deadline)["shapes"]
        return shapes

    def refresh(self, deadline: float) -> None:
        """Ask again what compiling did and how much memory was used."""
        self._note(self._ask("report", deadline))

    def cpu_seconds(self) -> float:
        """CPU time of the process and its children so far."""
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system + times.children_user + times.children_system)

    def fileno(self) -> int:
        """Readable once it has answered or is gone; for ``selectors``."""
        return self._answers

    def give_way(self) -> None:
        """Leave the CPUs to whoever else wants them."""
        with contextlib.suppress(psutil.Error):
            psutil.Process(self._process.pid).nice(_NICE)

    def place(self, cpus: frozenset[int]) -> None:
        """Run on these CPUs alone from now on."""
        place(self._process.pid, cpus)

    def close(self) -> None:
        """Kill the whole group, and what left it, and release every handle; safe to call twice."""
        strays = self._strays() if self._lifeline >= 0 else []
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for stray in strays:
            with contextlib.suppress(psutil.Error):
                stray.kill()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            os.close(self._answers)
            self._lifeline = self._answers = -1
            with contextlib.suppress(OSError):
                if self._process.stdin:
                    self._process.stdin.close()
            self._log.close()
        self._process.wait()

    def _strays(self) -> list[psutil.Process]:
        """Descendants in a session of their own, which a signal to the group does not reach."""
        strays = []
        with contextlib.suppress(psutil.Error):
            for each in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(OSError):
                    if os.getpgid(each.pid) != self._process.pid:
                        strays.append(each)
        return strays

    def _ask(self, what: str, deadline: float, **fields: int) -> dict[str, Any]:
        """Send a request and wait for its answer until ``deadline`` (``time.monotonic``)."""
        self._request(what, **fields)
        return self._expect(what, deadline)

    def _request(self, what: str, **fields: int) -> None:
        self._write(json.dumps({"ask": what, **fields}))

    def _expect(self, event: str, deadline: float) -> dict[str, Any]:
        """Wait for the next answer, which must be ``event``."""
        line = self._read_line(deadline)
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._end("crashed", "its answer was not JSON") from None
        if answer.get("event") == "failed":
            raise self._end(answer["kind"], answer["detail"])
        if answer.get("event") != event:
            raise self._end("crashed", f"answered {answer.get('event')!r} instead of {event!r}")
        return answer

    def _note(self, answer: dict[str, Any]) -> None:
        self.report = CompileReport.from_dict(answer["report"])
        self.peak_bytes = answer.get("peak_bytes", self.peak_bytes)

    def _write(self, line: str) -> None:
        try:
            assert self._process.stdin
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None

    def _read_line(self, deadline: float) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if time.monotonic() >= deadline:
                    raise self._end("timeout", "did not answer within its wall limit")
                if not selector.select(min(POLL_SECONDS, max(0.0, deadline - time.monotonic()))):
                    self.check_limits()
                    continue
                chunk = os.read(self._answers, 1 << 16)
                if not chunk:
                    raise self._died()
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def check_limits(self) -> None:
        """Bound what the group says, and what it holds together: a compiler is a process of its own."""
        if os.fstat(self._log.fileno()).st_size > _MOST_OUTPUT:
            self._log.seek(0)  # the child writes where this stands
            self._log.truncate()
        total = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            for member in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += member.memory_info().rss
        if total > self._job.memory_bytes:
            limit = self._job.memory_bytes / 2**20
            raise self._end("out_of_memory", f"held {total / 2**20:.0f} MiB, its limit is {limit:.0f} MiB")

    def _died(self) -> ChildError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.poll()
        if code is not None and code < 0:
            cause = f"killed by signal {-code} ({signal.Signals(-code).name})"
        else:
            cause = f"ended with exit code {code}"
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 2000))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return self._end("crashed", f"{cause}: {lines[-1]}" if lines else cause)

    def _end(self, kind: str, detail: str) -> ChildError:
        self.close()
        return ChildError(Failed(kind=kind, detail=detail))


def child_environment(job: ArmJob) -> dict[str, str]:
    """The variables of a child: its parent's without those that would change what is measured, and its own."""
    kept = {name: os.environ[name] for name in os.environ if name in _KEPT or not name.startswith(_INHERITED)}
    gpu = job.device != "cpu"
    count = LAUNCHING_CPUS if gpu else job.settings.num_threads
    threads = {"OMP_NUM_THREADS": str(count)} if count else {}
    # A pool of compile workers can hang and outlive its parent; the templates of a GPU's products need one.
    workers = min(_COMPILE_WORKERS, available_threads()) if gpu else 1
    return {
        **kept,
        **threads,
        **(search_path() if job.python != sys.executable else {}),
        "TORCHINDUCTOR_CACHE_DIR": str(inductor_folder(Path(job.artifacts))),
        "TORCHINDUCTOR_COMPILE_THREADS": str(workers),
        HEADERS_VARIABLE: os.environ.get(HEADERS_VARIABLE) or str(headers_folder()),
        "TMPDIR": str(
            Path(job.series_file).absolute().parent
        ),  # a killed compiler's files go with the run's folder
        "HF_HUB_OFFLINE": "1",  # the parent has fetched the model
        "PYTHONUNBUFFERED": "1",
    }


def not_compiled(settings: RuntimeSettings, report: CompileReport, device: str = "cpu") -> Failed | None:
    """The failure of a configuration that asks for compilation and did not get it, None for all others.

    One that asks for CUDA graphs on a GPU gets them for every call or fails: torch goes on without a word.
    """
    wants_graphs = device != "cpu" and settings.compile_mode in CUDA_GRAPH_MODES
    skipped = report.cudagraph_skips if wants_graphs else ()
    if not settings.compiled or (report.really_compiled and not skipped):
        return None
    if skipped:
        cause = f"torch recorded no CUDA graphs for some calls: {skipped[0]}"
    elif report.recompile_limit_hit:
        cause = (
            f"the recompile limit of {settings.recompile_limit} was reached and further shapes ran eagerly"
        )
    else:
        cause = "no graph was compiled"
    return Failed(kind="not_compiled", detail=f"asked for {settings.compile_mode}, but {cause}")
