"""Knobs: settings that only one engine has, as names with values, read strictly."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from toto_core.lines import OneLineError

KnobValue = str | int | float | bool | None
Knobs = tuple[tuple[str, KnobValue], ...]
_MOST, _LONGEST = 16, 64


class SettingsError(OneLineError):
    """The values do not make a configuration; the message is one line that names the field."""


def read_knobs(given: Any, *, taken: Collection[str]) -> Knobs:
    """A mapping or pairs as knobs, sorted by name; a name that is ``taken`` is none.

    Raises ``SettingsError``.
    """
    found = _pairs(given)
    if len(found) > _MOST:
        raise SettingsError(f"settings: at most {_MOST} knobs, not {len(found)}")
    for name, value in found.items():
        if not isinstance(name, str) or not name.isidentifier() or len(name) > _LONGEST:
            raise SettingsError(f"settings: no knob can be called {str(name)[:_LONGEST]!r}")
        if name in taken:
            raise SettingsError(f"settings: {name} is a field of every engine, no knob")
        if not _is_short_and_finite(value):
            raise SettingsError(
                f"settings: knob {name} must be a short, printable text or a number, not {type(value).__name__}"
            )
    return tuple(sorted(found.items()))


def _pairs(given: Any) -> dict[Any, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, Iterable) and not isinstance(given, str):
        pairs = list(given)
        if all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
            return dict(pairs)
    raise SettingsError("settings: knobs must be an object of names and values")


def _is_short_and_finite(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST and value.isprintable()
    if isinstance(value, int):  # a truth value, too
        return -(2**63) < value < 2**63
    return value is None or (isinstance(value, float) and math.isfinite(value))
