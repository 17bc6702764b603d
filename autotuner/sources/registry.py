"""Which sources of prices there are: those of this package, and the entry points of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import cast

from autotuner.errors import UsageError, cause
from autotuner.machine.packages import installed_version
from autotuner.sources.protocol import Source, SourceError

GROUP = "autotune.sources"
"""Entry points of this group are sources of other packages: a function, or a class made without arguments."""
YFINANCE = "yfinance"


def _yfinance() -> Source:
    if find_spec(YFINANCE) is None:
        raise SourceError(f"{YFINANCE} is missing: pip install 'toto-autotune[{YFINANCE}]'")
    from autotuner.sources.yfinance import fetch

    return fetch


_BUILT_IN: Mapping[str, Callable[[], Source]] = {YFINANCE: _yfinance}


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A source that is there, or why it cannot be used; ``package`` is where it comes from."""

    name: str
    version: str
    package: str
    fault: str = ""


def installed() -> tuple[Installed, ...]:
    """Every source, the built-in ones first; what cannot be used is named with its reason and raises nothing."""
    found = []
    for name in (*_BUILT_IN, *sorted(_entry_points())):
        try:
            source_named(name)
            fault = ""
        except SourceError as error:
            fault = str(error)
        found.append(Installed(name=name, version=version_of(name), package=_package(name), fault=fault))
    return tuple(found)


def source_named(name: str) -> Source:
    """The source of that name. Raises ``UsageError`` where there is none, ``SourceError`` where it cannot be used."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    entry = _entry_points().get(name)
    if entry is None:
        raise UsageError(f"source {name!r} is not installed: `autotune data sources` lists those that are")
    try:
        found = entry.load()
        made = found() if isinstance(found, type) else found
        if not callable(made):
            raise TypeError("it cannot be called")
    except Exception as error:  # whatever another package's code raises
        raise SourceError(f"source {name} ({entry.value}) cannot be used: {cause(error)}") from None
    return cast("Source", made)


def version_of(name: str) -> str:
    """The version of the package that a source comes from; empty where that is not known."""
    if name in _BUILT_IN:
        return installed_version(name) or ""
    entry = _entry_points().get(name)
    return "" if entry is None or entry.dist is None else entry.dist.version


def _package(name: str) -> str:
    if name in _BUILT_IN:
        return "autotune"
    entry = _entry_points()[name]
    return entry.value if entry.dist is None else entry.dist.name


def _entry_points() -> dict[str, metadata.EntryPoint]:
    return {each.name: each for each in metadata.entry_points(group=GROUP) if each.name not in _BUILT_IN}
