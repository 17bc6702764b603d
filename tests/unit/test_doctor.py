from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from autotuner.doctor.checks import (
    TORCH_RELEASES,
    Check,
    Compiler,
    Neighbour,
    Severity,
    Torch,
    check_compiler,
    check_device,
    check_headers,
    check_load,
    check_memory,
    check_openmp,
    check_python,
    check_sqlite,
    check_threads,
    check_torch,
    essential_missing,
    package_fix,
)
from autotuner.doctor.probes import busiest_neighbour, probe_compiler, probe_torch
from autotuner.doctor.spool_checks import check_notes, check_production
from autotuner.doctor.store_checks import check_cache, check_database, check_model, check_snapshot
from autotuner.paths import snapshot_path, spool_folder
from autotuner.record_mapping import telemetry_record
from autotuner.serving.refused import set_aside
from autotuner.serving.spool import leave_quarantine
from autotuner.store import Store
from storage.migrations import HEAD_REVISION, VERSION_TABLE
from tests.support.promoted_store import promotion
from tests.support.seen_store import quarantine
from toto_core.container import ContainerLimits
from toto_core.model_files import locate
from toto_core.settings import RuntimeSettings

DEBIAN = {"ID": "debian"}
WORKING = Compiler(command="g++")


def bad(check: Check) -> tuple[bool, Severity]:
    return check.ok, check.severity


ESSENTIAL, WARNING = (False, "essential"), (False, "warning")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    with Store(str(path)) as opened:
        opened.pin("AMD", RuntimeSettings(precision="bf16"), "a test")
    return path


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


def test_a_check_fails_exactly_when_it_says_how_to_fix_it() -> None:
    assert Check(name="torch", found="2.13.0").ok
    wrong = Check(name="torch", found="not installed", fix="pip install torch")
    assert wrong.to_dict() == {
        "name": "torch",
        "ok": False,
        "severity": "essential",
        "found": "not installed",
        "mend": "pip install torch",
    }


def test_only_what_is_essential_counts_as_missing() -> None:
    good = Check(name="a", found="there")
    warning = Check(name="b", severity="warning", found="busy", fix="wait")
    essential = Check(name="c", found="missing", fix="install it")
    assert not essential_missing((good, warning))
    assert essential_missing((good, essential))


@pytest.mark.parametrize(
    ("version", "ok"), [((3, 10, 14), False), ((3, 11, 0), True), ((3, 14, 1), True), ((4, 0, 0), True)]
)
def test_python_from_3_11_on_will_do(version: tuple[int, int, int], ok: bool) -> None:
    assert check_python(version).ok is ok


@pytest.mark.parametrize(
    ("installed", "torch", "verdict", "says"),
    [
        ("not installed", Torch(problem="ModuleNotFoundError"), ESSENTIAL, "pip install 'torch==2.13.*'"),
        ("2.13.0", Torch(problem="OSError: libgomp.so.1"), ESSENTIAL, "--force-reinstall"),
        ("2.8.1", Torch(version="2.8.1"), WARNING, "pip install 'torch==2.13.*'"),
        ("2.16.0", Torch(version="2.16.0"), WARNING, "pip install 'torch==2.13.*'"),
        ("3.13.0", Torch(version="3.13.0"), WARNING, "pip install 'torch==2.13.*'"),
        ("2.9.1", Torch(version="2.9.1+cu130", cuda="13.0"), (True, "essential"), ""),
        ("2.13.1", Torch(version="2.13.1+cu130", cuda="13.0"), (True, "essential"), ""),
    ],
)
def test_torch_must_be_there_and_importable(
    installed: str, torch: Torch, verdict: tuple[bool, Severity], says: str
) -> None:
    check = check_torch(installed, torch)
    assert bad(check) == verdict
    assert says in check.fix


def test_the_torch_releases_that_are_accepted_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    first, last = TORCH_RELEASES[0], TORCH_RELEASES[-1]

    assert f"torch>=2.{first},<2.{last + 1}" in project["dependencies"]


def test_torch_is_imported_by_a_child_that_tells_its_version() -> None:
    import torch

    found = probe_torch()
    assert found.problem == ""
    assert found.version == torch.__version__
    assert bool(found.gpu) == torch.cuda.is_available()


