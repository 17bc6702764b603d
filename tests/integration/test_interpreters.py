"""An engine's own interpreter: what the configuration says holds, also once it is changed; upgrades are seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autotuner.daemon.config import read_config
from autotuner.daemon.measuring_child import run_tuner
from autotuner.engines.interpreters import environment_like, environment_of, forget_environments, variable_of
from autotuner.environment import current_environment
from autotuner.errors import AutotuneError
from autotuner.machine.engine_versions import CHRONOS2
from tests.support.chronos2_model import write_chronos2

HERE, THERE = current_environment(), current_environment("cpu", CHRONOS2)


def another_python(path: Path, torch: str) -> str:
    """An interpreter that says it has another torch, and is this one in everything else."""
    said = THERE.to_json().replace(f'"torch":"{THERE.torch}"', f'"torch":"{torch}"')
    path.write_text(f"#!/bin/sh\necho '{said}'\n")
    path.chmod(0o700)
    return str(path)


def test_the_environment_is_that_of_the_interpreter_until_it_is_upgraded(tmp_path: Path) -> None:
    pythons = {CHRONOS2: another_python(tmp_path / "python", "2.9.1")}
    assert environment_like(THERE, HERE, pythons).torch == "2.9.1"
    assert environment_like(THERE, HERE) == THERE
    assert environment_like(HERE, HERE, pythons) == HERE
    another_python(tmp_path / "python", "2.11.0")
    forget_environments()
    assert environment_of("cpu", CHRONOS2, pythons).torch == "2.11.0"


def test_one_that_cannot_say_is_another_environment_and_one_line_for_who_asks(tmp_path: Path) -> None:
    pythons = {CHRONOS2: str(tmp_path / "gone")}
    assert environment_like(THERE, HERE, pythons) == HERE
    with pytest.raises(AutotuneError, match="cannot run the engine chronos2") as refused:
        environment_of("cpu", CHRONOS2, pythons)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_changed_holds_from_the_next_tick_on_and_reaches_the_runs(tmp_path: Path) -> None:
    file, model = tmp_path / "autotune.toml", write_chronos2(tmp_path / "model")
    for name in ("first", "second"):
        file.write_text(f'[engines.chronos2]\npython = "/opt/{name}/python"\n')
        pythons = read_config(file).pythons
        found = run_tuner(
            [
                "run",
                "--json",
                "--symbol",
                "AMD",
                "--model",
                str(model),
                "--db",
                str(tmp_path / "autotune.db"),
            ],
            nice=0,
            seconds=60.0,
            stop=lambda: False,
            beat=lambda: None,
            variables={variable_of(engine): python for engine, python in pythons.items()},
        )
        assert f"/opt/{name}/python cannot run the engine chronos2" in found.cause
        assert variable_of(CHRONOS2) not in os.environ
