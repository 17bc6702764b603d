from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toto_core.symbols import MAX_QUOTED_LENGTH, SymbolError, file_stem, parse_symbol, quoted, symbol_of_stem

SYMBOL_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("AMD", "AMD"),
        ("amd", "AMD"),
        ("brk.b", "BRK.B"),
        ("7203", "7203"),
        ("A..B", "A..B"),
        ("x_-", "X_-"),
        ("^gspc", "^GSPC"),
        ("BTC/USDT", "BTC/USDT"),
        ("es=f", "ES=F"),
        ("eurusd=x", "EURUSD=X"),
        ("m&m.ns", "M&M.NS"),
    ],
)
def test_a_symbol_is_upper_cased(text: str, symbol: str) -> None:
    assert parse_symbol(text) == symbol


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "AMD ",
        " AMD",
        "AMD\n",
        "AMD\r\n",
        "AMD\x00",
        "../AMD",
        "..",
        ".AMD",
        "-AMD",
        "_AMD",
        "/AMD",
        "=AMD",
        "A:B",
        "A\\B",
        "A B",
        "A;rm -rf",
        "A'B",
        "A%B",
        "$(id)",
        "ß",
        "straße",
        "\u017f",
        "\ufb01",
        "ÀMD",
        "\u0410\u041cD",
        "A\u0661",
        "A" * 33,
    ],
)
def test_anything_else_is_refused_on_one_line_that_quotes_it(text: str) -> None:
    with pytest.raises(SymbolError) as refusal:
        parse_symbol(text)
    message = str(refusal.value)
    assert message.startswith(repr(text))
    assert len(message.splitlines()) == 1


def test_thirty_two_characters_are_the_longest_symbol() -> None:
    assert parse_symbol("a" * 32) == "A" * 32


def test_a_very_long_text_is_cut_in_the_message() -> None:
    with pytest.raises(SymbolError) as refusal:
        parse_symbol("x" * 1_000_000)
    assert len(str(refusal.value)) < 200
    assert "xxx..." in str(refusal.value)


@given(text=st.one_of(st.text(), st.text(alphabet=SYMBOL_CHARACTERS, max_size=40)))
@example(text="AMD\n")
@example(text="ß")
def test_what_is_accepted_is_exactly_the_rule_and_stays_in_its_folder(text: str) -> None:
    allowed = re.fullmatch(r"[A-Z0-9^][A-Z0-9._=&/^-]{0,31}", text.upper()) is not None and text.isascii()
    if not allowed:
        with pytest.raises(SymbolError):
            parse_symbol(text)
        return
    symbol = parse_symbol(text)
    assert symbol == text.upper()
    assert parse_symbol(symbol) == symbol
    assert (Path("folder") / f"{file_stem(symbol)}.csv").resolve().parent == Path("folder").resolve()
    assert symbol_of_stem(file_stem(symbol)) == symbol


@given(text=st.text(max_size=200))
def test_quoted_text_is_one_printable_line_of_at_most_sixty_characters(text: str) -> None:
    shown = quoted(text)
    assert shown.isprintable()
    assert len(shown) <= MAX_QUOTED_LENGTH
    assert shown == repr(text) or shown.endswith("...")