def test_a_torch_that_cannot_be_imported_is_told_by_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libgomp.so.1: cannot open shared object file')\n")
    monkeypatch.chdir(tmp_path)
    assert probe_torch().problem == ""  # the working folder does not count
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert probe_torch() == Torch(problem="OSError: libgomp.so.1: cannot open shared object file")


def test_a_torch_that_talks_on_standard_output_is_no_traceback(tmp_path: Path) -> None:
    assert "it printed 'hello'" in probe_torch(str(script(tmp_path / "python", "echo hello"))).problem
    assert probe_torch(str(script(tmp_path / "quiet", "exit 3"))).problem == "ended with 3 and no reason"
    assert probe_torch(str(tmp_path / "gone")).problem == "no such command"


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_usual_compiler_really_compiles() -> None:
    found = probe_compiler({"CXX": "g++"})
    assert (found.command, found.problem, found.openmp_problem) == ("g++", "", "")
    assert found.from_variable


def test_the_variable_cxx_decides_even_when_it_names_nothing(tmp_path: Path) -> None:
    found = probe_compiler({"CXX": str(tmp_path / "gone")})
    assert found.problem == "no such command"
    check = check_compiler(found, DEBIAN, "linux")
    assert bad(check) == ESSENTIAL
    assert check.fix == "unset CXX, or name one compiler's path in it"
    assert (
        probe_compiler({"CXX": "ccache g++"}).problem == "no such command"
    )  # torch does not split it either


def test_a_compiler_without_openmp_is_told_from_one_that_fails(tmp_path: Path) -> None:
    half = script(
        tmp_path / "half",
        'case "$*" in *openmp*) echo "x.cpp:1:10: fatal error: omp.h: gone" >&2; exit 1;; esac',
    )
    broken = script(tmp_path / "broken", "echo 'cc1plus: cannot be found' >&2; exit 1")
    without_openmp, failing = probe_compiler({"CXX": str(half)}), probe_compiler({"CXX": str(broken)})
    assert (without_openmp.problem, without_openmp.openmp_problem) == ("", "omp.h: gone")
    assert failing.problem == "cc1plus: cannot be found"
    assert check_compiler(without_openmp, DEBIAN, "linux").ok
    assert bad(check_openmp(without_openmp, DEBIAN, "linux")) == ESSENTIAL
    assert check_openmp(without_openmp, DEBIAN, "darwin").fix == "brew install libomp"
    assert bad(check_compiler(failing, DEBIAN, "linux")) == ESSENTIAL
    assert check_openmp(failing, DEBIAN, "linux").found == "not tried: no C++ compiler"
    assert check_openmp(WORKING, DEBIAN, "linux").ok


def test_a_missing_compiler_names_the_package_and_another_compiler_that_is_there() -> None:
    missing = Compiler(command="g++", problem="no such command", openmp_problem="no such command")
    check = check_compiler(missing, DEBIAN, "linux")
    assert check.fix == "apt-get install g++"
    assert "compiled settings will fail" in check.found
    other = Compiler(command="g++", problem="no such command", others=("clang++",))
    assert check_compiler(other, DEBIAN, "linux").fix == "apt-get install g++, or export CXX=clang++"


@pytest.mark.parametrize(
    ("release", "platform", "compiler", "headers"),
    [
        ({"ID": "debian"}, "linux", "apt-get install g++", "apt-get install python3."),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "linux", "apt-get install g++", "apt-get install python3."),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "linux", "apt-get install g++", "apt-get"),
        ({"ID": "fedora"}, "linux", "dnf install gcc-c++", "dnf install python3-devel"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "linux", "dnf install gcc-c++", "dnf install"),
        ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, "linux", "zypper install gcc-c++", "zypper"),
        ({"ID": "alpine"}, "linux", "apk add g++", "apk add python3-dev"),
        ({}, "linux", "install g++ with this system's package manager", "install Python's headers"),
        ({}, "darwin", "xcode-select --install", "xcode-select --install"),
    ],
)
def test_the_fix_is_that_of_the_system(
    release: dict[str, str], platform: str, compiler: str, headers: str
) -> None:
    assert package_fix(release, platform, "compiler") == compiler
    assert package_fix(release, platform, "headers").startswith(headers)


