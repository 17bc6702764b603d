"""Checks of plain JSON values that come from outside; each error is one line that names the field."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

LARGEST = 2**63 - 1
LONGEST_TEXT = 10_000
DEEPEST = 50
"""Levels of lists and objects inside each other that are taken in."""


_UNKEPT = re.compile("[\0\ud800-\udfff]")


class WrongValue(ValueError):  # noqa: N818 - reads as the message it stands for
    """A value is of another kind than its field takes."""


def parsed(text: str) -> Any:
    """What JSON ``text`` holds. Raises ``ValueError`` when it is none or is nested deeper than ``DEEPEST``."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    if text.count("[") + text.count("{") <= DEEPEST:
        return value  # as nearly always
    level = [value]
    for _ in range(DEEPEST + 1):
        containers = [each for each in level if isinstance(each, dict | list)]
        level = [
            child for each in containers for child in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    return value


def fields(value: object, where: str) -> Mapping[str, Any]:
    """An object of fields. Raises ``WrongValue``, as all below."""
    if isinstance(value, Mapping):
        return value
    raise _wrong(where, "a JSON object")


def items(value: object, where: str, most: int) -> Sequence[Any]:
    """A list of at most ``most`` values."""
    if isinstance(value, list | tuple) and len(value) <= most:
        return value
    raise _wrong(where, f"a list of at most {most}")


def text(value: object, where: str) -> str:
    """Text of bounded length."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise _wrong(where, f"text of at most {LONGEST_TEXT} characters")
    if "\0" in value or (not value.isascii() and _UNKEPT.search(value)):
        raise _wrong(where, "text without NUL or half a surrogate pair")
    return value


def whole(value: object, where: str, most: int = LARGEST) -> int:
    """A whole number from 0 to ``most``."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    raise _wrong(where, f"a whole number from 0 to {most}")


def number(value: object, where: str) -> float:
    """A number that a float can hold; 400 digits fit an int only."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise _wrong(where, "a finite number")


def truth(value: object, where: str) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    raise _wrong(where, "true or false")


def _wrong(where: str, wanted: str) -> WrongValue:
    return WrongValue(f"{where}: must be {wanted}")
