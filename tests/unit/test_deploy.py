"""The files in deploy/ name what exists: parts of the project, commands, variables, metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from autotuner.cli import cli
from autotuner.daemon.config import read_config

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
LINES = [line for line in DOCKERFILE.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def instructions(name: str) -> list[str]:
    return [line.removeprefix(name).strip() for line in LINES if line.startswith(f"{name} ")]


def test_the_image_copies_what_is_there_and_what_dockerignore_lets_through() -> None:
    copied = [source for line in instructions("COPY") for source in line.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    assert {"autotuner", "toto_core", "storage", "pyproject.toml"} <= set(copied)
    assert all((ROOT / source).exists() for source in copied)
    assert {f"!{source}" for source in copied} == {line for line in ignored if line.startswith("!")}


def test_the_image_has_the_torch_of_the_project_and_takes_the_rest_by_hash() -> None:
    assert f"TORCH={re.search('torch==[0-9.]+', (ROOT / 'Makefile').read_text()).group()}" in DOCKERFILE  # type: ignore[union-attr]
    installs = [line for line in instructions("RUN") if "pip install" in line and "$TORCH" not in line]

    assert [line for line in installs if "--require-hashes --requirement requirements.lock" in line]
    assert all("--no-deps" in line for line in installs)


def test_the_image_starts_a_command_with_options_that_exist() -> None:
    (entry,), (command,) = instructions("ENTRYPOINT"), instructions("CMD")
    arguments = json.loads(command)

    assert json.loads(entry) == ["autotune"]
    shown = CliRunner().invoke(cli, [arguments[0], "--help"])
    assert shown.exit_code == 0
    assert all(argument in shown.output for argument in arguments if argument.startswith("--"))


def test_the_variables_of_the_image_configure_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = dict(re.findall(r"(AUTOTUNE_\w+|XDG_\w+)=(\S+)", DOCKERFILE))
    assert set(variables) == {"AUTOTUNE_DB", "AUTOTUNE_CACHE", "AUTOTUNE_DAEMON__HTTP", "XDG_DATA_HOME"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (port,) = instructions("EXPOSE")

    assert read_config(None).daemon.http == f"0.0.0.0:{port}"
