"""Changes inputs as somebody may who knows their form: any bytes, lines of text, fields of binaries."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

Mutation = Callable[[bytes, random.Random], bytes]

SEPARATOR = b"\n--8<--\n"
"""Between the parts of an input that stands for several files."""
TEXTS = (
    "",
    " ",
    "0",
    "-1",
    "1e999",
    "nan",
    "inf",
    "9" * 400,
    "9" * 5000,
    "0x10",
    "null",
    "true",
    "../../etc/passwd",
    "/dev/zero",
    "~nobody/x",
    "%00",
    "%2e%2e%2f",
    "\0",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202eDMA",
    "\ufeff",
    "\u2028",
    "\x85",
    "\r",
    "\n",
    "'; DROP TABLE promotions; --",
    "=cmd|' /C calc'!A0",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "A" * 33,
    "x" * 10_001,
    "٣",
    "ß",
    "é" * 70,
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "2026-02-30",
    "[" * 2000,
    '"',
    "'",
    "\\",
    "#",
    ",",
    ";",
    "\t",
)
_WHOLE_NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32_767, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
_LONGEST = 200_000
"""Bytes beyond which an input is cut: what is bounded by size is bounded far below that, or said to be read whole."""


def any_bytes(data: bytes, chance: random.Random) -> bytes:
    """One to four changes that know nothing of the form."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(_BYTES)(data, chance)
    return data[:_LONGEST]


def lines(data: bytes, chance: random.Random) -> bytes:
    """One to three changes to lines and words of text."""
    if chance.random() < 0.25:
        return any_bytes(data, chance)
    for _ in range(chance.choice((1, 1, 2, 3))):
        data = chance.choice(_LINES)(data, chance)
    return data[:_LONGEST]


def strange_text(chance: random.Random) -> bytes:
    """A text that has broken readers before."""
    return chance.choice(TEXTS).encode("utf-8", "surrogatepass")


def joined(*parts: bytes) -> bytes:
    """Several files as one input."""
    return SEPARATOR.join(parts)


def parts_of(data: bytes, wanted: int) -> list[bytes]:
    """The files of an input, as many as wanted, empty where there are none."""
    found = data.split(SEPARATOR)[:wanted]
    return [*found, *[b""] * (wanted - len(found))]


def in_one_part(data: bytes, chance: random.Random, mutations: Sequence[Mutation]) -> bytes:
    """``data`` with one of its parts changed, each as its own mutation does."""
    parts = parts_of(data, len(mutations))
    place = chance.randrange(len(mutations))
    parts[place] = mutations[place](parts[place], chance)
    return joined(*parts)


def _place(data: bytes, chance: random.Random) -> int:
    # what heads a file decides more than what follows
    return chance.randrange(min(len(data), 64) if chance.random() < 0.3 else len(data)) if data else 0


def _flip(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return b"\0"
    changed, place = bytearray(data), _place(data, chance)
    changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _other_byte(data: bytes, chance: random.Random) -> bytes:
    place = _place(data, chance)
    return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]


def _insert(data: bytes, chance: random.Random) -> bytes:
    place = _place(data, chance)
    new = strange_text(chance) if chance.random() < 0.5 else chance.randbytes(chance.randrange(1, 9))
    return data[:place] + new + data[place:]


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: _place(data, chance)]


def _leave_out(data: bytes, chance: random.Random) -> bytes:
    place = _place(data, chance)
    return data[:place] + data[place + chance.choice((1, 1, 2, 4, 8, 64, 512)) :]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    place = _place(data, chance)
    part = data[place : place + chance.choice((1, 4, 16, 256))]
    return data[:place] + part * chance.choice((2, 3, 100)) + data[place:]


def _length(data: bytes, chance: random.Random) -> bytes:
    """A whole number of 1, 2, 4 or 8 bytes written over whatever is there."""
    width, form = chance.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    number = chance.choice(_WHOLE_NUMBERS) & ((1 << 8 * width) - 1)
    place = _place(data, chance)
    return data[:place] + struct.pack(chance.choice("<>") + form, number) + data[place + width :]


def _move(data: bytes, chance: random.Random) -> bytes:
    begin, end = sorted((_place(data, chance), _place(data, chance)))
    rest = data[:begin] + data[end:]
    place = _place(rest, chance)
    return rest[:place] + data[begin:end] + rest[place:]


_BYTES: tuple[Mutation, ...] = (
    _flip,
    _flip,
    _other_byte,
    _insert,
    _cut,
    _leave_out,
    _repeat,
    _length,
    _length,
    _move,
)


def _changed_lines(data: bytes, chance: random.Random) -> bytes:
    found = data.split(b"\n")
    place, other = chance.randrange(len(found)), chance.randrange(len(found))
    match chance.randrange(5):
        case 0:
            del found[place]
        case 1:
            found.insert(place, found[other])
        case 2:
            found[place], found[other] = found[other], found[place]
        case 3:
            found[place] = strange_text(chance)
        case _:
            found[place : place + 1] = [found[place]] * chance.choice((2, 10, 200))
    return b"\n".join(found)


def _changed_word(data: bytes, chance: random.Random) -> bytes:
    """A stretch between two signs replaced, repeated or left out."""
    begin = _place(data, chance)
    while begin and data[begin - 1 : begin].isalnum():
        begin -= 1
    end = begin
    while end < len(data) and data[end : end + 1].isalnum():
        end += 1
    word = data[begin:end]
    new = chance.choice(
        (strange_text(chance), b"", word * 3, word[::-1], word.swapcase(), b"-" + word, word + b".5")
    )
    return data[:begin] + new + data[max(end, begin + (not word)) :]


_LINES: tuple[Mutation, ...] = (_changed_lines, _changed_word, _changed_word, any_bytes)
