from __future__ import annotations

import copy
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.cli import export_import
from autotuner.paths import snapshot_path
from autotuner.serving.lookup import lookup
from autotuner.store import Store
from tests.support.any_json import ANY_JSON
from tests.support.invoking import document, document_of, refused, run
from tests.support.promoted_store import EAGER, FAST, STEADY, digest, promotion

pytestmark = pytest.mark.usefixtures("no_variables")

WRONG_EVIDENCE = (
    (("ratio",), {"estimate": "fast"}, "figures.ratio.estimate: must be a finite number"),
    (("ratio",), {"estimate": 2.0}, "figures.ratio: "),
    (("p50_ms",), True, "figures.p50_ms: must be a finite number"),
    (("mae",), int("9" * 400), "figures.mae: must be a finite number"),
    (("stage",), "guess", "figures.stage: must be one of search, duel, shared"),
    (("conditions",), "quiet", "figures.conditions: must be a JSON object"),
    (("compile_report",), {"graphs": "many"}, "figures.compile_report.graphs: must be a whole number"),
    (("because",), 5, "figures.because: must be text"),
    (("triggers",), ["latency", 5], "figures.triggers[1]: must be text"),
    (("shared_from",), {"symbol": "AMD"}, "figures.shared_from: "),
    (("canary",), {"share": int("9" * 400), "previous": {}}, "figures.canary: its share"),
    (
        ("canary",),
        {"share": 0.5, "previous": {"speed": 9}},
        "figures.canary: settings: unknown field 'speed'",
    ),
)


