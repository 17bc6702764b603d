"""Decides what may be called a symbol, before it touches a path, a query or a crontab."""

from __future__ import annotations

import re

MAX_QUOTED_LENGTH = 60

# Matched before upper-casing: "ß".upper() is "SS", so upper-casing first would let non-ASCII text through.
_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


class SymbolError(ValueError):
    """The text is not a symbol; the message is one line."""


def parse_symbol(text: str) -> str:
    """Return `text` upper-cased, a match of `[A-Z0-9][A-Z0-9._-]{0,31}`. Raises SymbolError for anything else."""
    # fullmatch, because "$" would also match before a trailing newline.
    if _SYMBOL.fullmatch(text) is None:
        raise SymbolError(
            f"{quoted(text)} is not a symbol: use 1 to 32 of A-Z, 0-9, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    return text.upper()


def quoted(text: str) -> str:
    """Return `repr(text)` on one line, cut to 60 characters for use in an error message."""
    whole = repr(text[:MAX_QUOTED_LENGTH])
    if len(whole) <= MAX_QUOTED_LENGTH and len(text) <= MAX_QUOTED_LENGTH:
        return whole
    return whole[: MAX_QUOTED_LENGTH - 3] + "..."
