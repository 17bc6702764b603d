"""Judges whether a machine has what tuning needs: pure checks, each with what was found and how to fix it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toto_core.container import ContainerLimits

Severity = Literal["essential", "warning"]
Part = Literal["compiler", "headers", "openmp"]

PYTHON, TORCH, TORCH_RELEASES = (3, 11), "2.13", range(9, 16)  # as in pyproject.toml; 2.9 to 2.15
BUSY_SHARE = 0.15
"""CPUs in use by another process from which the timed rounds of a trial count as disturbed."""
COMPILING_BYTES = 1 << 30
"""Compiling toto-mini was seen to fail within 0.6 GiB, and to succeed within 1.2."""
TEMPLATE_MULTIPROCESSORS = 68
"""Below it max-autotune has no templates for matrix products (``is_big_gpu`` in ``torch/_inductor/utils.py``)."""
_FAILS = "compiled settings will fail"

# os-release's ID or ID_LIKE to how packages are installed, and the names of g++ and of Python's headers
_PACKAGES = {
    "debian": ("apt-get install", "g++", f"python{sys.version_info[0]}.{sys.version_info[1]}-dev"),
    "fedora": ("dnf install", "gcc-c++", "python3-devel"),
    "suse": ("zypper install", "gcc-c++", "python3-devel"),
    "arch": ("pacman -S", "gcc", "python"),
    "alpine": ("apk add", "g++", "python3-dev"),
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one check found; ``fix`` is the command or step that puts it right, empty when nothing is wrong.

    Without what is ``essential`` a machine cannot tune; a ``warning`` should be read.
    """

    name: str
    severity: Severity = "essential"
    found: str
    fix: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.fix

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, where the fix has its older name."""
        fields = dataclasses.asdict(self)
        return {"name": fields.pop("name"), "ok": self.ok, "mend": fields.pop("fix")} | fields


@dataclass(frozen=True, kw_only=True)
class Torch:
    """What a process that imported torch saw; ``problem`` is why it could not, empty when it could.

    ``multiprocessors`` are those of the GPU, 0 without one.
    """

    version: str = ""
    cuda: str = ""
    gpu: str = ""
    multiprocessors: int = 0
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """The compiler torch would call, why it could not compile, and the others that are there."""

    command: str
    from_variable: bool = False
    problem: str = ""
    openmp_problem: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """The busiest other process; ``cpus`` is its share of one CPU."""

    name: str
    pid: int
    cpus: float


def warning(name: str, found: str, fix: str) -> Check:
    """What should be read, and how to fix it; a machine can tune all the same."""
    return Check(name=name, severity="warning", found=found, fix=fix)


def essential_missing(checks: Sequence[Check]) -> bool:
    """Whether anything is missing without which this machine cannot tune."""
    return any(not check.ok and check.severity == "essential" for check in checks)


def check_python(version: Sequence[int]) -> Check:
    """Whether Python is new enough."""
    found, wanted = (".".join(map(str, numbers)) for numbers in (version, PYTHON))
    fix = "" if tuple(version[:2]) >= PYTHON else f"install Python {wanted} or newer"
    return Check(name="Python", found=found, fix=fix)


def check_torch(installed: str, torch: Torch) -> Check:
    """Whether torch is ``installed`` (its version) and a process could import it."""
    install = f"pip install 'torch=={TORCH}.*'"
    if installed == "not installed":
        return Check(name="torch", found=installed, fix=install)
    if torch.problem:
        again = install.replace("install", "install --force-reinstall", 1)
        return Check(name="torch", found=f"{installed} cannot be imported: {torch.problem}", fix=again)
    found = f"{torch.version}, {f'built for CUDA {torch.cuda}' if torch.cuda else 'built for CPUs'}"
    if torch.version.split(".")[:2] not in [["2", str(minor)] for minor in TORCH_RELEASES]:
        return warning("torch", f"{found}; not 2.{TORCH_RELEASES[0]} to 2.{TORCH_RELEASES[-1]}", install)
    return Check(name="torch", found=found)


def check_compiler(compiler: Compiler, release: Mapping[str, str], platform: str) -> Check:
    """Whether the compiler that torch calls (CXX, else g++, on macOS clang++) compiled a small file."""
    name = "C++ compiler"
    if not compiler.problem:
        return Check(name=name, found=f"{compiler.command} compiles C++20")
    fix = package_fix(release, platform, "compiler")
    if compiler.from_variable:
        fix = "unset CXX, or name one compiler's path in it"
    elif compiler.others:
        fix += f", or export CXX={compiler.others[0]}"
    return Check(name=name, found=f"{compiler.command}: {compiler.problem}; {_FAILS}", fix=fix)


def check_openmp(compiler: Compiler, release: Mapping[str, str], platform: str) -> Check:
    """Whether the compiler has OpenMP, with which torch compiles every kernel for a CPU."""
    if compiler.problem:
        return Check(name="OpenMP", found="not tried: no C++ compiler", fix="fix the C++ compiler first")
    if compiler.openmp_problem:
        fix = package_fix(release, platform, "openmp")
        return Check(name="OpenMP", found=f"{compiler.openmp_problem}; {_FAILS}", fix=fix)
    return Check(name="OpenMP", found="headers and library")


def check_headers(folder: Path, release: Mapping[str, str], platform: str) -> Check:
    """Whether Python's headers are in ``folder``: every kernel that torch compiles for a CPU includes them."""
    name, header = "Python headers", folder / "Python.h"
    if header.is_file():
        return Check(name=name, found=str(folder))
    fix = package_fix(release, platform, "headers")
    return Check(name=name, found=f"{header} is missing; {_FAILS}", fix=fix)