@functools.cache
def exported() -> dict[str, Any]:
    """What a store with promotions of two symbols and a pin exports."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        with Store(str(path)) as store:
            store.promote(promotion())
            store.promote(promotion("MSFT", STEADY))
            store.pin("MSFT", EAGER, "earnings week")
        return document_of(run(path, "export"))


def changed(keys: tuple[str | int, ...], value: Any) -> Any:
    """The exported document with one value changed."""
    whole: Any = copy.deepcopy(exported())
    at = whole
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    return whole


def written(before: str, after: str) -> str:
    """The exported document with some of its text written otherwise, once."""
    text = json.dumps(exported())
    assert before in text
    return text.replace(before, after, 1)


def nested(levels: int) -> Any:
    """As many lists inside each other."""
    found: Any = 0
    for _ in range(levels):
        found = [found]
    return found


class TestExchange:
    def test_what_is_exported_is_served_where_it_is_imported(self, place: Path, tmp_path: Path) -> None:
        run(place, "pin", "MSFT", "--mode", "default")
        file, other = tmp_path / "settings.json", tmp_path / "other.db"
        result = run(place, "export", "--output", str(file))
        assert "1 promotion and 1 pin" in result.stderr
        assert result.stdout == ""
        assert "imported 1 promotion and 1 pin" in run(other, "import", str(file)).stdout
        assert lookup("AMD", db=str(other)).settings == FAST
        assert lookup("MSFT", db=str(other)).settings == STEADY
        assert (
            document_of(run(other, "export"))["promotions"] == document_of(run(place, "export"))["promotions"]
        )

    def test_importing_twice_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        text = json.dumps(exported())
        counts = json.loads(run(path, "import", "-", "--json", stdin=text).stdout)
        assert (counts["promotions"], counts["pins"]) == (2, 1)
        events = document(path, "history")["history"]
        assert "active already" in run(path, "import", "-", stdin=text).stdout
        assert document(path, "history")["history"] == events

    def test_a_store_of_its_own_is_never_written_over(self, place: Path) -> None:
        before = digest(place)
        for target in (place, snapshot_path(str(place))):
            assert "the store itself" in refused(run(place, "export", "--output", str(target)), 2)
        assert digest(place) == before

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{", "is not JSON"),
            ("", "is not JSON"),
            ("[" * 100_000, "is not JSON"),
            ("[]", "the document is not a JSON object"),
            ("{}", "lacks the field format"),
            (changed(("promotions", 0, "evidence", "unknown"), nested(51)), "nested deeper than 50 levels"),
            (changed(("promotions", 0, "evidence", "unknown"), nested(900)), "nested deeper than 50 levels"),
            (changed(("version",), 99), "not version 1"),
            (changed(("promotions", 1, "settings", "compile_mode"), "warp"), "promotions[1]: settings"),
            (changed(("promotions", 0, "settings"), {"speed": 9}), "unknown field 'speed'"),
            (changed(("promotions", 1, "symbol"), "../x"), "promotions[1]"),
            (
                changed(("promotions", 0, "evidence"), [1]),
                "promotions[0]: evidence is refused: figures: must",
            ),
            *(
                (
                    changed(("promotions", 1, "evidence", *keys), value),
                    f"promotions[1]: evidence is refused: {said}",
                )
                for keys, value, said in WRONG_EVIDENCE
            ),
            (changed(("pins", 0, "settings", "compile_mode"), "warp"), "pins[0]: settings"),
            (changed(("pins", 0, "symbol"), "A'; DROP TABLE"), "pins[0]"),
            (changed(("workloads", 0, "workload"), 5), "workloads[0]: workload is refused"),
            (changed(("workloads", 0, "workload", "model"), "other"), "workloads[0]: signature"),
            (changed(("workloads", 0, "workload", "speed"), 9), "unknown field 'speed'"),
            (changed(("environments", 0, "facts"), [1]), "environments[0]: facts are refused"),
            (changed(("environments", 0, "facts", "torch"), "9"), "environments[0]: fingerprint"),
            (changed(("version",), True), "not version 1"),
            (changed(("version",), 1.0), "not version 1"),
            (
                written('"version": 1,', '"version": 2, "version": 1,'),
                "document: 'version' stands there twice",
            ),
            (
                written('"symbol": "MSFT", "profile"', '"symbol": "AMD", "symbol": "MSFT", "profile"'),
                "promotions[1]: 'symbol' stands there twice",
            ),
            (
                written('"precision": "bf16"', '"precision": "fp32", "precision": "bf16"'),
                "promotions[0].settings: 'precision' stands there twice",
            ),
            (written('"p50_ms": 12.5', '"p50_ms": NaN'), "promotions[0].evidence.p50_ms: is not a finite"),
            (
                written('"p50_ms": 12.5', '"other": -Infinity'),
                "promotions[0].evidence.other: is not a finite",
            ),
            (
                written('"p50_ms": 12.5', '"other": [1e999]'),
                "promotions[0].evidence.other[0]: is not a finite",
            ),
            (written('"p50_ms": 12.5', f'"other": {"9" * 5000}'), "is not JSON"),
            (
                written('"earnings week"', r'"earnings \ud800 week"'),
                "pins[0].reason: holds half a surrogate pair",
            ),
            (
                written('"p50_ms"', r'"\uDFFF"'),
                "promotions[0].evidence: holds half a surrogate pair",
            ),
        ],
    )
    def test_a_bad_file_is_named_and_stores_nothing(
        self, place: Path, tmp_path: Path, text: Any, said: str
    ) -> None:
        file, before = tmp_path / "settings.json", digest(place)
        file.write_text(text if isinstance(text, str) else json.dumps(text))
        line = refused(run(place, "import", str(file)), 1)
        assert str(file) in line
        assert said in line
        assert digest(place) == before
        assert "Error" in refused(run(tmp_path / "new.db", "import", str(file)), 1)
        assert not (tmp_path / "new.db").exists()

    def test_evidence_takes_over_no_field_of_the_document_it_is_shown_in(
        self, place: Path, tmp_path: Path
    ) -> None:
        taking = changed(("promotions", 0, "evidence"), {"settings": 1, "symbol": "XYZ", "p50_ms": 2.5})
        (tmp_path / "settings.json").write_text(json.dumps(taking))
        assert run(tmp_path / "new.db", "import", str(tmp_path / "settings.json")).exit_code == 0
        shown = document(tmp_path / "new.db", "show", "AMD")
        assert (shown["symbol"], shown["p50_ms"]) == ("AMD", 2.5)
        assert shown["settings"] == exported()["promotions"][0]["settings"]

    def test_evidence_of_a_newer_version_may_be_nested_within_reason(self, tmp_path: Path) -> None:
        deep = json.dumps(changed(("promotions", 0, "evidence", "unknown"), nested(40)))
        assert run(tmp_path / "new.db", "import", "-", stdin=deep).exit_code == 0
        assert run(tmp_path / "new.db", "list").exit_code == 0

    def test_a_whole_surrogate_pair_and_an_escaped_backslash_are_text(self, tmp_path: Path) -> None:
        for reason in (r'"week \ud83d\ude00"', r'"week \\ud800"'):
            text = written('"earnings week"', reason)
            assert run(tmp_path / "new.db", "import", "-", stdin=text).exit_code == 0
        # Both are the pin of one symbol and one moment: the first stays.
        assert document_of(run(tmp_path / "new.db", "export"))["pins"][0]["reason"] == "week \U0001f600"

    def test_a_file_without_end_is_refused_before_it_is_read_whole(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(export_import, "LARGEST_BYTES", 1 << 20)
        with (tmp_path / "settings.json").open("wb") as file:
            file.truncate(1 << 40)
        assert "is larger than 1 MiB" in refused(run(place, "import", str(tmp_path / "settings.json")), 1)

    def test_a_file_that_is_not_text_is_named(self, place: Path, tmp_path: Path) -> None:
        (tmp_path / "settings.json").write_bytes(b"\xff\xfe\x00")
        assert "not UTF-8" in refused(run(place, "import", str(tmp_path / "settings.json")), 1)

    @pytest.mark.parametrize("name", ["none.json", "."])
    def test_a_file_that_cannot_be_read_is_bad_usage(self, place: Path, tmp_path: Path, name: str) -> None:
        assert "cannot be read" in refused(run(place, "import", str(tmp_path / name)), 2)

    @settings(max_examples=60)
    @given(data=st.data())
    def test_a_file_changed_anywhere_is_taken_whole_or_refused_in_one_line(self, data: st.DataObject) -> None:
        keys: list[Any] = []
        whole = copy.deepcopy(exported())
        at: Any = whole
        while True:
            places = list(at) if isinstance(at, dict) else list(range(len(at)))
            keys.append(data.draw(st.sampled_from(places)))
            child = at[keys[-1]]
            if not isinstance(child, dict | list) or not child or data.draw(st.booleans()):
                break
            at = child
        at[keys[-1]] = data.draw(ANY_JSON)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "store.db"
            result = run(path, "import", "-", stdin=json.dumps(whole))
            if result.exit_code != 0:
                refused(result, 1)
                assert not path.exists()
                return
            assert run(path, "list").exit_code == 0
            assert run(path, "db", "check").exit_code == 0
            assert {run(path, "show", symbol).exit_code for symbol in ("AMD", "MSFT")} <= {0, 1}

    @pytest.mark.parametrize(
        ("keys", "value", "reason"),
        [
            (("promotions", 0, "promoted_at"), "0001-01-01T00:00:00+00:00", "give a time from 1970 to 2200"),
            (("promotions", 0, "promoted_at"), "9999-12-31T23:59:59+00:00", "give a time from 1970 to 2200"),
            (("promotions", 0, "promoted_at"), "9" * 400, "is not an ISO 8601 time"),
            (("promotions", 0, "reason"), "x" * 20_000, "reason is longer than 10000 characters"),
            (("promotions", 0, "reason"), "\ud800", "half a surrogate pair"),
            (
                ("promotions", 0, "evidence", "because"),
                "\ud800",
                "promotions[0].evidence.because: holds half",
            ),
            (("promotions", 0, "evidence", "later"), ["x" * 1_000] * 1_100, "evidence is longer than"),
            (("environments", 0, "facts", "threads"), "many", "facts are refused: threads must be"),
            (
                ("environments", 0, "facts", "torch"),
                10**399,
                "facts are refused: torch must be printable text",
            ),
            (("environments", 0, "first_seen"), 5, "first_seen is not text"),
            (("workloads", 0, "workload", "model"), "\ud800", "workloads[0].workload.model: holds half"),
            (("workloads", 0, "workload", "requests", 0, "weight"), 10**399, "weight must be finite"),
            (("pins", 0, "pinned_at"), "2201-01-01T00:00:00+00:00", "give a time from 1970 to 2200"),
            (("pins", 0, "settings", "num_threads"), 10**399, "num_threads must be"),
        ],
    )
    def test_values_beyond_any_bound_are_refused_with_their_place(
        self, tmp_path: Path, keys: tuple[str | int, ...], value: Any, reason: str
    ) -> None:
        file, other = tmp_path / "settings.json", tmp_path / "other.db"
        file.write_text(json.dumps(changed(keys, value)))
        line = refused(run(other, "import", str(file)), 1)
        assert reason in line
        assert line.endswith("nothing was imported")
        assert not other.exists()
