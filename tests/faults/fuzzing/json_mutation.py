"""Changes JSON in its form: other kinds, huge numbers, deep nesting, keys twice, long texts, half surrogates, NaN."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.faults.fuzzing import mutation


@dataclass(frozen=True)
class Raw:
    """What is written as it stands, JSON or not."""

    text: str


_DEEP = ("[" * 40 + "]" * 40, "[" * 60 + "]" * 60, "[" * 3000 + "]" * 3000, '{"a":' * 60 + "1" + "}" * 60)
STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    64,
    65_536,
    10**9,
    2**31,
    2**63 - 1,
    2**63,
    10**399,
    -(10**399),
    0.5,
    -0.5,
    1e-320,
    1e308,
    -1e308,
    *map(Raw, ("NaN", "Infinity", "-Infinity", "1e999", "-0", "9" * 5000, "0." + "1" * 3000, '"\\ud800"')),
    *map(Raw, ('"\\u0000"', '"\\u001b[2J"', "01", "tru", *_DEEP)),
    [],
    {},
    [[]],
    [None],
    {"a": None},
    [0] * 2_000,
    {str(number): number for number in range(500)},
    *mutation.TEXTS,
)
"""What takes the place of a value."""


def document(data: bytes, chance: random.Random) -> bytes:
    """JSON text with one to three values changed; what is none, and one time in eight, any bytes of it."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutation.any_bytes(data, chance)
    if chance.random() < 0.12:
        return mutation.any_bytes(data, chance)
    try:
        return rendered(changed(value, chance)).encode("utf-8", "surrogatepass")
    except (
        RecursionError,
        ValueError,
    ):  # what was mutated before may be as deep or as long as this can write
        return mutation.any_bytes(data, chance)


def changed(value: Any, chance: random.Random) -> Any:
    """The same value with one to three places changed."""
    value = [copy.deepcopy(value)]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        _change(value, chance)
    return value[0]


def rendered(value: Any) -> str:
    """Text of a value in which there may be ``Raw``, and keys that are there twice."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        pairs = ((key.name if isinstance(key, _Again) else key, each) for key, each in value.items())
        return "{" + ",".join(f"{json.dumps(key)}:{rendered(each)}" for key, each in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(rendered, value)) + "]"
    return json.dumps(value)


@dataclass(frozen=True, eq=False)
class _Again:
    """A key that is there already."""

    name: str


def _holders(value: Any) -> list[Any]:
    """Every list and object within, that which is given first."""
    found, waiting = [], [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict | list) and here:
            found.append(here)
            waiting.extend(here.values() if isinstance(here, dict) else here)
    return found


def _change(root: list[Any], chance: random.Random) -> None:
    holder = chance.choice(_holders(root))
    key = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    if isinstance(holder, dict) and chance.random() < 0.35:
        _change_key(holder, key, chance)
    else:
        holder[key] = chance.choice(_VALUES)(holder[key], root, chance)


def _change_key(holder: dict[Any, Any], key: Any, chance: random.Random) -> None:
    name = key.name if isinstance(key, _Again) else key
    match chance.randrange(4):
        case 0:
            del holder[key]
        case 1:
            holder[_Again(name)] = copy.deepcopy(chance.choice(STRANGE))
        case 2:
            holder[chance.choice(mutation.TEXTS)] = holder.pop(key)
        case _:
            holder[f"{name}_2" if chance.random() < 0.5 else chance.choice(mutation.TEXTS)] = copy.deepcopy(
                holder[key]
            )


def _strange(_value: Any, _root: list[Any], chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(STRANGE))  # it may be changed, too


def _nearby(value: Any, _root: list[Any], chance: random.Random) -> Any:
    """Of the same kind, a little or very much off."""
    if isinstance(value, bool) or value is None:
        return chance.choice((True, False, None, 0, 1))
    if isinstance(value, int):
        return chance.choice(
            (value + 1, value - 1, -value, value * 1000, value * 10**12, float(value % 10**6))
        )
    if isinstance(value, float):
        return chance.choice(
            (-value, value * 1e6, value * 1e-9, 0.0, round(value) if abs(value) < 1e9 else 1)
        )
    if isinstance(value, str):
        data = mutation.any_bytes(value.encode("utf-8", "surrogatepass"), chance)
        return data.decode("utf-8", "surrogateescape")
    return _strange(value, _root, chance)


def _other_place(_value: Any, root: list[Any], chance: random.Random) -> Any:
    """What stands somewhere else."""
    holder = chance.choice(_holders(root))
    found = copy.deepcopy(chance.choice(list(holder.values()) if isinstance(holder, dict) else holder))
    return found if len(rendered(found)) < 20_000 else None


def _wrapped(value: Any, _root: list[Any], chance: random.Random) -> Any:
    return chance.choice(([value], {"value": value}, [value, copy.deepcopy(value)], rendered(value)))


def _many(value: Any, _root: list[Any], chance: random.Random) -> Any:
    times = chance.choice((2, 40, 1_001)) if len(rendered(value)) < 200 else 2
    return [copy.deepcopy(value) for _ in range(times)]


_VALUES: tuple[Callable[[Any, list[Any], random.Random], Any], ...] = (
    _strange,
    _strange,
    _strange,
    _nearby,
    _nearby,
    _other_place,
    _wrapped,
    _many,
)
