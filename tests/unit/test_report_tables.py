from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from autotuner.cli.options import json_text, print_rows
from autotuner.report.long_table import long_lines
from autotuner.report.tables import label, moment, plain, table_of
from tests.support.any_json import ANY_JSON


class TestText:
    @given(st.text())
    def test_stored_text_becomes_one_printable_line(self, text: str) -> None:
        line = plain(text)
        assert all(letter.isprintable() for letter in line)
        assert [letter for letter in line if not letter.isspace()] == [
            letter for letter in text if letter.isprintable() and not letter.isspace()
        ]
        assert plain(line) == line

    @given(st.text())
    def test_any_text_where_a_time_belongs_is_shown(self, text: str) -> None:
        assert all(letter.isprintable() for letter in moment(text))

    @given(ANY_JSON)
    def test_any_json_where_settings_belong_is_labelled(self, value: Any) -> None:
        assert all(letter.isprintable() for letter in label({"settings": value}))


class TestLongTables:
    NAMES = ("symbol", "settings", "pinned")

    def rows(self, text: str) -> list[tuple[str, ...]]:
        return [(f"S{number:03}", text, "" if number % 2 else text) for number in range(60)]

    @pytest.mark.parametrize("width", [60, 100])
    def test_one_that_fits_looks_as_a_short_one_does(self, width: int) -> None:
        rows = self.rows("default fp32")
        console = Console(width=width, file=io.StringIO())
        console.print(table_of(self.NAMES, rows))
        short = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
        assert list(long_lines(self.NAMES, rows, width=width)) == short

    @given(st.integers(40, 120), st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=150))
    def test_one_that_does_not_fit_is_folded_and_loses_nothing(self, width: int, text: str) -> None:
        rows = [("AMD", f"default {text}", f"freezing {text}")]
        lines = list(long_lines(self.NAMES, rows, width=width))
        assert max(map(len, lines)) <= width
        letters = Counter("".join(lines[3:]).replace(" ", ""))
        assert letters == Counter("".join(rows[0]).replace(" ", ""))

    def test_a_listing_of_thousands_shows_each_in_its_order(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [(f"S{number}", "default fp32", "") for number in range(2000)]
        print_rows(self.NAMES, rows)
        printed = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in printed[3:-1]] == [row[0] for row in rows]

    def test_a_document_with_thousands_is_json_with_one_item_a_line(self) -> None:
        document = {"symbols": [{"symbol": f"S{number}"} for number in range(2000)], "none": [], "n": 1}
        text = json_text(document)
        assert json.loads(text) == document
        assert len(text.splitlines()) == 2000 + 6
