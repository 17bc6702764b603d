"""The limits of a container, read from made trees of proc and cgroup files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.containers import V1, V2, container
from toto_core.container import ROOT_VARIABLE, ContainerLimits, container_limits

UNLIMITED = ContainerLimits()
V1_NONE = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("files", "quota", "cpus"),
    [
        ({"job/cpu.max": "200000 100000\n"}, 2.0, 2),
        ({"job/cpu.max": "50000 100000\n"}, 0.5, 1),
        ({"job/cpu.max": "250000 100000\n"}, 2.5, 3),
        ({"job/cpu.max": "1000 1000000\n"}, 0.001, 1),
        ({"job/cpu.max": "max 100000\n"}, None, None),
        ({}, None, None),
        ({"cpu.max": "150000 50000\n", "job/cpu.max": "max 100000\n"}, 3.0, 3),
        ({"cpu.max": "150000 50000\n", "job/cpu.max": "400000 100000\n"}, 3.0, 3),
        ({"cpu.max": "800000 100000\n", "job/cpu.max": "400000 100000\n"}, 4.0, 4),
        ({"other/cpu.max": "100000 100000\n"}, None, None),
    ],
)
def test_the_tightest_quota_on_the_way_up_counts_and_parts_of_cpus_are_rounded_up(
    tmp_path: Path, files: dict[str, str], quota: float | None, cpus: int | None
) -> None:
    found = container_limits(
        container(tmp_path, V2, {f"sys/fs/cgroup/{name}": files[name] for name in files})
    )

    assert (found.quota, found.cpus, found.memory_bytes) == (quota, cpus, None)


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({"job/memory.max": "1073741824\n"}, 1 << 30),
        ({"job/memory.max": "max\n", "job/memory.high": "max\n"}, None),
        ({"job/memory.max": "1073741824\n", "job/memory.high": "536870912\n"}, 1 << 29),
        ({"memory.max": "268435456\n", "job/memory.max": "1073741824\n"}, 1 << 28),
    ],
)
def test_the_tightest_memory_limit_counts_be_it_one_that_kills_or_one_that_slows_down(
    tmp_path: Path, files: dict[str, str], memory: int | None
) -> None:
    found = container_limits(
        container(tmp_path, V2, {f"sys/fs/cgroup/{name}": files[name] for name in files})
    )

    assert found == ContainerLimits(memory_bytes=memory)


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        (
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": "536870912\n",
            },
            ContainerLimits(quota=2.5, memory_bytes=1 << 29),
        ),
        (
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": V1_NONE,
            },
            UNLIMITED,
        ),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "250000\n"}, UNLIMITED),
        (
            {
                "cpu,cpuacct/inner/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/inner/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": "536870912\n",
                "memory/inner/memory.limit_in_bytes": V1_NONE,
            },
            ContainerLimits(quota=0.5, memory_bytes=1 << 29),
        ),
    ],
)
def test_a_container_of_cgroup_v1_sees_its_own_group_at_the_top_of_its_mounts(
    tmp_path: Path, files: dict[str, str], limits: ContainerLimits
) -> None:
    tree = container(tmp_path, V1, {f"sys/fs/cgroup/{name}": files[name] for name in files})

    assert container_limits(tree) == limits


def test_where_both_versions_are_mounted_each_controller_is_looked_for_in_its_own(tmp_path: Path) -> None:
    hybrid = {
        "proc/self/cgroup": "4:memory:/job\n2:cpu:/\n1:name=systemd:/job\n0::/user\n",
        "proc/self/mountinfo": (
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
            "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
            "35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
            "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        ),
    }
    files = {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "600000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "536870912\n",
        "sys/fs/cgroup/unified/user/cpu.max": "400000 100000\n",
    }

    assert container_limits(container(tmp_path, hybrid, files)) == ContainerLimits(
        quota=4.0, memory_bytes=1 << 29
    )


def test_a_group_outside_of_the_mount_has_the_limits_of_what_is_mounted(tmp_path: Path) -> None:
    came_in = V2 | {"proc/self/cgroup": "0::/../elsewhere\n"}
    limited = {"sys/fs/cgroup/cpu.max": "300000 100000\n", "sys/elsewhere/cpu.max": "100000 100000\n"}

    assert container_limits(container(tmp_path, came_in, limited)).quota == 3.0


def test_blanks_in_a_mount_point_are_no_other_place(tmp_path: Path) -> None:
    mounts = V2 | {"proc/self/mountinfo": r"30 23 0:26 / /my\040groups rw - cgroup2 cgroup2 rw" + "\n"}

    assert container_limits(container(tmp_path, mounts, {"my groups/job/cpu.max": "2 1\n"})).quota == 2.0


@pytest.mark.parametrize(
    "text", ["", "nonsense\n", "1 2 3\n", "-5 100000\n", "0 0\n", "٣ 1\n", f"{'9' * 5000} 1\n"]
)
def test_files_that_say_nothing_limit_nothing(tmp_path: Path, text: str) -> None:
    names = ("cpu.max", "memory.max", "memory.high")
    tree = container(tmp_path, V2, {f"sys/fs/cgroup/job/{name}": text for name in names})

    assert container_limits(tree) == UNLIMITED


@pytest.mark.parametrize("name", ["proc/self/cgroup", "proc/self/mountinfo", "sys/fs/cgroup/job/cpu.max"])
def test_a_tree_that_cannot_be_read_limits_nothing(tmp_path: Path, name: str) -> None:
    file = container(tmp_path, V2, {"sys/fs/cgroup/job/cpu.max": "1 1\n"}) / name
    file.write_bytes(b"\xff\xfe 1 \x00 ::: - cgroup2\n")
    assert container_limits(tmp_path) == UNLIMITED
    file.unlink()
    assert container_limits(tmp_path) == UNLIMITED
    file.mkdir()
    assert container_limits(tmp_path) == UNLIMITED


def test_the_variable_says_where_the_tree_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    assert container_limits() == UNLIMITED
    container(tmp_path, V2, {"sys/fs/cgroup/job/cpu.max": "700000 100000\n"})
    assert container_limits().cpus == 7


def test_a_table_that_names_a_mount_a_thousand_times_is_read_as_if_it_named_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = "/".join(["job"] * 100)
    mount = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
    files = {"proc/self/cgroup": f"0::/{job}\n", f"sys/fs/cgroup/{job}/cpu.max": "200000 100000\n"}
    read: list[Path] = []
    real = Path.read_text

    def read_text(path: Path, encoding: str) -> str:
        read.append(path)
        return real(path, encoding=encoding)

    monkeypatch.setattr(Path, "read_text", read_text)
    for times in (1, 1_000):
        root = container(tmp_path / str(times), {**files, "proc/self/mountinfo": mount * times}, {})
        assert container_limits(root).cpus == 2
    once, often = (len([path for path in read if path.is_relative_to(tmp_path / str(n))]) for n in (1, 1_000))
    assert often == once
