"""Which GPU ``cuda`` means here, and what the driver says of it; needs no torch.

Read through NVML (the package nvidia-ml-py) where it is installed, else from the driver's own files, which say less.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROC = Path("/proc/driver/nvidia")
_PCI = Path("/sys/bus/pci/devices")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One card, or one slice of it.

    ``uuid`` tells it from every other card of the world; ``model`` holds what speed depends on: name, PCI id, compute
    capability and memory. ``driver`` is the driver's version with the CUDA release it supports.
    """

    uuid: str
    model: str
    driver: str


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """Clock of the multiprocessors in MHz, None while it is idle, and ids of the processes that compute on it."""

    clock_mhz: float | None
    processes: frozenset[int]


NO_GPU = Gpu(uuid="none", model="none", driver="none")


def visible_gpu(environ: Mapping[str, str] = os.environ) -> Gpu:
    """The card that ``cuda`` means to this process, ``NO_GPU`` when there is none; never raises.

    ``CUDA_VISIBLE_DEVICES`` chooses it: by number, in the order of the bus, or by UUID, a slice of a card included.
    """
    found = _from_nvml(environ)
    return found if found is not None else _from_driver_files(environ)


def gpu_state(environ: Mapping[str, str] = os.environ) -> GpuState | None:
    """What that card does now, None where NVML cannot tell."""
    with _nvml() as nvml:
        if nvml is None:
            return None
        try:
            handle = _handle(nvml, environ)
            running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            idle = (
                nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) & nvml.nvmlClocksThrottleReasonGpuIdle
            )
            clock = None if idle else float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        except (nvml.NVMLError, ValueError):
            return None
        return GpuState(clock_mhz=clock, processes=frozenset(each.pid for each in running))


def first_visible(environ: Mapping[str, str]) -> str:
    """The first entry of ``CUDA_VISIBLE_DEVICES``, ``"0"`` when it is not set, ``""`` when it hides every card."""
    asked = environ.get("CUDA_VISIBLE_DEVICES")
    return "0" if asked is None else asked.split(",")[0].strip()


def _from_nvml(environ: Mapping[str, str]) -> Gpu | None:
    with _nvml() as nvml:
        if nvml is None:
            return None
        try:
            handle = _handle(nvml, environ)
            major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
            pci = nvml.nvmlDeviceGetPciInfo(handle)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle).total // 2**20
            cuda = nvml.nvmlSystemGetCudaDriverVersion()
            facts = (
                _text(nvml.nvmlDeviceGetName(handle)),
                f"{pci.pciDeviceId & 0xFFFF:#06x}:{pci.pciDeviceId >> 16:#06x}",
                f"sm_{major}{minor}",
                f"{memory} MiB",
            )
            return Gpu(
                uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
                model=" / ".join(facts),
                driver=f"{_text(nvml.nvmlSystemGetDriverVersion())} / CUDA {cuda // 1000}.{cuda % 1000 // 10}",
            )
        except (nvml.NVMLError, ValueError):
            return None


@contextmanager
def _nvml() -> Iterator[Any]:
    """NVML, ready, or None where it is not installed or finds no driver."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # the package is missing, or its own error for a missing driver
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def _handle(nvml: Any, environ: Mapping[str, str]) -> Any:
    """Raises ``NVMLError`` or ``ValueError`` for a card that is not there."""
    asked = first_visible(environ)
    if asked.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(asked)
    if not asked.isdigit():
        raise ValueError(f"{asked!r} names no card")
    return nvml.nvmlDeviceGetHandleByIndex(int(asked))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _from_driver_files(environ: Mapping[str, str]) -> Gpu:
    asked = first_visible(environ)
    cards = [_card(folder) for folder in sorted(_PROC.glob("gpus/*"))]
    for index, (uuid, model) in enumerate(cards):
        if asked in {str(index), uuid}:
            return Gpu(uuid=uuid, model=model, driver=_driver_version())
    return NO_GPU


def _card(folder: Path) -> tuple[str, str]:
    """UUID and model of a card, as its file in the driver's folder says."""
    try:
        lines = (folder / "information").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return facts.get("GPU UUID", folder.name), f"{facts.get('Model', 'unknown')} / {_pci_id(folder.name)}"


def _pci_id(address: str) -> str:
    try:
        vendor, model = ((_PCI / address / name).read_text().strip() for name in ("vendor", "device"))
    except OSError:
        return "PCI id unknown"
    return f"{vendor}:{model}"


def _driver_version() -> str:
    try:
        return (_PROC / "version").read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
    except (OSError, IndexError):
        return "none"
