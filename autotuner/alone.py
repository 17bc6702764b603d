"""One measurer on a device at any time: the machine's file lock first, then the lease in the store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import filelock

from autotuner.errors import AutotuneError
from autotuner.lease import Lease, device_id, held_lease
from autotuner.locations import data_folder
from storage.repository import Repository

Say = Callable[[str], None]


@contextlib.contextmanager
def alone(records: Repository, device: str, *, seconds: float, say: Say) -> Iterator[Lease]:
    """Measure alone on ``device`` inside the block; waits up to ``seconds`` for whoever measures now.

    The file lock keeps out other stores of this machine, the lease whoever else uses this store. Raises
    ``AutotuneError`` when the device is not free by then, ``StorageError`` when the store fails.
    """
    end = time.monotonic() + seconds
    with _file_lock(device, seconds=seconds, say=say):
        left = max(0.0, end - time.monotonic())
        with held_lease(records, device_id(device), seconds=left, say=say) as lease:
            yield lease


@contextlib.contextmanager
def _file_lock(device: str, *, seconds: float, say: Say) -> Iterator[None]:
    # The lock goes with its process, however that ends.
    folder = data_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / f"measuring-{device}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"waiting: another autotune run is measuring on {device}")
        try:
            lock.acquire(timeout=seconds)
        except filelock.Timeout:
            raise AutotuneError(
                f"another autotune run has been measuring on {device} for {seconds:.0f} s; try again later"
            ) from None
    try:
        yield
    finally:
        lock.release()
