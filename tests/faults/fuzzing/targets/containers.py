"""What a container allows: files of cgroups and mounts as no kernel writes them."""

from __future__ import annotations

import functools
import random
from pathlib import Path

from tests.faults.fuzzing import mutation, scratch
from tests.faults.fuzzing.verdicts import check
from toto_core.container import container_limits

SECONDS = 0.5
_FILES = (
    "proc/self/cgroup",
    "proc/self/mountinfo",
    "sys/fs/cgroup/cpu.max",
    "sys/fs/cgroup/memory.max",
    "sys/fs/cgroup/memory.high",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us",
    "sys/fs/cgroup/memory/memory.limit_in_bytes",
)
_V1 = "".join(
    f"3{place} 25 0:2{place} / /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}\n"
    for place, name in enumerate(("cpu", "memory"))
)


def seeds() -> tuple[bytes, ...]:
    v2 = (
        "0::/user.slice/a\n",
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
        "150000 100000\n",
        "1073741824\n",
        "max\n",
        "",
        "",
        "",
    )
    v1 = (
        "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n",
        _V1,
        "",
        "",
        "",
        "50000\n",
        "100000\n",
        "268435456\n",
    )
    escaped = (v2[0], v2[1].replace("/sys/fs/cgroup ", r"/sys/fs/cg\040roup ", 1), *v2[2:])
    return tuple(mutation.joined(*(text.encode() for text in each)) for each in (v2, v1, escaped))


def mutated(data: bytes, chance: random.Random) -> bytes:
    return mutation.in_one_part(data, chance, (mutation.lines,) * len(_FILES))


def one(data: bytes) -> None:
    root = _root()
    for name, content in zip(_FILES, mutation.parts_of(data, len(_FILES)), strict=True):
        (root / name).write_bytes(content)
    limits = container_limits(root)
    check(limits.quota is None or 0 < limits.quota < float("inf"), f"a quota of {limits.quota}")
    check(limits.cpus is None or limits.cpus >= 1, f"{limits.cpus} CPUs")
    check(limits.memory_bytes is None or limits.memory_bytes > 0, f"{limits.memory_bytes} bytes")


@functools.cache
def _root() -> Path:
    root = scratch.folder("containers")
    for name in _FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    return root
