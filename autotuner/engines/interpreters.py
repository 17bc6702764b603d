"""Interpreters of their own: an engine whose packages clash with others is measured by another Python."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

from autotuner.engine_versions import engine_name
from autotuner.environment import Environment, current_environment
from autotuner.errors import AutotuneError

_SECONDS = 120.0
_ASK = (
    "import sys; from autotuner.environment import current_environment; "
    "print(current_environment(sys.argv[1], sys.argv[2]).to_json())"
)


def variable_of(engine: str) -> str:
    """The variable that names an engine's interpreter, as ``[engines.NAME] python`` in ``autotune.toml`` does."""
    return f"AUTOTUNE_ENGINES__{engine.upper()}__PYTHON"


def interpreter_of(engine: str) -> str:
    """The Python that processes of an engine are started with: this one unless a variable names another."""
    return os.environ.get(variable_of(engine)) or sys.executable


def search_path() -> dict[str, str]:
    """What lets another interpreter import this very package."""
    ours = str(Path(__file__).resolve().parents[2])
    return {"PYTHONPATH": os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))}


def environment_of(device: str, engine: str) -> Environment:
    """The environment that an engine's processes have. Raises ``AutotuneError`` when its interpreter cannot say."""
    python = interpreter_of(engine)
    if python == sys.executable:
        return current_environment(device, engine)
    return _asked(python, device, engine)


def environment_like(there: Environment, here: Environment) -> Environment:
    """What an environment of this machine is compared with: ``here`` with the engine of ``there``."""
    engine = engine_name(there.engine)
    if interpreter_of(engine) == sys.executable:
        return here.here_for(there)
    try:
        return environment_of(there.device, engine)
    except AutotuneError:  # a run will say so; until then it is another environment
        return here


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
