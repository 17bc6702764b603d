"""Errors of the tuner: each message is one line that names the thing, the reason, and what to do."""

from __future__ import annotations

import re

from storage.masking import masked
from toto_core import lines
from toto_core.lines import escaped

_LONGEST_LINE = 500
_COMMAND = re.compile(r"\n\s*Command:\n.*?\n\s*Output:\n", re.DOTALL)


class AutotuneError(Exception):
    """Something failed; the command line ends with exit code 1 and this message, one line whatever it quotes."""

    def __init__(self, message: str) -> None:
        super().__init__(lines.one_line(message))


class UsageError(AutotuneError):
    """What was asked makes no sense; the command line ends with exit code 2 and this message."""


def visible(text: str) -> str:
    """``text`` as it may be printed: ``escaped``, and without the passwords of addresses."""
    return escaped(masked(text))


def plain_line(text: str) -> str:
    """``text`` on one line, safe to print whatever it quotes."""
    return visible(" ".join(text.split()))


def one_line(text: str) -> str:
    """The same of bounded length."""
    line = plain_line(text)
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 3]}..."


def cause(error: BaseException) -> str:
    """An exception in one line, without torch's compiler command lines and advice on verbose logging."""
    said = [line.strip() for line in _COMMAND.sub(" ", str(error)).splitlines()]
    kept = [line for line in said if not line.startswith(("Set TORCHDYNAMO_VERBOSE", "For even more"))]
    return one_line(f"{type(error).__name__}: {' '.join(kept).strip() or 'no message'}")
