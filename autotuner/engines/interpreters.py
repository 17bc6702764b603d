"""Interpreters of their own: an engine whose packages clash with others is measured by another Python."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from autotuner.environment import Environment, current_environment
from autotuner.errors import AutotuneError
from autotuner.machine.engine_versions import engine_name

NO_OTHERS: Mapping[str, str] = MappingProxyType({})
_SECONDS = 120.0
_ASK = (
    "import sys; from autotuner.environment import current_environment; "
    "print(current_environment(sys.argv[1], sys.argv[2]).to_json())"
)


def variable_of(engine: str) -> str:
    """The variable that names an engine's interpreter, as ``[engines.NAME] python`` in ``autotune.toml`` does."""
    return f"AUTOTUNE_ENGINES__{engine.upper()}__PYTHON"


def interpreter_of(engine: str, pythons: Mapping[str, str] = NO_OTHERS) -> str:
    """The Python that an engine's processes are started with: as ``pythons`` says, else a variable, else this one."""
    return pythons.get(engine) or os.environ.get(variable_of(engine)) or sys.executable


def search_path() -> dict[str, str]:
    """What lets another interpreter import this very package."""
    ours = str(Path(__file__).resolve().parents[2])
    return {"PYTHONPATH": os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))}


def environment_of(device: str, engine: str, pythons: Mapping[str, str] = NO_OTHERS) -> Environment:
    """The environment that an engine's processes have. Raises ``AutotuneError`` when its interpreter cannot say."""
    python = interpreter_of(engine, pythons)
    if python == sys.executable:
        return current_environment(device, engine)
    return _asked(python, device, engine)


def environment_like(
    there: Environment, here: Environment, pythons: Mapping[str, str] = NO_OTHERS
) -> Environment:
    """What an environment of this machine is compared with: ``here`` with the engine of ``there``."""
    engine = engine_name(there.engine)
    if interpreter_of(engine, pythons) == sys.executable:
        return here.here_for(there)
    try:
        return environment_of(there.device, engine, pythons)
    except AutotuneError:  # a run will say so; until then it is another environment
        return here


def forget_environments() -> None:
    """Look again from now on: packages are upgraded while a daemon runs."""
    current_environment.cache_clear()
    _asked.cache_clear()


@functools.cache
def _asked(python: str, device: str, engine: str) -> Environment:
    try:
        done = subprocess.run(
            [python, "-c", _ASK, device, engine],
            env=os.environ | search_path(),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode == 0:
            return Environment.from_dict(json.loads(done.stdout))
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    except (OSError, subprocess.SubprocessError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())
    raise AutotuneError(
        f"{variable_of(engine)}: {python} cannot run the engine {engine}: {why[:200]}; "
        "install autotune and the engine's packages there"
    )
