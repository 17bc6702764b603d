from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autotuner.report.tables import label, moment, plain
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
