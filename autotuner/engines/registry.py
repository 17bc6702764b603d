"""Which engines there are, and which of them a model is for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from autotuner.engines.protocol import Engine
from autotuner.errors import AutotuneError, cause
from autotuner.machine.engine_versions import (
    CHRONOS2,
    TOTO1,
    TOTO2,
    engine_names,
    engine_version,
    entry_points,
)
from toto_core.model_files import EMBEDDED, locate
from toto_core.model_folder import CheckpointError, config_fields


def _toto1() -> Engine:
    from autotuner.engines.toto1 import Toto1

    return Toto1()


def _toto2() -> Engine:
    from autotuner.engines.toto2 import Toto2

    return Toto2()


def _chronos2() -> Engine:
    from autotuner.engines.chronos2 import Chronos2

    return Chronos2()


_BUILT_IN: Mapping[str, Callable[[], Engine]] = {TOTO1: _toto1, TOTO2: _toto2, CHRONOS2: _chronos2}
_loaded: dict[str, Engine] = {}


@dataclass(frozen=True, kw_only=True)
class Installed:
    """An engine that is there, or why it cannot be used; ``source`` is the package it comes from."""

    name: str
    version: str
    source: str
    engine: Engine | None
    fault: str = ""


def installed() -> tuple[Installed, ...]:
    """Every engine, the built-in ones first; what cannot be imported is named with its reason and raises nothing."""
    found = [_installed(name, "autotune") for name in _BUILT_IN]
    for name, entry in sorted(entry_points().items()):
        found.append(_installed(name, entry.value if entry.dist is None else entry.dist.name))
    return tuple(found)


def engine_named(name: str) -> Engine:
    """The engine of that name. Raises ``AutotuneError`` where there is none or it cannot be imported."""
    if name not in _loaded:
        _loaded[name] = _load(name)
    return _loaded[name]


def engine_for(model: str, revision: str | None = None) -> Engine:
    """The engine that claims the model. Raises ``CheckpointError`` where it is not there or nobody claims it."""
    if model == EMBEDDED:
        return engine_named(TOTO1)
    return claiming(locate(model, revision=revision))


def claiming(folder: Path) -> Engine:
    """The engine that claims the model in ``folder``. Raises ``CheckpointError`` where none does."""
    config_fields(folder)  # one that cannot be read is said to be so, whoever would have claimed it
    for (
        name
    ) in engine_names():  # those of this package first: others are imported for what none of these takes
        with contextlib.suppress(AutotuneError):  # `autotune engines` says why one cannot be imported
            engine = engine_named(name)
            if _claims(engine, folder):
                return engine
    raise CheckpointError(
        f"{folder}: no engine here takes this model; `autotune engines` lists those that are installed"
    )


def _claims(engine: Engine, folder: Path) -> bool:
    try:
        return engine.claims(folder)
    except Exception:  # another package's code must not keep the others from answering
        return False


def _installed(name: str, source: str) -> Installed:
    try:
        engine, fault = engine_named(name), ""
    except AutotuneError as error:
        engine, fault = None, str(error)
    return Installed(name=name, version=engine_version(name), source=source, engine=engine, fault=fault)


def _load(name: str) -> Engine:
    make = _BUILT_IN.get(name)
    if make is not None:
        return make()
    entry = entry_points().get(name)
    if entry is None:
        raise AutotuneError(f"engine {name} is not installed: `autotune engines` lists those that are")
    try:
        found = entry.load()
        engine = cast("Engine", found() if isinstance(found, type) else found)
        if engine.name != name:
            raise ValueError(f"it calls itself {engine.name}")
    except Exception as error:  # whatever another package's code raises
        raise AutotuneError(f"engine {name} ({entry.value}) cannot be used: {cause(error)}") from None
    return engine
