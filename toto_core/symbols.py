"""Decides what may be called a symbol, before it touches a path, a query or a crontab."""

from __future__ import annotations

import re

from toto_core.lines import OneLineError

MAX_QUOTED_LENGTH = 60

# Matched before upper-casing: "ß".upper() is "SS", so upper-casing first would let non-ASCII text through.
_SYMBOL = re.compile(r"[A-Za-z0-9^][A-Za-z0-9._=&/^-]{0,31}")


class SymbolError(OneLineError):
    """The text is not a symbol; the message is one line."""


def parse_symbol(text: str) -> str:
    """Return `text` upper-cased, a match of `[A-Z0-9^][A-Z0-9._=&/^-]{0,31}`, else raise SymbolError."""
    # fullmatch, because "$" would also match before a trailing newline.
    if _SYMBOL.fullmatch(text) is None:
        raise SymbolError(
            f"{quoted(text)} is not a symbol: use 1 to 32 of A-Z, 0-9 and . _ = & / ^ -, "
            "beginning with a letter, a digit or ^"
        )
    return text.upper()


def file_stem(symbol: str) -> str:
    """The symbol as a file's name without its ending: ``BTC/USDT`` is ``BTC%2FUSDT``."""
    return symbol.replace("/", "%2F")  # the only character of a symbol that no file name can hold


def symbol_of_stem(stem: str) -> str:
    """The symbol that a file's name without its ending stands for, in any case. Raises SymbolError for none."""
    if "%" not in stem:
        return parse_symbol(stem)
    from urllib.parse import unquote  # a lookup needs none of it

    try:
        return parse_symbol(unquote(stem, errors="strict"))
    except UnicodeDecodeError:
        raise SymbolError(f"{quoted(stem)} is not a symbol: its percent signs encode no UTF-8") from None


def quoted(text: str) -> str:
    """Return `repr(text)` on one line, cut to 60 characters for use in an error message."""
    whole = repr(text[:MAX_QUOTED_LENGTH])
    if len(whole) <= MAX_QUOTED_LENGTH and len(text) <= MAX_QUOTED_LENGTH:
        return whole
    return whole[: MAX_QUOTED_LENGTH - 3] + "..."
