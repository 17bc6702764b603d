"""Made trees of proc and cgroup files, as a process in a container sees them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

V2 = {
    "proc/self/cgroup": "0::/job\n",
    "proc/self/mountinfo": (
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    ),
}
"""A process in the group ``job`` of a host with cgroup v2."""
V1 = {
    "proc/self/cgroup": "9:memory:/docker/c0ffee/inner\n4:cpu,cpuacct:/docker/c0ffee/inner\n",
    "proc/self/mountinfo": (
        "32 31 0:29 /docker/c0ffee /sys/fs/cgroup/cpu,cpuacct ro master:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 /docker/c0ffee /sys/fs/cgroup/memory ro master:12 - cgroup cgroup rw,memory\n"
    ),
}
"""A process in the group ``inner`` of a container on a host with cgroup v1."""


def container(folder: Path, *parts: Mapping[str, str]) -> Path:
    """Write the files of all ``parts`` below ``folder``, and return it."""
    for part in parts:
        for name, text in part.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return folder


def limited(folder: Path, *, cpus: float, memory_bytes: int) -> Path:
    """The tree of a container with a quota and a memory limit."""
    return container(
        folder,
        V2,
        {
            "sys/fs/cgroup/job/cpu.max": f"{int(cpus * 100_000)} 100000\n",
            "sys/fs/cgroup/job/memory.max": f"{memory_bytes}\n",
        },
    )
