"""What a container allows this process: CPUs by quota and bytes of memory, read from cgroups v1 and v2."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

ROOT_VARIABLE = "AUTOTUNE_SYSTEM_ROOT"
"""Names the folder that holds ``proc`` and the cgroup mounts, ``/`` unless set; an empty folder limits nothing."""
_NO_MEMORY_LIMIT = 1 << 60
"""A v1 group without a limit says the largest number of whole pages, which is close to 2**63."""
_MOST_GROUPS = 5_000
"""Folders that are looked at: a process is in a dozen, a table of mounts may name one of them a thousand times."""
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, kw_only=True)
class ContainerLimits:
    """The tightest limits of this process's cgroups and their ancestors, None for no limit.

    ``quota`` is CPU seconds per second. ``memory_bytes`` is what all processes of a group may hold together
    before the kernel kills one (``memory.max``) or slows all of them down (``memory.high``).
    """

    quota: float | None = None
    memory_bytes: int | None = None

    @property
    def cpus(self) -> int | None:
        """The quota as a number of CPUs: rounded up, at least one.

        As the JDK (``CgroupUtil::processor_count``), Go 1.25 (``adjustCgroupGOMAXPROCS``), .NET, and loky for
        joblib (``_cpu_count_cgroup``) round; CPython's ``os.process_cpu_count`` knows no quotas.
        """
        return None if self.quota is None else max(1, math.ceil(self.quota))


def container_limits(root: Path | None = None) -> ContainerLimits:
    """What limits this process now, as ``proc`` and the cgroup mounts below ``root`` tell it.

    ``root`` is ``$AUTOTUNE_SYSTEM_ROOT``, else ``/``. Never raises: what cannot be read limits nothing.
    """
    every = _groups(root or Path(os.environ.get(ROOT_VARIABLE) or "/"))
    groups = list(dict.fromkeys(islice(every, _MOST_GROUPS)))
    quotas, memories = map(_quota, groups), map(_memory_bytes, groups)
    return ContainerLimits(
        quota=min((quota for quota in quotas if quota), default=None),
        memory_bytes=min((memory for memory in memories if memory), default=None),
    )


def _quota(group: Path) -> float | None:
    words = _text(group / "cpu.max").split() or [
        _text(group / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    ]
    match [_whole(word) for word in words]:
        case [int(quota), int(period)] if period:
            return quota / period
    return None


def _memory_bytes(group: Path) -> int | None:
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    found = (_whole(_text(group / name)) for name in names)
    return min((limit for limit in found if limit and limit < _NO_MEMORY_LIMIT), default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the process's groups and their ancestors, as far up as they are mounted."""
    own = _own_paths(root)
    for controllers, top, mount in _mounts(root):
        for path in {own[controller] for controller in controllers if controller in own}:
            inside = PurePosixPath(path)
            # what lies outside of a mount, as of a process that came into a container, has its limits at the top
            known = inside.is_relative_to(top) and ".." not in inside.parts
            group = mount / inside.relative_to(top) if known else mount
            yield from (group, *(folder for folder in group.parents if folder.is_relative_to(mount)))


def _own_paths(root: Path) -> dict[str, str]:
    """The group of this process by controller, that of v2 under an empty name (``man 7 cgroups``)."""
    fields = (line.split(":", 2) for line in _text(root / "proc/self/cgroup").splitlines())
    return {name: line[2] for line in fields if len(line) == 3 for name in line[1].split(",")}


def _mounts(root: Path) -> Iterator[tuple[list[str], str, Path]]:
    """Every mounted hierarchy: its controllers, the group that is its top, and where (``man 5 proc``)."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        about, _, kind = line.partition(" - ")
        match about.split(), kind.split():
            case [_, _, _, top, mount, *_], ["cgroup2", *_]:
                yield [""], _plain(top), root / _plain(mount).lstrip("/")
            case [_, _, _, top, mount, *_], ["cgroup", _, options]:
                limiting = [name for name in options.split(",") if name in {"cpu", "memory"}]
                yield limiting, _plain(top), root / _plain(mount).lstrip("/")


def _plain(escaped: str) -> str:
    """A path without the octal escapes that stand for blanks in it."""
    return _ESCAPED.sub(lambda code: chr(int(code[1], 8)), escaped)


def _whole(word: str) -> int | None:
    """A number from 0 on; None for ``max``, for the -1 of v1, and for what is no number."""
    word = word.strip()
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 20 else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):  # not there, not ours to read, or no text
        return ""
