"""How many CPU threads this process computes with: a number once set, else torch's own within a container's quota."""

from __future__ import annotations

import os
import warnings

import torch

from toto_core.container import container_limits

_set: list[int] = []


def set_threads(count: int | None) -> None:
    """Compute with ``count`` threads from now on, unless the process has another count already: that warns.

    None leaves torch's own choice, but for a container's quota: torch counts the machine's CPUs, and threads
    beyond the quota would stop each other at every barrier.
    """
    if count is None:
        _keep_to_quota()
        return
    if torch.get_num_threads() == count:
        return
    if _set:
        told = f"this process already runs {_set[0]} threads; settings for {count} hold after a restart"
        warnings.warn(told, RuntimeWarning, stacklevel=3)
        return
    torch.set_num_threads(count)
    _set.append(count)


def _keep_to_quota() -> None:
    if _set or "OMP_NUM_THREADS" in os.environ or "MKL_NUM_THREADS" in os.environ:
        return  # somebody chose a number
    cpus = container_limits().cpus
    if cpus is not None and cpus < torch.get_num_threads():
        torch.set_num_threads(cpus)