def test_pythons_headers_are_looked_for(tmp_path: Path) -> None:
    assert bad(check_headers(tmp_path, DEBIAN, "linux")) == ESSENTIAL
    (tmp_path / "Python.h").touch()
    assert check_headers(tmp_path, DEBIAN, "linux").ok


def test_a_gpu_that_torch_does_not_see_is_a_warning_with_the_right_fix() -> None:
    assert check_device("EPYC", "none", Torch(version="2.13.0")).ok
    assert check_device("EPYC", "H200 / 10de:2335", Torch(version="2.13.0", cuda="13.0", gpu="H200")).ok
    cpu_build = check_device("EPYC", "H200 / 10de:2335", Torch(version="2.13.0"))
    assert bad(cpu_build) == WARNING
    assert "CUDA build of torch" in cpu_build.fix
    assert "nvidia-smi" in check_device("EPYC", "H200", Torch(version="2.13.0", cuda="13.0")).fix


@pytest.mark.parametrize(("multiprocessors", "enough"), [(42, False), (67, False), (68, True), (132, True)])
def test_a_card_on_which_max_autotune_has_no_templates_is_a_warning(
    multiprocessors: int, enough: bool
) -> None:
    torch = Torch(version="2.13.0", cuda="13.0", gpu="H100 MIG 3g.40gb", multiprocessors=multiprocessors)
    check = check_device("EPYC", "H100 / 10de:2330", torch)

    assert check.ok is enough
    assert bool(check.found.count(f"{multiprocessors} multiprocessors, too few")) is not enough
    assert ("max-autotune" in check.fix) is not enough


def test_a_quota_is_shown_and_one_below_a_cpu_is_a_warning() -> None:
    assert check_threads(8, ContainerLimits()).found == "8 available"
    assert check_threads(8, ContainerLimits(quota=8.0)).found == "8 available"
    assert check_threads(64, ContainerLimits(quota=1.5)).ok
    assert check_threads(64, ContainerLimits(quota=1.5)).found.startswith("2 of 64")
    check = check_threads(8, ContainerLimits(quota=0.5))
    assert bad(check) == WARNING
    assert "quota is 0.5 CPUs" in check.found


def test_a_containers_memory_limit_is_shown_where_it_is_below_the_machines() -> None:
    found = [
        check_memory(8 << 30, 3 << 29, ContainerLimits(memory_bytes=limit)).found for limit in (None, 1 << 40)
    ]
    assert found == ["8.0 GiB; a tuned process may hold 1.5 GiB"] * 2
    limited = check_memory(8 << 30, 3 << 29, ContainerLimits(memory_bytes=5 << 29))
    assert limited.found == "2.5 of 8.0 GiB: the container's limit; a tuned process may hold 1.5 GiB"
    assert limited.ok
    assert bad(check_memory(8 << 30, 600 << 20, ContainerLimits(memory_bytes=1 << 30))) == WARNING


def test_a_busy_neighbour_or_a_high_load_is_a_warning() -> None:
    idle = Neighbour(name="sshd", pid=7, cpus=0.01)
    assert check_load(0.4, 2, idle).ok
    assert check_load(0.4, 2, None).ok
    assert check_load(9.0, 32, idle).ok
    assert bad(check_load(2.4, 2, idle)) == WARNING
    busy = check_load(0.4, 32, Neighbour(name="ffmpeg", pid=4711, cpus=0.93))
    assert bad(busy) == WARNING
    assert "ffmpeg (process 4711) takes 93% of a CPU" in busy.found


def test_a_neighbour_that_computes_is_noticed() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            found = busiest_neighbour(seconds=1.0)
        finally:
            child.kill()
    assert found is not None
    assert found.cpus > 0.15
    assert found.pid != os.getpid()


def test_the_remark_on_the_write_ahead_log_is_made_only_where_it_holds() -> None:
    assert "can corrupt a write-ahead log" in check_sqlite((3, 40, 1), "DELETE").found
    assert check_sqlite((3, 51, 3), "WAL").found == "3.51.3, journal mode WAL"


