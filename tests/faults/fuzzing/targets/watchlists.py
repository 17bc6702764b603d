"""Watchlists and files of symbols."""

from __future__ import annotations

from autotuner.errors import UsageError
from autotuner.files import read_symbols
from tests.faults.fuzzing import mutation, scratch
from tests.faults.fuzzing.verdicts import check, refused_with
from toto_core.symbols import parse_symbol

SECONDS = 0.5
mutated = mutation.lines


def seeds() -> tuple[bytes, ...]:
    text = "# watched\nAMD\nbtc/usdt  # coins\n\n^GSPC\nES=F\r\nM&M.NS\n"
    return tuple(
        text.encode(encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32")
    )


def one(data: bytes) -> None:
    path = scratch.folder("watchlists") / "symbols.txt"
    path.write_bytes(data)
    with refused_with(UsageError):
        symbols = read_symbols(path)
        check(bool(symbols) and len(set(symbols)) == len(symbols), "each is there once")
        check(all(parse_symbol(symbol) == symbol for symbol in symbols), "each is a symbol")
