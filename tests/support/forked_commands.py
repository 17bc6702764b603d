"""Commands run in forks of one process that has imported them: milliseconds each, as often as a fault can strike."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.faulty_system import Fault, counted, library
from tests.support.storage_samples import ROOT

_IMPORTED = (
    *(f"autotuner.cli.{name}" for name in ("change", "run", "show", "database", "export_import", "report")),
    *(f"autotuner.cli.{name}" for name in ("daemon", "explain", "forecast", "recheck", "compare", "top")),
    *(f"autotuner.cli.{name}" for name in ("doctor", "selftest", "cron", "engines")),
    *("autotuner.commands.select", "autotuner.commands.explain", "autotuner.commands.prune"),
    *(
        "autotuner.commands.replay",
        "autotuner.daemon.loop",
        "autotuner.daemon.take_back",
        "autotuner.tuning.run",
    ),
    *("autotuner.report.html_report", "autotuner.report.text_reports", "autotuner.report.symbol_view"),
    *(
        "autotuner.search.search",
        "autotuner.search.sampler",
        "autotuner.serving.lookup",
        "autotuner.web.metrics",
    ),
    *(
        "autotuner.web.pages",
        "autotuner.doctor.store_checks",
        "storage.migrations",
        "sqlalchemy.dialects.sqlite",
    ),
    *("optuna", "optuna.storages", "alembic.command", "pandas", "psycopg", "filelock", "psutil"),
)
_HEAVY = ("torch", "autotuner.serving.pipeline", "toto_core.pipeline", "autotuner.engines.toto1")


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of a command; ``calls`` and ``failed`` count the system calls of its own process that matter.

    ``code`` is None for one that was ended for taking too long; a signal is a negative number.
    """

    code: int | None
    out: str
    err: str
    calls: int
    failed: int
    seconds: float
    peak_bytes: int

    @property
    def errors(self) -> list[str]:
        """The lines that say what is wrong."""
        return [line for line in self.err.splitlines() if line.startswith("Error: ")]

    def fault(self, allowed: Sequence[int] = (0, 1)) -> str:
        """Why this is not how a command ends, empty when it is: one line of error exactly where it failed."""
        if self.code is None:
            return f"did not end within {self.seconds:.0f} s"
        if "Traceback (most recent call last)" in self.err:
            return f"a traceback: {self.err.strip().splitlines()[-1][:200]}"
        if self.code not in allowed:
            return f"exit code {self.code}: {self.err.strip()[-200:]}"
        if len(self.errors) != (1 if self.code else 0):
            return f"exit code {self.code} with {len(self.errors)} lines of error: {self.err.strip()[-200:]}"
        return ""


class Forks:
    """The process that is forked; a context manager. ``heavy`` has torch as well."""

    def __init__(self, *, heavy: bool = False) -> None:
        environment = os.environ | {"LD_PRELOAD": str(library()), "PYTHONPATH": str(ROOT)}
        for name in [name for name in environment if name.startswith(("AUTOTUNE_", "TOTO_"))]:
            del environment[name]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked_commands", *(["heavy"] if heavy else [])],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.close)

    def run(
        self,
        folder: Path,
        *arguments: str,
        fault: Fault | None = None,
        variables: Mapping[str, str] | None = None,
        seconds: float = 120.0,
    ) -> Done:
        """Run ``autotune`` with ``arguments`` in ``folder``, which holds its store, data and cache."""
        return self.ask({"arguments": arguments}, folder, fault=fault, variables=variables, seconds=seconds)

    def call(
        self, folder: Path, function: str, *arguments: Any, fault: Fault | None = None, seconds: float = 120.0
    ) -> Done:
        """Call ``module:function`` with plain ``arguments`` there instead."""
        return self.ask({"call": function, "arguments": arguments}, folder, fault=fault, seconds=seconds)

    def ask(
        self,
        what: Mapping[str, Any],
        folder: Path,
        *,
        fault: Fault | None = None,
        variables: Mapping[str, str] | None = None,
        seconds: float = 120.0,
        memory: int = 0,
        output: str = "",
    ) -> Done:
        """Run what is asked for in a fork, and wait for it; it prints to the file ``output`` where one is named."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        armed = None if fault is None else asdict(fault) | {"folder": str(fault.folder)}
        asked = {
            **what,
            "folder": str(folder),
            "fault": armed,
            "variables": variables_of(folder) | dict(variables or {}),
            "seconds": seconds,
            "memory": memory,
            "output": output,
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Done(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.wait(timeout=30)
            assert self._process.stdout is not None
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@functools.cache
def shared_forks(*, heavy: bool = False) -> Forks:
    """One for this process, ended with it."""
    return Forks(heavy=heavy)


def variables_of(folder: Path) -> dict[str, str]:
    """Where a command in ``folder`` keeps everything."""
    return {
        "AUTOTUNE_DB": str(folder / "autotune.db"),
        "AUTOTUNE_CACHE": str(folder / "cache"),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "COLUMNS": "200",
    }


def _serve(*, heavy: bool) -> None:
    for name in _IMPORTED + (_HEAVY if heavy else ()):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    asks, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    with os.fdopen(asks) as lines, os.fdopen(answers, "w") as told:
        for line in lines:
            told.write(json.dumps(_forked(json.loads(line))) + "\n")
            told.flush()


def _forked(asked: dict[str, Any]) -> dict[str, Any]:
    files = [os.memfd_create(name) for name in ("out", "err", "counts")]
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_the_command(asked, *files)
    code, usage = _ended(child, begun + asked["seconds"])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started and left
    texts = [_whole(file) for file in files]
    calls, failed = json.loads(texts[2] or "[0, 0]")
    return {
        "code": code,
        "out": texts[0],
        "err": texts[1],
        "calls": calls,
        "failed": failed,
        "seconds": time.monotonic() - begun,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def _ended(child: int, end: float) -> tuple[int | None, resource.struct_rusage]:
    waited = 0.001
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), usage
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            return None, os.wait4(child, 0)[2]
        time.sleep(waited)
        waited = min(0.02, waited * 1.3)


def _whole(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(file, "rb") as content:
        return content.read().decode("utf-8", "replace")


def _be_the_command(asked: dict[str, Any], out: int, err: int, counts: int) -> None:
    code = 70
    try:
        os.setsid()
        os.dup2(os.open(asked["output"], os.O_WRONLY) if asked["output"] else out, 1)
        os.dup2(err, 2)
        os.environ.update(asked["variables"])
        os.chdir(asked["folder"])
        if asked["memory"]:
            resource.setrlimit(resource.RLIMIT_DATA, (asked["memory"], asked["memory"]))
        if asked["fault"]:
            Fault(**asked["fault"] | {"folder": Path(asked["fault"]["folder"])}).arm()
        code = _code_of(asked)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        found = counted()
        ctypes.CDLL(None).faulty_arm(
            b"", ctypes.c_long(0), 0, 0, 0, 0, ctypes.c_long(0), ctypes.c_long(0), b""
        )
        os.write(counts, json.dumps(found).encode())
        os._exit(code)


def _code_of(asked: dict[str, Any]) -> int:
    from autotuner.cli import main

    atexit.unregister(Forks.close)
    try:
        if "call" in asked:
            module, name = asked["call"].split(":")
            getattr(importlib.import_module(module), name)(*asked["arguments"])
        else:
            main(asked["arguments"])
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        sys.stderr.write(f"{error.code}\n")
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve(heavy="heavy" in sys.argv)
