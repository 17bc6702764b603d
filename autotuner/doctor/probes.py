"""Examines this machine for the doctor: torch and the compiler in child processes, the rest in /proc."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from autotuner.doctor import checks
from autotuner.doctor.checks import Check, Compiler, Neighbour, Torch
from autotuner.environment import current_environment, reachable_cpus, spare_memory
from autotuner.machine.nvidia import visible_gpu
from storage.sqlite_files import journal_mode
from toto_core.container import container_limits
from toto_core.held_folders import held_folder

_CHILD_SECONDS = 30.0
_WATCH_SECONDS = 0.3
_PROBE = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda or ""}
if torch.cuda.is_available():
    card = torch.cuda.get_device_properties(0)
    found |= {"gpu": card.name, "multiprocessors": card.multi_processor_count}
print(json.dumps(found))
"""
_PLAIN = """#include <cmath>
#include <vector>
extern "C" double check(double x) { std::vector<double> all(3, x); return std::sqrt(all[0]); }
"""
_OPENMP = f"""#include <omp.h>
{_PLAIN}extern "C" int threads() {{ return omp_get_max_threads(); }}
"""


def machine_checks(environ: Mapping[str, str]) -> tuple[Check, ...]:
    """All checks of the machine, in a fixed order."""
    load = checks.check_load(os.getloadavg()[0], reachable_cpus(), busiest_neighbour())
    with ThreadPoolExecutor() as pool:
        imported = pool.submit(probe_torch)
        compiler, torch = probe_compiler(environ), imported.result()
    gpu, release, limits = current_environment("cuda"), os_release(), container_limits()
    return (
        checks.check_python(sys.version_info[:3]),
        checks.check_torch(gpu.torch, torch),
        checks.check_compiler(compiler, release, sys.platform),
        checks.check_openmp(compiler, release, sys.platform),
        checks.check_headers(Path(sysconfig.get_path("include")), release, sys.platform),
        checks.check_device(current_environment("cpu").hardware, visible_gpu().model, torch),
        checks.check_threads(reachable_cpus(), limits),
        checks.check_memory(psutil.virtual_memory().total, spare_memory(), limits),
        load,
        checks.check_sqlite(sqlite3.sqlite_version_info, journal_mode(sqlite3.sqlite_version_info)),
    )


def probe_torch(python: str = sys.executable) -> Torch:
    """Import torch in a process of its own, so that whatever that does ends with it."""
    # -P: a torch.py in the working folder is not the torch that a command imports
    output, problem = _run([python, "-P", "-c", _PROBE], _last_line)
    if problem:
        return Torch(problem=problem)
    try:
        return Torch(**json.loads(output))
    except (TypeError, ValueError):
        return Torch(problem=f"it printed {output.strip()[:60]!a}")


def probe_compiler(environ: Mapping[str, str]) -> Compiler:
    """Compile a small file with the compiler that torch 2.13 would call (``torch/_inductor/cpp_builder.py``)."""
    command = environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    openmp_problem = compile_with(command, _OPENMP, *_openmp_flags(environ))
    problem = openmp_problem and compile_with(command, _PLAIN)
    return Compiler(
        command=command,
        from_variable="CXX" in environ,
        problem=problem,
        openmp_problem=openmp_problem,
        others=tuple(name for name in ("g++", "clang++") if name != command and shutil.which(name)),
    )


def compile_with(command: str, source: str, *flags: str) -> str:
    """Compile ``source`` to a library in a temporary folder; the reason when that fails, else nothing."""
    with held_folder() as folder:
        file, library = folder / "check.cpp", folder / "check.so"
        file.write_text(source, encoding="utf-8")
        arguments = ["-std=c++20", "-shared", "-fPIC", str(file), "-o", str(library), *flags]
        # CXX is one command: torch does not split it either
        return _run([command, *arguments], _first_error)[1]


def busiest_neighbour(seconds: float = _WATCH_SECONDS) -> Neighbour | None:
    """The process, other than this one, that used most CPU time within ``seconds``; None for none at all."""
    before, started = _cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    after, wall = _cpu_seconds(), time.monotonic() - started
    used = [
        Neighbour(name=name, pid=pid, cpus=max(0.0, (spent - before[pid][1]) / wall))
        for pid, (name, spent) in after.items()
        if pid in before and before[pid][0] == name
    ]
    return max(used, key=lambda neighbour: neighbour.cpus, default=None)


def os_release() -> dict[str, str]:
    """The fields of os-release, none on a system without it."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _openmp_flags(environ: Mapping[str, str]) -> tuple[str, ...]:
    if sys.platform != "darwin":
        return ("-fopenmp",)
    named = [environ[name] for name in ("OMP_PREFIX", "CONDA_PREFIX") if name in environ]
    for prefix in map(Path, (*named, "/opt/homebrew/opt/libomp", "/usr/local/opt/libomp")):
        if (prefix / "include" / "omp.h").is_file():
            return ("-Xclang", "-fopenmp", f"-I{prefix / 'include'}", f"-L{prefix / 'lib'}", "-lomp")
    return ("-Xclang", "-fopenmp", "-lomp")


def _run(command: Sequence[str], choose: Callable[[str], str]) -> tuple[str, str]:
    """Standard output of a child, and the line of its standard error that says why it failed."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_CHILD_SECONDS,
            check=False,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"LC_ALL": "C"},
        )
    except FileNotFoundError:
        return "", "no such command"
    except subprocess.TimeoutExpired:
        return "", f"did not end within {_CHILD_SECONDS:.0f} s"
    except (OSError, ValueError) as error:
        return "", f"cannot be run ({error})"
    if done.returncode == 0:
        return done.stdout, ""
    return "", choose(done.stderr) or f"ended with {done.returncode} and no reason"


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = (line.partition("error:")[2].strip() for line in lines if "error:" in line)
    return next(errors, lines[0] if lines else "")[:200]


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")[:200]


def _cpu_seconds() -> dict[int, tuple[str, float]]:
    found = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None and process.pid != os.getpid():
            found[process.pid] = (process.info["name"] or "?", times.user + times.system)
    return found
