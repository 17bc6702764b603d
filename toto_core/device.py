"""All that depends on the device: choosing it, waiting for it, reading its memory; no GPU code stands elsewhere."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from toto_core.settings import CUDA_GRAPH_MODES

_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What torch says of memory where it raises a plain ``RuntimeError``."""


class DeviceError(ValueError):
    """The device cannot be used; the message is one line."""


def resolve_device(name: str) -> torch.device:
    """``cpu``, ``cuda``, ``cuda:0`` or ``auto`` to a device. Raises ``DeviceError`` when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"device {name!r} is not known; use cpu or cuda") from None
    if device.type not in {"cpu", "cuda"}:
        raise DeviceError(f"device {name!r} is not supported; use cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda was asked for, but torch sees no CUDA device here; use --device cpu")
    return device


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished what was asked of it; on a CPU it always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def records_graphs(device: torch.device, compile_mode: str) -> bool:
    """Whether torch is to record CUDA graphs, which it does in these modes and on these devices alone."""
    return device.type == "cuda" and compile_mode in CUDA_GRAPH_MODES


def begin_call() -> None:
    """Tell CUDA graphs that the outputs of earlier calls are no longer needed; imports torch's compiler."""
    mark_step: Callable[[], None] = torch.compiler.cudagraph_mark_step_begin  # torch leaves it untyped
    mark_step()


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on the device; from pinned memory nothing waits for the copy."""
    return tensor.to(device, non_blocking=True)


def can_pin(device: torch.device) -> bool:
    """Whether memory that is sent to ``device`` is better pinned."""
    return device.type == "cuda"


def owned(tensor: Tensor) -> Tensor:
    """A copy on the CPU: a CUDA graph overwrites its outputs at the next call."""
    return tensor.cpu() if tensor.device.type == "cuda" else tensor


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of the GPU or of the machine, ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)


def free_memory(device: torch.device) -> None:
    """Give back what torch's allocator keeps of a GPU's memory for later; on a CPU it keeps nothing."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_bytes(device: torch.device) -> int:
    """Most bytes used so far: of this process's resident memory on a CPU; on a GPU what torch reserved there.

    What the driver needs for the process itself, some hundreds of MB, is not torch's and not counted.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:  # getrusage would count what the parent held when it started this process
        with Path("/proc/self/status").open(encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
