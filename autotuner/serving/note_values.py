"""The values of a note's fields: read from what JSON holds, each checked by its declared type, and back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.serving.plain_values import LARGEST, fields, items, number, text, whole
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings
from toto_core.symbols import parse_symbol, quoted

Shape = tuple[int, int, int]
"""Context length, steps and samples of a call; 0 samples for the mean path."""
PER_OCTAVE = 8
"""Buckets of the latency histogram for each doubling: a quantile read from it is at most 9 % too high."""
BUCKETS = 24 * PER_OCTAVE
MOST_SHAPES = 32
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""Times beyond these are nobody's: sums and differences with them could not be held."""
_MOST_TEXTS = 100
_PLACE = re.compile(r"0|[1-9][0-9]{0,18}")


def read_value(name: str, declared: str, value: object) -> Any:
    """The value of field ``name``, whose type is ``declared``. Raises anything for what a stranger wrote."""
    if value is None and declared.endswith(" | None"):
        return None
    read = _BY_NAME.get(name) or _BY_TYPE[declared.removesuffix(" | None")]
    return read(value, name)


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
            return {
                "/".join(map(str, key)) if isinstance(key, tuple) else str(key): count
                for key, count in value.items()
            }
    return value


def _name(value: object, where: str) -> str:
    if not text(value, where):
        raise ValueError("must not be empty")
    return text(value, where)


def _positive(value: object, where: str) -> float:
    if number(value, where) < 0:
        raise ValueError("must not be below 0")
    return number(value, where)


def _moment(value: object, where: str) -> datetime:
    found = datetime.fromisoformat(text(value, where))
    if found.tzinfo is None:
        raise ValueError("must be a time with its zone")
    if not EARLIEST <= found <= LATEST:
        raise ValueError(f"must be a time from {EARLIEST.year} to {LATEST.year}")
    return found.astimezone(UTC)


def _texts(value: object, where: str) -> tuple[str, ...]:
    return tuple(text(each, where) for each in items(value, where, _MOST_TEXTS))


def _buckets(value: object, where: str) -> dict[int, int]:
    table = _table(value, where, BUCKETS)
    return {_place(name, BUCKETS - 1): whole(count, where) for name, count in table.items()}


def _shapes(value: object, where: str) -> dict[Shape, int]:
    return {_shape(name): whole(count, where) for name, count in _table(value, where, MOST_SHAPES).items()}


def _shape(name: str) -> Shape:
    if name.count("/") != 2:
        raise ValueError(f"{quoted(name)} is not context length/steps/samples")
    context, steps, samples = (_place(part, LARGEST) for part in name.split("/"))
    return context, steps, samples


def _place(name: str, most: int) -> int:
    if not _PLACE.fullmatch(name) or int(name) > most:
        raise ValueError(f"{quoted(name)} is not a whole number from 0 to {most}")
    return int(name)


def _table(value: object, where: str, most: int) -> Mapping[str, object]:
    if len(fields(value, where)) > most:
        raise ValueError(f"must be a table of at most {most} counts")
    return fields(value, where)


def _environment(given: Mapping[str, Any]) -> Environment:
    found = Environment.from_dict(given)
    for name, each in vars(found).items():
        whole(each, name) if name == "threads" else text(each, name)
    return found


def _as_far_as_known(read: Callable[[Mapping[str, Any]], Any]) -> Callable[[object, str], Any]:
    # It only informs: what another version says there must not cost the note.
    def read_or_none(value: object, where: str) -> Any:
        given = fields(value, where)
        try:
            return read(given)
        except (AutotuneError, TypeError, ValueError):
            return None

    return read_or_none


_BY_NAME: dict[str, Callable[[Any, str], Any]] = {
    "symbol": lambda value, where: parse_symbol(text(value, where)),
    "settings_key": _name,
    "environment_fingerprint": _name,
    "longest_ms": _positive,
}
_BY_TYPE: dict[str, Callable[[Any, str], Any]] = {
    "str": text,
    "int": whole,
    "float": number,
    "datetime": _moment,
    "tuple[str, ...]": _texts,
    "Mapping[Shape, int]": _shapes,
    "Mapping[int, int]": _buckets,
    "RuntimeSettings": _as_far_as_known(RuntimeSettings.from_dict),
    "Workload": _as_far_as_known(Workload.from_dict),
    "Environment": _as_far_as_known(_environment),
}