def test_no_store_yet_is_fine_and_none_is_made(tmp_path: Path) -> None:
    place = str(tmp_path / "not" / "yet" / "store.db")
    assert check_database(place).ok
    assert check_snapshot(place).ok
    assert check_cache(tmp_path / "cache").ok
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_could_not_be_made_is_essential(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert bad(check_database(str(tmp_path / "file" / "store.db"))) == ESSENTIAL
    check = check_cache(tmp_path / "file" / "cache")
    assert bad(check) == ESSENTIAL
    assert "AUTOTUNE_CACHE" in check.fix


def test_a_whole_store_and_its_snapshot_are_read_without_touching_them(store: Path) -> None:
    before = digests(store.parent)
    database, snapshot = check_database(str(store)), check_snapshot(str(store))
    assert database.ok
    assert f"schema revision {HEAD_REVISION}" in database.found
    assert snapshot.ok
    assert "1 symbols, written 20" in snapshot.found
    assert digests(store.parent) == before


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content[: len(content) // 2], "damaged"),
        (lambda content: b"timestamp,close\n" * 20, "no store"),
        (lambda content: content[:4096] + b"\0" * 8192 + content[12288:], ""),
    ],
)
def test_a_damaged_store_is_essential_and_reported_not_raised(store: Path, damage: object, says: str) -> None:
    assert callable(damage)
    store.write_bytes(damage(store.read_bytes()))
    before = digests(store.parent)
    check = check_database(str(store))
    assert bad(check) == ESSENTIAL
    assert says in check.found
    assert "restore a backup" in check.fix
    assert digests(store.parent) == before


def test_somebody_elses_database_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    check = check_database(str(path))
    assert bad(check) == ESSENTIAL
    assert "is no store of autotune" in check.found
    assert "--db" in check.fix


def test_a_store_of_a_newer_version_is_essential_and_stays_as_it_is(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        connection.commit()
    before = digests(store.parent)
    check = check_database(str(store))
    assert bad(check) == ESSENTIAL
    assert "revision 9999" in check.found
    assert "upgrade toto-autotune" in check.fix
    assert digests(store.parent) == before


def test_a_write_that_was_cut_off_is_a_warning_that_the_next_opening_fixes(store: Path) -> None:
    dying = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_size=1')\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "connection.execute('CREATE TABLE half (x)')\n"
        "connection.executemany('INSERT INTO half VALUES (?)', [('y' * 4000,)] * 200)\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", dying, str(store)], check=True)
    check = check_database(str(store))
    assert bad(check) == WARNING
    assert "left in mid-write" in check.found
    with Store(str(store)):
        pass
    assert check_database(str(store)).ok


def test_a_folder_in_the_stores_place_is_essential(tmp_path: Path) -> None:
    assert bad(check_database(str(tmp_path))) == ESSENTIAL


@pytest.mark.parametrize(
    "address", ["mysql://ann:secret@h/d", "postgresql+nodriver://ann:secret@h/d", "x://["]
)
def test_an_address_of_no_server_we_know_is_one_line_without_its_password(address: str) -> None:
    check = check_database(address)
    assert bad(check) == ESSENTIAL
    assert "secret" not in f"{check.found} {check.fix}"
    assert check_snapshot(address).ok


def test_a_snapshot_that_is_gone_or_damaged_or_old_says_how_to_publish_it(store: Path) -> None:
    snapshot = snapshot_path(str(store))
    old = snapshot.read_bytes()
    snapshot.write_bytes(old[:100])
    damaged = check_snapshot(str(store))
    snapshot.unlink()
    gone = check_snapshot(str(store))
    with Store(str(store)) as opened:
        opened.pin("NVDA", RuntimeSettings(), "a test")
    snapshot.write_bytes(old)
    stale = check_snapshot(str(store))
    for check, says in ((damaged, "truncated/corrupt"), (gone, "missing"), (stale, "something else than")):
        assert bad(check) == WARNING
        assert says in check.found
        assert check.fix.startswith("autotune db upgrade")


def test_a_snapshot_with_a_damaged_part_says_how_to_publish_it(store: Path) -> None:
    with closing(sqlite3.connect(snapshot_path(str(store)))) as connection, connection:
        assert connection.execute("UPDATE parts SET document = x'00' WHERE id = 0").rowcount == 1
    check = check_snapshot(str(store))
    assert bad(check) == WARNING
    assert "parts of it are damaged" in check.found
    assert check.fix.startswith("autotune db upgrade")


