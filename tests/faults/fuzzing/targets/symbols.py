"""What may be called a symbol, and which a file's name stands for."""

from __future__ import annotations

import re

from tests.faults.fuzzing import mutation
from tests.faults.fuzzing.verdicts import check, refused_with
from toto_core.symbols import SymbolError, file_stem, parse_symbol, symbol_of_stem

SECONDS = 1.0  # a collection of what this process has imported takes a part of that
mutated = mutation.any_bytes
_SYMBOL = re.compile(r"[A-Z0-9^][A-Z0-9._=&/^-]{0,31}")


def seeds() -> tuple[bytes, ...]:
    return (
        b"AMD",
        b"btc/usdt",
        b"^GSPC",
        b"ES=F",
        b"M&M.NS",
        b"BTC%2FUSDT",
        b"%5EGSPC",
        b"eurusd=x",
        b"0700.HK",
    )


def one(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for read in (parse_symbol, symbol_of_stem):
        with refused_with(SymbolError):
            symbol = read(text)
            check(_SYMBOL.fullmatch(symbol) is not None, f"{symbol!a} came of it")
            check("/" not in file_stem(symbol), f"{file_stem(symbol)!a} is no name of a file")
            check(symbol_of_stem(file_stem(symbol)) == symbol, "a stem stands for its symbol")
