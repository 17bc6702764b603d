from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autotuner.cli import cli
from autotuner.environment import reachable_cpus
from autotuner.machine.nvidia import NO_GPU, visible_gpu
from tests.support.containers import limited
from toto_core.container import ROOT_VARIABLE

NAMES = [
    "Python",
    "torch",
    "C++ compiler",
    "OpenMP",
    "Python headers",
    "device",
    "threads",
    "memory",
    "load",
    "SQLite",
    "database",
    "snapshot",
    "compile cache",
    "left behind",
    "model",
    "notes",
    "production",
]


def run(home: Path, *arguments: str, **variables: str) -> Result:
    unset = dict.fromkeys(("AUTOTUNE_DB", "AUTOTUNE_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME", "CXX"))
    env = {**unset, "HOME": str(home), "COLUMNS": "100", **variables}
    return CliRunner().invoke(cli, ["doctor", *arguments], prog_name="autotune", env=env)


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in document["checks"]}


def test_a_fresh_home_lacks_nothing_and_gets_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, "--json")
    document = json.loads(result.stdout)
    checks = by_name(document)
    assert [check["name"] for check in document["checks"]] == NAMES
    assert all(
        checks[name]["ok"] for name in ("Python", "torch", "database", "snapshot", "compile cache", "model")
    )
    assert "toto-mini" in checks["model"]["found"]
    assert visible_gpu() != NO_GPU or "no NVIDIA driver" in checks["device"]["found"]
    missing = [c for c in document["checks"] if not c["ok"] and c["severity"] == "essential"]
    assert document["ok"] is (missing == [])
    assert result.exit_code == (1 if missing else 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_machine_with_a_compiler_passes(tmp_path: Path) -> None:
    result = run(tmp_path, CXX="g++")
    assert result.exit_code == 0, result.stdout
    assert "✓ │ C++ compiler   │ g++ compiles C++20" in result.stdout
    assert "✗" not in result.stdout


def test_what_is_missing_is_named_with_its_fix_and_the_exit_code_is_1(tmp_path: Path) -> None:
    store, cache = tmp_path / "[red]store.db", tmp_path / "cache"
    store.write_text("not a database, but long enough to be one? " * 20)
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    variables = {"CXX": "no-such-c++", "AUTOTUNE_DB": str(store), "AUTOTUNE_CACHE": str(cache)}
    variables[ROOT_VARIABLE] = str(limited(tmp_path / "tree", cpus=0.5, memory_bytes=1 << 29))
    result = run(tmp_path, "--json", "--model", str(tmp_path / "gone"), **variables)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    checks = by_name(document)
    wrong = {name for name in NAMES if not checks[name]["ok"] and checks[name]["severity"] == "essential"}
    assert document["ok"] is False
    assert wrong >= {"C++ compiler", "OpenMP", "database", "compile cache", "model"}
    assert all(checks[name]["mend"] for name in {*wrong, "threads", "memory"})
    assert checks["threads"]["found"].startswith(
        f"1 of {reachable_cpus()}: the container's quota is 0.5 CPUs"
    )
    assert checks["memory"]["found"].startswith("0.5 of ")
    assert "compiled settings will fail" in checks["C++ compiler"]["found"]
    assert checks["database"]["found"].startswith(str(store))
    assert checks["compile cache"]["mend"] == f"chmod 700 {cache}"


def test_a_terminal_without_utf_8_gets_plain_characters(tmp_path: Path) -> None:
    store = tmp_path / "bücher.db"
    store.write_text("x" * 1000)
    done = subprocess.run(
        [sys.executable, "-c", "from autotuner.cli import main; main()", "doctor", "--db", str(store)],
        capture_output=True,
        check=False,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "PYTHONIOENCODING": "ascii",
            "COLUMNS": "60",
            "CXX": "no-such-c++",
        },
    )
    assert done.returncode == 1
    lines = done.stdout.decode("ascii").splitlines()
    assert any(line.startswith("X  | C++ compiler") for line in lines)
    assert any(line.startswith("ok | torch") for line in lines)
    assert "b\\xfccher.db" in "".join(line.partition("| ")[2].partition("| ")[2].strip() for line in lines)
    assert done.stderr == b""


def test_the_help_has_examples_and_says_what_is_essential(tmp_path: Path) -> None:
    result = run(tmp_path, "--help")
    assert result.exit_code == 0
    assert "autotune doctor --model Datadog/Toto-Open-Base-1.0 --json" in result.stdout
    assert "Exits with 1 when something essential is missing: torch, a C++" in " ".join(result.stdout.split())
