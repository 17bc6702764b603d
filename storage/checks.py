"""What values a record may hold: one check a kind of field, each of which says what is wrong in a few words."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, get_args

from storage.errors import InvalidRecord

_SYMBOL = re.compile(r"[A-Z0-9^][A-Z0-9._=&/^-]{0,31}")
_NO_SYMBOL = "is not a symbol: use capitals, digits and . _ = & / ^ -, at most 32 characters"
_UNKEPT = re.compile("[\ud800-\udfff]")
_MAY_BE_INFINITE = re.compile(r"[0-9](?:[eE]\+?0*[0-9]{3}|[0-9]{299})")
_LONGEST_QUOTE = 60
DEEPEST = 450
"""Levels of lists and objects inside each other that can be read, changed and printed without an end of the stack."""
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""Times of what was done with a store: sums and differences with others could not be held."""
_OF_PRICES = frozenset({"first_timestamp", "last_timestamp"})  # they may be of any century
_MAY_BE_EMPTY = frozenset({"detail", "reason", "rolled_back_reason"})
_RECURS_BELOW = 1_000  # characters; settings are shorter and the same for many symbols
_READ_ELSEWHERE = frozenset({"payload_json"})  # one note that cannot be read must not hide the others


def check_symbol(symbol: object) -> str:
    """The symbol unchanged. Raises `InvalidRecord` unless it matches `[A-Z0-9^][A-Z0-9._=&/^-]{0,31}`."""
    if isinstance(symbol, str) and _SYMBOL.fullmatch(symbol):
        return symbol
    raise InvalidRecord(f"{quoted(symbol)} {_NO_SYMBOL}")


def is_symbol(value: object) -> bool:
    """Whether `check_symbol` takes it."""
    return isinstance(value, str) and _SYMBOL.fullmatch(value) is not None


def text_fault(name: str, value: Any) -> str:
    """Why no record holds ``value`` as its text ``name``, empty when it may."""
    if not isinstance(value, str):
        return f"is {type(value).__name__}: give text"
    if not value and name not in _MAY_BE_EMPTY:
        return "is empty"
    if "\0" in value or (not value.isascii() and _UNKEPT.search(value)):
        return "holds a NUL or half a surrogate pair, which no database keeps"
    if name == "symbol" and not _SYMBOL.fullmatch(value):
        return f"{quoted(value)} {_NO_SYMBOL}"
    if not name.endswith("_json") or name in _READ_ELSEWHERE:
        return ""
    return _known_json_fault(value) if len(value) < _RECURS_BELOW else json_fault(value)


def json_fault(value: str) -> str:
    """Why a text is no JSON, empty when it is."""
    try:
        parsed = json.loads(value, parse_constant=_refuse_constant, parse_float=_finite_of(value))
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    return f"is nested deeper than {DEEPEST} levels" if _too_deep(value, parsed) else ""


_known_json_fault = functools.lru_cache(maxsize=1024)(json_fault)


def _finite_of(text: str) -> Callable[[str], float] | None:
    """How to read the floats of ``text``, None where none of them can be infinite, as nearly always."""
    return _finite if _MAY_BE_INFINITE.search(text) else None


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:20]} is more than a number can be")
    return float(text)


def _too_deep(text: str, value: Any) -> bool:
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    level = [value]
    for _ in range(DEEPEST):
        containers = [each for each in level if isinstance(each, dict | list)]
        level = [
            child for each in containers for child in (each.values() if isinstance(each, dict) else each)
        ]
    return any(isinstance(each, dict | list) for each in level)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def int_fault(_name: str, value: Any) -> str:
    """The same of a whole number."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return "" if fits else f"is {quoted(value)}: give a whole number from 0 to 2^63 - 1"


def float_fault(_name: str, value: Any) -> str:
    """The same of a number."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return "" if fits else f"is {quoted(value)}: give a finite number"


def time_fault(name: str, value: Any) -> str:
    """The same of a time."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        return f"is {quoted(value)}: give a datetime with a time zone"
    try:
        value.astimezone(UTC)
    except OverflowError:
        return f"is {value}: give a time that exists in UTC"
    if name not in _OF_PRICES and not EARLIEST <= value <= LATEST:
        return f"is {value}: give a time from {EARLIEST.year} to {LATEST.year}"
    return ""


def quoted(value: object) -> str:
    """A value as a message may quote it: in ASCII, of bounded length."""
    text = ascii(value)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."


def choice(choices: Any) -> Callable[[str, Any], str]:
    """The same of what is one of the ``choices``, a literal type."""
    allowed = get_args(choices)
    return lambda _name, value: (
        "" if value in allowed else f"is {quoted(value)}: use one of {', '.join(allowed)}"
    )
