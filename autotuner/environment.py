"""``Environment``: the fingerprint of what a measurement depends on, computed without importing torch."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotuner.errors import UsageError
from autotuner.machine.engine_versions import TOTO1, engine_name, engine_text
from autotuner.machine.nvidia import visible_gpu
from autotuner.machine.packages import installed_version
from toto_core.container import container_limits

LABEL_VARIABLE = "AUTOTUNE_ENVIRONMENT_LABEL"
"""Tells apart machines that look alike to ``Environment`` and are not, such as two coolings of one server."""
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_BESIDE, _LABELLED = " beside ", ", labelled "
_LONGEST_FACT, _MOST_THREADS = 1_000, 1_000_000
_CPUINFO = Path("/proc/cpuinfo")
_MEMORY_SHARE, _MEMORY_MOST = 0.6, 8 << 30
_CPU_FIELDS = ("vendor_id", "cpu family", "model", "model name", "stepping", "CPU implementer", "CPU part")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where something was measured; two environments are the same only when every field is.

    ``hardware`` names the model in full (family, model and stepping of a CPU; PCI id of a GPU), because one
    marketing name covers several chips, and ends with the machine's label where it has one. ``isa`` is a digest of
    the CPU's instruction-set flags, ``engine`` the text of ``machine.engine_versions.engine_text``.
    """

    device: str
    hardware: str
    isa: str
    driver: str
    torch: str
    engine: str
    threads: int

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over every field."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def machine(self) -> str:
        """What stays when drivers and packages are upgraded, whichever of its devices is used: its CPU and label."""
        return self.hardware.rpartition(_BESIDE)[2]

    @property
    def label(self) -> str | None:
        """What its machine is called, None where it has no label."""
        return self.hardware.rpartition(_LABELLED)[2] if _LABELLED in self.hardware else None

    def is_but_for_its_engine(self, other: Environment) -> bool:
        """Whether every other field is the same."""
        return dataclasses.replace(self, engine=other.engine) == other

    def here_for(self, there: Environment) -> Environment:
        """This machine's environment for the engine of ``there``, whose measurements it may be compared with."""
        name = engine_name(there.engine)
        return (
            self if name == engine_name(self.engine) else dataclasses.replace(self, engine=engine_text(name))
        )

    def differences(self, other: Environment) -> tuple[str, ...]:
        """Each field that differs, as ``"torch: 2.12.0 there, 2.13.0 here"`` (``other`` is there)."""
        if self == other:  # as nearly always
            return ()
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return tuple(
            f"{name}: {theirs[name]} there, {mine[name]} here" for name in mine if mine[name] != theirs[name]
        )

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Environment:
        """The inverse of ``dataclasses.asdict``. Raises ``TypeError`` for other fields and for values of other kinds.

        What differs between environments is told in logs and on command lines: texts are short and printable.
        """
        found = cls(**fields)
        for name, value in vars(found).items():
            if name == "threads":
                if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_THREADS:
                    raise TypeError(f"{name} must be a whole number from 1 to {_MOST_THREADS}")
            elif not isinstance(value, str) or len(value) > _LONGEST_FACT or not value.isprintable():
                raise TypeError(f"{name} must be printable text of at most {_LONGEST_FACT} characters")
        return found


@functools.cache
def current_environment(device: str = "cpu", engine: str = TOTO1) -> Environment:
    """The environment of this machine for ``device`` (``cpu`` or ``cuda``) and the engine of that name.

    Raises ``UsageError`` for a label that is none.
    """
    cpu = _cpu_facts()
    flags = sorted((cpu.get("flags") or cpu.get("Features") or "").split())
    hardware, driver, torch = _cpu_identity(cpu), "", installed_version("torch") or "not installed"
    if device == "cuda":  # what launches the kernels counts too
        gpu = visible_gpu()
        hardware, driver = f"{gpu.model}{_BESIDE}{hardware}", gpu.driver
        torch = f"{torch} for CUDA {_cuda_build()}"
    label = environment_label()
    if label is not None:  # within a fact that there is, so that earlier versions read what is stored
        hardware = f"{hardware}{_LABELLED}{label}"
    return Environment(
        device=device,
        hardware=hardware,
        isa=hashlib.sha256(" ".join(flags).encode()).hexdigest()[:12],
        driver=driver,
        torch=torch,
        engine=engine_text(engine),
        threads=available_threads(),
    )


def environment_label(environ: Mapping[str, str] | None = None) -> str | None:
    """What ``AUTOTUNE_ENVIRONMENT_LABEL`` calls this machine, None where it does not. Raises ``UsageError``."""
    label = (os.environ if environ is None else environ).get(LABEL_VARIABLE)
    if not label:
        return None
    if not _LABEL.fullmatch(label):
        raise UsageError(
            f"{LABEL_VARIABLE}={label!a}: a label has 1 to 63 letters, digits and ._- between letters or digits"
        )
    return label


def has_fp16_units() -> bool:
    """Whether this CPU multiplies fp16 matrices in hardware, as torch's oneDNN asks before it does.

    Elsewhere fp16 is emulated, slower than fp32.
    """
    return bool({"avx512_fp16", "amx_fp16"} & set(_cpu_facts().get("flags", "").split()))


def reachable_cpus() -> int:
    """CPUs this process may run on, however little of their time it gets."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


def available_threads() -> int:
    """CPUs this process has: those it may run on, at most as many as a container's quota is worth."""
    cpus, quota = reachable_cpus(), container_limits().cpus
    return cpus if quota is None else min(cpus, quota)


def spare_threads(available: int | None = None) -> int:
    """CPU threads that a tuned process may use unless told otherwise: all CPUs but one, at least one.

    Of a machine where ``available`` are, this one unless given.

    A process that wants them all waits at every barrier as soon as anyone else runs: ten-fold stalls were
    measured beside one busy neighbour (docs/decisions/0010-leave-one-cpu.md).
    """
    return max(1, (available or available_threads()) - 1)


def spare_memory() -> int:
    """Bytes that a tuned process may hold unless told otherwise: 60 % of the machine or container, at most 8 GiB."""
    import psutil

    machine = psutil.virtual_memory().total
    memory = min(machine, container_limits().memory_bytes or machine)
    return min(_MEMORY_MOST, int(memory * _MEMORY_SHARE))


def _cpu_facts() -> dict[str, str]:
    """What the kernel says of the first CPU; the others are not read, because each takes it a while."""
    facts = {}
    try:
        with _CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line == "\n":
                    break
                name, _, value = line.partition(":")
                facts[name.strip()] = value.strip()
    except OSError:
        import platform

        return {"model name": platform.processor() or platform.machine()}
    return facts


def _cpu_identity(facts: Mapping[str, str]) -> str:
    return " / ".join(facts[field] for field in _CPU_FIELDS if facts.get(field)) or os.uname().machine


def _cuda_build() -> str:
    """The CUDA release that the installed torch was built with, ``none`` for a build without."""
    for folder in sys.path:
        try:
            lines = Path(folder, "torch", "version.py").read_text(encoding="utf-8")
        except OSError:
            continue
        found = re.search(r"^cuda\b[^=]*=\s*'([^']+)'", lines, re.MULTILINE)
        return found[1] if found else "none"
    return "none"
