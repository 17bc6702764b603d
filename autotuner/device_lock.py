"""One measurer on a device at any time: the machine's file lock first, then the lease in the store."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from autotuner.errors import AutotuneError
from autotuner.machine.nvidia import visible_gpu
from autotuner.machine.process import Owner
from autotuner.paths import data_folder
from storage.errors import StorageError
from storage.records import LeaseRecord
from storage.repository import Repository

TTL_SECONDS = 30.0
"""How long a lease outlives its last heartbeat, and so how long a killed holder blocks the next one."""
_BEATS_PER_TTL, _POLL_SECONDS = 3, 0.5
Say = Callable[[str], None]
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def device_id(device: str) -> str:
    """What a lease is for: the CPUs of this machine (``cpu``), or the card that ``cuda`` means here.

    The kernel's boot id names the machine: containers on one machine share it, their host names differ.
    """
    try:
        machine = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        machine = os.uname().nodename
    return f"{machine[:13]}/{_unit(device)}"


def _unit(device: str) -> str:
    """What of this machine one run at a time may measure on."""
    return f"cuda-{visible_gpu().uuid}" if device == "cuda" else device


class Lease:
    """A lease with its heartbeat. ``check`` raises once it is lost."""

    def __init__(self, records: Repository, lease: LeaseRecord, ttl_seconds: float) -> None:
        self._records = records
        self._lease: LeaseRecord | None = lease
        self._ttl_seconds = ttl_seconds
        self._one_at_a_time = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="autotune-lease", daemon=True)
        self._thread.start()

    @property
    def token(self) -> int | None:
        """The fencing token, larger than every one before it; None once the lease is lost."""
        return None if self._lease is None else self._lease.token

    def check(self) -> None:
        """Return while the lease is ours. Raises ``AutotuneError`` when another holder may have it.

        One that ran out while the store could not be reached is taken again, once that is back, unless another holder
        had it meanwhile. Raises ``StorageError`` when the store stays away.
        """
        while (lease := self._lease) is not None and lease.expires_at <= datetime.now(UTC):
            self._prolong()
        if lease is None:
            raise AutotuneError(
                "the lease on the device was lost, so nothing more is measured or stored; run again to go on"
            )

    def release(self) -> None:
        """End the lease at once, so that the next holder need not wait; safe to call twice."""
        self._stopped.set()
        self._thread.join(timeout=self._ttl_seconds)
        lease, self._lease = self._lease, None
        if lease is not None:
            with contextlib.suppress(StorageError):  # then it ends by itself
                self._records.release_lease(lease, datetime.now(UTC))

    def _beat(self) -> None:
        while not self._stopped.wait(self._ttl_seconds / _BEATS_PER_TTL):
            if self._lease is None:
                return
            with contextlib.suppress(StorageError):  # a busy store: the next beat may come through in time
                self._prolong()

    def _prolong(self) -> None:
        with self._one_at_a_time:
            lease, now = self._lease, datetime.now(UTC)
            if lease is None:
                return
            self._lease = self._records.renew_lease(lease, now, self._ttl_seconds)
            if self._lease is None and lease.expires_at <= now:
                self._lease = self._taken_again(lease)

    def _taken_again(self, lease: LeaseRecord) -> LeaseRecord | None:
        """A lease that follows ``lease`` directly, None where another holder came between."""
        now = datetime.now(UTC)
        again = self._records.acquire_lease(lease.device, lease.owner, now, self._ttl_seconds)
        if again is None or again.token == lease.token + 1:
            return again
        self._records.release_lease(again, now)
        return None


@contextlib.contextmanager
def held_lease(
    records: Repository, device: str, *, seconds: float, say: Say, ttl_seconds: float = TTL_SECONDS
) -> Iterator[Lease]:
    """Hold the lease on ``device`` inside the block; waits up to ``seconds`` for another holder.

    A holder whose process is gone from this machine is not waited for. Raises ``AutotuneError`` when the lease
    is not free by then, ``StorageError`` when the store fails.
    """
    owner = json.dumps(Owner.current().to_dict())
    end, said = time.monotonic() + seconds, False
    while (record := records.acquire_lease(device, owner, datetime.now(UTC), ttl_seconds)) is None:
        holder, process = _holder(records, device)
        if holder is not None and process is not None and process.is_alive() is False:
            records.release_lease(holder, datetime.now(UTC))
            continue
        name = "another process" if process is None else f"process {process.pid} on {process.host}"
        if time.monotonic() >= end:
            raise AutotuneError(
                f"{name} has been measuring on this device for {seconds:.0f} s; try again later"
            )
        if not said:
            say(f"waiting: {name} is measuring on this device")
            said = True
        time.sleep(min(_POLL_SECONDS, max(0.0, end - time.monotonic())))
    lease = Lease(records, record, ttl_seconds)
    try:
        yield lease
    finally:
        lease.release()


def _holder(records: Repository, device: str) -> tuple[LeaseRecord | None, Owner | None]:
    """The lease on ``device`` and its process, each None when it is not known."""
    lease = next((each for each in records.leases(datetime.now(UTC)) if each.device == device), None)
    try:
        return lease, Owner.from_dict(json.loads(lease.owner)) if lease else None
    except ValueError:
        return lease, None


@contextlib.contextmanager
def measure_alone(records: Repository, device: str, *, seconds: float, say: Say) -> Iterator[Lease]:
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
    # The locks go with their process, however that ends.
    end, said = time.monotonic() + seconds, False
    with contextlib.ExitStack() as held:
        for acquire in _locks(device):
            try:
                held.enter_context(acquire(0))
            except filelock.Timeout:
                if not said:
                    say(f"waiting: another autotune run is measuring on {device}")
                    said = True
                try:
                    held.enter_context(acquire(max(0.0, end - time.monotonic())))
                except filelock.Timeout:
                    raise AutotuneError(
                        f"another autotune run has been measuring on {device} for {seconds:.0f} s; try again later"
                    ) from None
        yield


def _locks(device: str) -> list[Callable[[float], AbstractContextManager[Any]]]:
    """What a run on ``device`` holds, in this order.

    Kernels are launched by CPUs: a run on a GPU shares them with runs on other cards, and with none on the CPUs.
    """
    folder = data_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    cpus = filelock.ReadWriteLock(folder / "measuring-cpus.lock", is_singleton=False)
    if device == "cpu":
        return [cpus.acquire_write]
    return [filelock.FileLock(folder / f"measuring-{_unit(device)}.lock").acquire, cpus.acquire_read]
