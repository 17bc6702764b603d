"""Reads a JSON document that is to be stored: whatever two readers could take for different things is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from autotuner.serving.plain_values import parsed

_HALF_PAIR = re.compile("[\ud800-\udfff]")
_MAY_BE_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class _Twice(dict[str, Any]):
    """An object in whose text a name stands twice; ``name`` is that."""

    name = ""


def strict(text: str) -> Any:
    """What JSON ``text`` holds. Raises ``ValueError`` with the reason and the place.

    Refused beside what is no JSON or nested too deeply: a name that stands twice in one object, NaN, infinity and
    numbers beyond a float's, and half a surrogate pair in a text.
    """
    value = parsed(text)  # says what is wrong with most documents, and where a deep one is no danger
    try:
        json.loads(text, object_pairs_hook=_each_once, parse_constant=_refused, parse_float=_finite)
    except _Refused:
        raise ValueError(_where(text)) from None
    if _MAY_BE_HALF.search(text) or _HALF_PAIR.search(text):
        for place, each in _walk(value, ""):
            if isinstance(each, str) and _HALF_PAIR.search(each):
                raise ValueError(f"{place or 'the document'}: holds half a surrogate pair, which is no text")
    return value


class _Refused(Exception):  # noqa: N818 - never leaves this module
    pass


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) != len({name for name, _ in pairs}):
        raise _Refused


def _refused(_constant: str) -> float:
    raise _Refused


def _finite(text: str) -> float:
    if math.isinf(float(text)):
        raise _Refused
    return 0.0


def _where(text: str) -> str:
    """What is refused of a document in which something is, and its place."""
    for place, each in _walk(json.loads(text, object_pairs_hook=_marked), ""):
        if isinstance(each, _Twice):
            return f"{place or 'the document'}: {each.name!a} stands there twice"
        if isinstance(each, float) and not math.isfinite(each):
            return f"{place or 'the document'}: is not a finite number"
    return "holds what is refused"


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(names) == len(set(names)):
        return dict(pairs)
    found = _Twice(pairs)
    found.name = next(name for place, name in enumerate(names) if name in names[:place])
    return found


def _walk(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every value with its place, such as ``promotions[0].evidence.ratio``; names of objects are values, too."""
    yield place, value
    if isinstance(value, dict):
        for name, each in value.items():
            yield place, name
            yield from _walk(each, f"{place}.{_shown(name)}" if place else _shown(name))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _walk(each, f"{place}[{number}]")


def _shown(name: str) -> str:
    return ascii(name)[1:-1][:60]
