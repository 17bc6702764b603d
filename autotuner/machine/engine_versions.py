"""Names and versions of engines, as environments hold them; no engine is imported for it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from autotuner.machine.packages import installed_version
from toto_core.version import ENGINE_VERSION, TOTO2_VERSION

if TYPE_CHECKING:
    from importlib import metadata

TOTO1, TOTO2, CHRONOS2 = "toto1", "toto2", "chronos2"
GROUP = "autotune.engines"
"""Entry points of this group are engines of other packages."""
_CHRONOS2_VERSION = "1"
_BUILT_IN = {
    TOTO1: lambda: ENGINE_VERSION,
    TOTO2: lambda: TOTO2_VERSION,
    CHRONOS2: lambda: _with_package(_CHRONOS2_VERSION, "chronos-forecasting"),
}


def engine_text(name: str) -> str:
    """What an environment says of an engine: its name and version; of Toto 1.0 the version alone.

    Stores from before there were other engines say the same. The version of an engine of another package is that
    package's.
    """
    if name == TOTO1:
        return ENGINE_VERSION
    return f"{name} {engine_version(name)}"


def engine_name(text: str) -> str:
    """The engine that an environment's text names."""
    name, space, _ = text.partition(" ")
    return name if space else TOTO1


def engine_names() -> tuple[str, ...]:
    """Every engine that is installed, those of this package first."""
    return (*_BUILT_IN, *sorted(entry_points()))


@functools.cache
def entry_points() -> dict[str, metadata.EntryPoint]:
    """Engines of other packages, by name; one that takes a built-in's name is left out."""
    from importlib import metadata  # takes longer to import than all of a lookup

    found = metadata.entry_points(group=GROUP)
    return {each.name: each for each in found if each.name not in _BUILT_IN and each.name.isidentifier()}


def engine_version(name: str) -> str:
    """Of an engine by its name; "not installed" where there is none."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    entry = entry_points().get(name)
    if entry is None:
        return "not installed"
    return "unknown" if entry.dist is None else entry.dist.version


def _with_package(version: str, package: str) -> str:
    """Of an engine that runs another package's model code: both decide how fast it is."""
    return f"{version}+{installed_version(package) or 'none'}"