def check_device(cpu: str, gpu: str, torch: Torch) -> Check:
    """The CPU, and the GPU as the driver's files name it (``none`` without one) and as torch sees it."""
    if gpu == "none":
        return Check(name="device", found=f"{cpu}; no NVIDIA driver")
    if torch.gpu:
        found = f"{cpu}; {torch.gpu} with CUDA {torch.cuda}"
        if 0 < torch.multiprocessors < TEMPLATE_MULTIPROCESSORS:
            few = f"{torch.multiprocessors} multiprocessors, too few for torch's matrix templates"
            fix = f"expect little of max-autotune; it needs a card or slice with {TEMPLATE_MULTIPROCESSORS}"
            return warning("device", f"{found}; {few}", fix)
        return Check(name="device", found=found)
    fix = "see what nvidia-smi says; after a driver update reboot"
    if not torch.cuda:
        fix = "install a CUDA build of torch: https://pytorch.org/get-started/locally"
    return warning("device", f"{cpu}; {gpu}, which torch does not see", fix)


def check_threads(cpus: int, limits: ContainerLimits) -> Check:
    """The CPUs this process may run on, and what a container's quota makes of them."""
    if limits.quota is None or limits.quota >= cpus:
        return Check(name="threads", found=f"{cpus} available")
    found = f"{limits.cpus} of {cpus}: the container's quota is {limits.quota:g} CPUs"
    if limits.quota >= 1:
        return Check(name="threads", found=found)
    fix = "give the container a whole CPU (--cpus 1, or --cpuset-cpus)"
    return warning("threads", f"{found}, at which even one thread is stopped again and again", fix)


def check_memory(total: int, spare: int, limits: ContainerLimits) -> Check:
    """The bytes of memory that there are, by a container's limit if that is less, and a tuned process's share."""
    found = f"{total / 2**30:.1f} GiB"
    if limits.memory_bytes is not None and limits.memory_bytes < total:
        found = f"{limits.memory_bytes / 2**30:.1f} of {found}: the container's limit"
    found += f"; a tuned process may hold {spare / 2**30:.1f} GiB"
    if spare >= COMPILING_BYTES:
        return Check(name="memory", found=found)
    return warning("memory", f"{found}, too little to compile in", "give it 2 GiB or more, or tune elsewhere")


def check_load(load: float, threads: int, neighbour: Neighbour | None) -> Check:
    """Whether others use the CPU: the load average, and the busiest other process."""
    found = f"load average {load:.1f} on {threads} threads"
    busy = neighbour is not None and neighbour.cpus > BUSY_SHARE
    if neighbour is not None and busy:
        found += f"; {neighbour.name} (process {neighbour.pid}) takes {neighbour.cpus:.0%} of a CPU"
    if not busy and load <= max(1.0, threads / 2):
        return Check(name="load", found=found)
    return warning("load", found, "tune while the machine is quiet; timings of a busy one are noisy")


def check_sqlite(version: Sequence[int], journal: str) -> Check:
    """The SQLite library and the journal mode that is safe with it."""
    found = f"{'.'.join(map(str, version))}, journal mode {journal}"
    if journal != "WAL":
        found += ": this release can corrupt a write-ahead log, 3.51.3 and newer cannot"
    return Check(name="SQLite", found=found)


def package_fix(release: Mapping[str, str], platform: str, part: Part) -> str:
    """The command that installs ``part`` here; ``release`` are the fields of os-release."""
    if platform == "darwin":
        return "brew install libomp" if part == "openmp" else "xcode-select --install"
    family = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora", "opensuse": "suse"}
    for token in f"{release.get('ID', '')} {release.get('ID_LIKE', '')}".split():
        packages = _PACKAGES.get(family.get(token, token))
        if packages is not None:
            command, compiler, headers = packages
            return f"{command} {headers if part == 'headers' else compiler}"
    what = "Python's headers" if part == "headers" else "g++"
    return f"install {what} with this system's package manager"
