"""The values of a note's fields: read from what JSON holds, each checked by its declared type, and back."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from autotuner.environment import Environment
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings
from toto_core.symbols import parse_symbol, quoted

Shape = tuple[int, int, int]
"""Context length, steps and samples of a call; 0 samples for the mean path."""
PER_OCTAVE = 8
"""Buckets of the latency histogram for each doubling: a quantile read from it is at most 9 % too high."""
BUCKETS = 24 * PER_OCTAVE
MOST_SHAPES = 32
_LARGEST = 2**63 - 1
_LONGEST_TEXT, _MOST_TEXTS = 10_000, 100
_UNKEPT = re.compile("[\0\ud800-\udfff]")
_PLACE = re.compile(r"0|[1-9][0-9]{0,18}")


def read_value(name: str, declared: str, value: object) -> Any:
    """The value of field ``name``, whose type is ``declared``. Raises anything for what a stranger wrote."""
    if value is None and declared.endswith(" | None"):
        return None
    read = _BY_NAME.get(name) or _BY_TYPE[declared.removesuffix(" | None")]
    return read(value)


def plain_value(value: object) -> Any:
    """The inverse of ``read_value``: what JSON can hold."""
    match value:
        case datetime():
            return value.isoformat()
        case Environment():
            return dataclasses.asdict(value)
        case RuntimeSettings() | Workload():
            return value.to_dict()
        case Mapping():
            return {_key(key): count for key, count in value.items()}
    return value


def _key(key: Shape | int) -> str:
    return str(key) if isinstance(key, int) else "/".join(map(str, key))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("must be text")
    if len(value) > _LONGEST_TEXT or _UNKEPT.search(value):
        raise ValueError(f"must be at most {_LONGEST_TEXT} characters, without NUL or half a surrogate pair")
    return value


def _name(value: object) -> str:
    if not _text(value):
        raise ValueError("must not be empty")
    return _text(value)


def _whole(value: object, most: int = _LARGEST) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"must be a whole number from 0 to {most}")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ValueError("must be a finite number")
    return float(value)


def _positive(value: object) -> float:
    if _number(value) < 0:
        raise ValueError("must not be below 0")
    return _number(value)


def _moment(value: object) -> datetime:
    found = datetime.fromisoformat(_text(value))
    if found.tzinfo is None:
        raise ValueError("must be a time with its zone")
    return found.astimezone(UTC)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST_TEXTS:
        raise ValueError(f"must be a list of at most {_MOST_TEXTS} texts")
    return tuple(_text(each) for each in value)


def _buckets(value: object) -> dict[int, int]:
    return {_place(name, BUCKETS - 1): _whole(count) for name, count in _table(value, BUCKETS).items()}


def _shapes(value: object) -> dict[Shape, int]:
    return {_shape(name): _whole(count) for name, count in _table(value, MOST_SHAPES).items()}


def _shape(name: str) -> Shape:
    if name.count("/") != 2:
        raise ValueError(f"{quoted(name)} is not context length/steps/samples")
    context, steps, samples = (_place(part, _LARGEST) for part in name.split("/"))
    return context, steps, samples


def _place(text: str, most: int) -> int:
    if not _PLACE.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not a whole number from 0 to {most}")
    return _whole(int(text), most)


def _table(value: object, most: int) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or len(value) > most:
        raise ValueError(f"must be a table of at most {most} counts")
    return value


def _fields(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError("must be one object of fields")
    return value


def _environment(value: object) -> Environment:
    found = Environment.from_dict(_fields(value))
    for name, each in vars(found).items():
        _whole(each) if name == "threads" else _text(each)
    return found


_BY_NAME: dict[str, Callable[[Any], Any]] = {
    "symbol": lambda value: parse_symbol(_text(value)),
    "settings_key": _name,
    "environment_fingerprint": _name,
    "longest_ms": _positive,
}
_BY_TYPE: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _whole,
    "float": _number,
    "datetime": _moment,
    "tuple[str, ...]": _texts,
    "Mapping[Shape, int]": _shapes,
    "Mapping[int, int]": _buckets,
    "RuntimeSettings": lambda value: RuntimeSettings.from_dict(_fields(value)),
    "Workload": lambda value: Workload.from_dict(_fields(value)),
    "Environment": _environment,
}