def test_a_cache_that_others_could_write_to_is_essential(tmp_path: Path) -> None:
    cache = tmp_path / "a cache"
    cache.mkdir(mode=0o700)
    assert check_cache(cache).ok
    cache.chmod(0o770)
    shared = check_cache(cache)
    assert bad(shared) == ESSENTIAL
    assert "writable by others" in shared.found
    subprocess.run(["/bin/sh", "-c", shared.fix], check=True)
    assert check_cache(cache).ok
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(cache)
    file.touch()
    assert "is a link" in check_cache(link).found
    assert "is not a folder" in check_cache(file).found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_cache_of_another_user_is_essential(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    os.chown(cache, 65534, 65534)
    check = check_cache(cache)
    assert bad(check) == ESSENTIAL
    assert "belongs to user 65534" in check.found


def test_a_cache_from_which_no_code_can_be_loaded_is_essential(noexec: Path) -> None:
    check = check_cache(noexec)
    assert bad(check) == ESSENTIAL
    assert "noexec" in check.found


def test_the_embedded_model_is_found_with_its_shape_and_digest() -> None:
    check = check_model("toto-mini")
    assert check.ok
    assert "digest " in check.found


def test_a_model_that_is_missing_cut_short_or_of_another_make_is_essential(tmp_path: Path) -> None:
    assert bad(check_model(str(tmp_path / "gone"))) == ESSENTIAL
    folder = tmp_path / "model"
    shutil.copytree(locate("toto-mini"), folder)
    assert check_model(str(folder)).ok
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    cut = check_model(str(folder))
    assert bad(cut) == ESSENTIAL
    assert "not a readable safetensors file" in cut.found
    (folder / "config.json").write_text("{")
    assert "config.json: cannot be read as JSON" in check_model(str(folder)).found
    weights.unlink()
    assert "has no model.safetensors" in check_model(str(folder)).found


def test_a_hub_model_is_looked_for_in_the_cache_and_never_downloaded() -> None:
    check = check_model("autotune-tests/no-such-model")
    assert bad(check) == ESSENTIAL
    assert "not in the local hub cache" in check.found
    assert check.fix == "hf download autotune-tests/no-such-model config.json model.safetensors"
    assert "not a hub id" in check_model("no such/model!").found


def test_notes_that_were_refused_are_counted_with_the_newest_reason(store: Path) -> None:
    folder = spool_folder(str(store))
    assert "0 waiting, none refused" in check_notes(str(store)).found
    folder.mkdir(mode=0o700)
    for number in range(3):
        (folder / f"{number}.json").write_text("[]")
        set_aside(folder / f"{number}.json", "note: must be one object of fields")
    (folder / "waits.json").write_text("{}")
    check = check_notes(str(store))

    assert bad(check) == WARNING
    assert "1 waiting, 3 refused, the newest 2.json: note: must be one object of fields" in check.found
    assert str(folder / "refused") in check.fix


def test_a_spool_that_is_not_ours_alone_is_said_and_left_as_it_is(store: Path) -> None:
    folder = spool_folder(str(store))
    folder.mkdir()
    folder.chmod(0o777)
    check = check_notes(str(store))

    assert bad(check) == WARNING
    assert "is writable by others" in check.found
    assert folder.stat().st_mode & 0o777 == 0o777


def test_what_failed_in_production_is_said_with_what_it_waits_for(store: Path) -> None:
    assert check_production(str(store)).ok
    promoted = promotion("AMD")
    with Store(str(store)) as opened:
        opened.promote(promoted)
    failed = quarantine("AMD", promoted.settings, promoted.promoted_at, "no g++")
    leave_quarantine(spool_folder(str(store)), failed)
    check = check_production(str(store))

    assert bad(check) == WARNING
    assert "AMD: its settings failed 1 times: no g++ (one process alone says so" in check.found
    with Store(str(store)) as opened:
        opened.records.add_telemetry(telemetry_record(replace(failed, process="another")))
    assert "the daemon's next tick takes it back" in check_production(str(store)).found
    with Store(str(store)) as opened:
        opened.records.roll_back("AMD", "by hand", promoted.promoted_at)
    assert check_production(str(store)).ok
