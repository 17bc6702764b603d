from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from autotuner.environment import current_environment
from autotuner.serving.canary import Canary
from autotuner.serving.lookup import Resolution, lookup
from autotuner.workload import RequestShape, Workload
from tests.support.snapshots import BF16, COMPILED, SMALL, elsewhere, entry, pin, published
from toto_core.settings import COMPILE_MODES, RuntimeSettings
from toto_core.symbols import SymbolError, parse_symbol

SAFE = RuntimeSettings()
EXPLICIT = RuntimeSettings(compile_mode="max-autotune")
OTHER = RuntimeSettings(precision="bf16", num_threads=1)
LARGE = Workload(shapes=(RequestShape(context_length=2048),))
TWO_SHAPES = Workload(shapes=(RequestShape(context_length=64), RequestShape(context_length=128)))


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "AUTOTUNE_DB"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def db(tmp_path: Path) -> str:
    return str(tmp_path / "autotune.db")


def steps(found: Resolution) -> list[str]:
    return [reason.partition(":")[0] for reason in found.reasons]


def reason(found: Resolution, step: str) -> str:
    (line,) = (line for line in found.reasons if line.startswith(f"{step}:"))
    assert "\n" not in line
    return line.removeprefix(f"{step}: ")


def test_an_unproven_canary_of_one_symbol_is_no_winner_for_others(db: str) -> None:
    canary = Canary(share=1.0, previous=SAFE).to_dict()
    proven = entry("AAPL", settings=OTHER, number=1)
    unproven = entry("BTC", settings=BF16, number=2, promised_json=json.dumps({"canary": canary}))
    published(db, unproven)
    found = lookup("AMD", db=db, workload=SMALL)
    assert found.source == "default"
    assert reason(found, "workload winner") == "passed over while it is a canary: 1 of 1"

    published(db, proven, unproven)
    assert lookup("AMD", db=db, workload=SMALL).settings == OTHER
    assert lookup("BTC", db=db, workload=SMALL).settings == BF16


def test_each_step_gives_way_to_the_one_before_it_and_says_why_those_missed(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    published(db)
    found.append(lookup("AMD", db=db, workload=SMALL))
    winner = entry("AAPL", settings=OTHER)
    published(db, winner)
    found.append(lookup("AMD", db=db, workload=SMALL))
    published(db, winner, entry())
    found.append(lookup("AMD", db=db, workload=SMALL))
    published(db, winner, entry(), pins=(pin(),))
    found.append(lookup("AMD", db=db, workload=SMALL))
    monkeypatch.setenv("TOTO_COMPILE_MODE", "reduce-overhead")
    found.append(lookup("AMD", db=db, workload=SMALL))
    found.append(lookup("AMD", db=db, workload=SMALL, settings=EXPLICIT))
    monkeypatch.setenv("TOTO_DISABLE_COMPILE", "1")
    found.append(lookup("AMD", db=db, workload=SMALL, settings=EXPLICIT))

    order = ["kill switch", "explicit", "environment variable", "pin", "promotion", "workload winner"]
    assert [(answer.source, answer.settings) for answer in found] == [
        ("default", SAFE),
        ("workload winner", OTHER),
        ("promotion", BF16),
        ("pin", COMPILED),
        ("environment variable", COMPILED.replace(compile_mode="reduce-overhead")),
        ("explicit", EXPLICIT),
        ("kill switch", SAFE),
    ]
    assert [steps(answer) for answer in found] == [
        order,
        order[:5],
        order[:4],
        order[:3],
        ["kill switch", "explicit", "environment variable"],
        order[:1],
        [],
    ]
    assert {(answer.symbol, answer.model, answer.workload) for answer in found} == {
        ("AMD", "toto-mini", SMALL)
    }


def test_a_promotion_brings_its_workload_profile_time_and_key(db: str) -> None:
    published(db, entry(profile="accuracy", number=3))
    found = lookup("AMD", db=db)

    assert (found.source, found.settings, found.settings_key) == ("promotion", BF16, BF16.key)
    assert (found.model, found.workload, found.profile) == ("toto-mini", SMALL, "accuracy")
    assert found.since == "2026-05-07T12:00:00+00:00"


def test_a_symbol_is_found_in_any_case(db: str) -> None:
    published(db, entry())
    assert lookup("amd", db=db).symbol == "AMD"
    assert lookup("amd", db=db).source == "promotion"


@pytest.mark.parametrize("value", ["1", "true", " YES ", "on"])
def test_the_kill_switch_keeps_what_the_symbol_is_run_for(
    db: str, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    published(db, entry(profile="accuracy"), pins=(pin(),))
    monkeypatch.setenv("TOTO_DISABLE_COMPILE", value)
    found = lookup("AMD", db=db, settings=EXPLICIT)

    assert (found.source, found.settings, found.since) == ("kill switch", SAFE, None)
    assert (found.model, found.workload, found.profile) == ("toto-mini", SMALL, "accuracy")


@pytest.mark.parametrize("value", ["2", "enabled", "1; rm", "\udcff"])
def test_a_kill_switch_of_unknown_value_is_ignored_and_that_is_said(
    db: str, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    published(db, entry())
    monkeypatch.setenv("TOTO_DISABLE_COMPILE", value)
    found = lookup("AMD", db=db)

    assert found.source == "promotion"
    assert reason(found, "kill switch") == f"TOTO_DISABLE_COMPILE={value!a} is ignored: use 1 or 0"


@pytest.mark.parametrize("value", ["0", "false", "", " off "])
def test_a_kill_switch_may_be_off(db: str, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    published(db, entry())
    monkeypatch.setenv("TOTO_DISABLE_COMPILE", value)
    assert reason(lookup("AMD", db=db), "kill switch") == "TOTO_DISABLE_COMPILE is off"


@pytest.mark.parametrize("mode", COMPILE_MODES)
def test_the_mode_variable_changes_the_mode_alone(
    db: str, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    published(db, entry(settings=OTHER.replace(freezing=True)))
    monkeypatch.setenv("TOTO_COMPILE_MODE", f" {mode} ")
    found = lookup("AMD", db=db)

    assert found.settings == OTHER.replace(freezing=True, compile_mode=mode)
    assert found.source == "environment variable"
    assert reason(found, "environment variable").endswith("the rest is of the promotion")


def test_the_mode_variable_works_without_any_store(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTO_COMPILE_MODE", "default")
    found = lookup("AMD", db=db)

    assert found.settings == SAFE.replace(compile_mode="default")
    assert steps(found)[0] == "snapshot"


@pytest.mark.parametrize("mode", ["fast", "DEFAULT", "max autotune", "\udcff", "a\nb"])
def test_an_unknown_mode_in_the_variable_is_ignored_and_that_is_said(
    db: str, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    published(db, entry())
    monkeypatch.setenv("TOTO_COMPILE_MODE", mode)
    found = lookup("AMD", db=db)

    assert (found.source, found.settings) == ("promotion", BF16)
    assert "is ignored: known are eager, default" in reason(found, "environment variable")


def test_another_environment_is_described_field_by_field(db: str) -> None:
    published(db, entry(environment=elsewhere(torch="2.12.0")))
    found = lookup("AMD", db=db)

    here = current_environment().torch
    assert reason(found, "promotion") == (
        f"measured in another environment: torch: 2.12.0 there, {here} here"
    )
    assert (found.source, found.settings) == ("default", SAFE)
    assert (found.workload, found.profile) == (SMALL, "production")
    assert reason(found, "workload winner").startswith("measured in another environment: torch")


def test_settings_of_one_device_are_not_used_on_another(db: str) -> None:
    published(db, entry())
    for device in ("cuda", "cuda:0"):
        found = lookup("AMD", db=db, device=device)
        assert found.source == "default"
        assert "device: cpu there, cuda here" in reason(found, "promotion")


@pytest.mark.parametrize("device", ["tpu", "", "CPU", "auto"])
def test_a_device_that_is_neither_is_looked_up_as_cpu_and_that_is_said(db: str, device: str) -> None:
    published(db, entry())
    found = lookup("AMD", db=db, device=device)

    assert found.source == "promotion"
    assert reason(found, "device") == f"{device!r} is neither cpu nor cuda; looked up for cpu"


def test_another_workload_profile_and_model_are_described_field_by_field(db: str) -> None:
    published(db, entry())
    wanted = replace(SMALL, shapes=(replace(SMALL.shapes[0], context_length=96),), calls_per_process=50)
    found = lookup("AMD", db=db, workload=wanted, profile="accuracy", model="own/model")

    assert reason(found, "promotion") == (
        "made for another model: toto-mini there, own/model wanted; "
        "made for another workload: model: toto-mini there, own/model wanted, "
        "calls_per_process: 10000 there, 50 wanted, context_length: 64 there, 96 wanted; "
        "made for another profile: production there, accuracy wanted"
    )
    assert (found.source, found.model, found.profile) == ("default", "own/model", "accuracy")
    assert found.workload == replace(wanted, model="own/model")


def test_mixes_of_request_shapes_are_described_too(db: str) -> None:
    published(db, entry())
    line = reason(lookup("AMD", db=db, workload=TWO_SHAPES), "promotion")

    assert "requests: None there" in line
    assert TWO_SHAPES.summary in line


def test_the_nearest_entry_explains_the_miss(db: str) -> None:
    far = entry(workload=LARGE, profile="accuracy", environment=elsewhere(torch="1.0"), number=9)
    near = entry(environment=elsewhere(threads=999), newest=False)
    published(db, far, near)
    line = reason(lookup("AMD", db=db, workload=SMALL, profile="production"), "promotion")

    assert line.startswith("measured in another environment: threads: 999 there")


def test_nothing_asked_means_what_the_symbol_was_last_promoted_for(db: str) -> None:
    last = entry(workload=LARGE, profile="accuracy", settings=OTHER, number=1, newest=True)
    published(db, entry(number=7, newest=False), last, entry(profile="throughput", number=8, newest=False))
    found = lookup("AMD", db=db)

    assert (found.settings, found.workload, found.profile) == (OTHER, LARGE, "accuracy")


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"profile": "accuracy"}, "accuracy/large"),
        ({"workload": SMALL}, "production/small"),
        ({"workload": SMALL, "profile": "accuracy"}, "accuracy/small"),
        ({"model": "toto-mini"}, "production/large"),
        ({"model": "own/model"}, "production/own"),
    ],
)
def test_what_is_asked_is_matched_and_the_rest_follows_the_last_promotion(
    db: str, asked: dict[str, Any], wanted: str
) -> None:
    own = replace(LARGE, model="own/model")
    table = {
        "production/large": entry(workload=LARGE, number=1),
        "accuracy/large": entry(workload=LARGE, profile="accuracy", number=2, newest=False),
        "production/small": entry(number=3, newest=False),
        "accuracy/small": entry(profile="accuracy", number=4, newest=False),
        "production/own": entry(workload=own, number=5, newest=False),
    }
    marked = [
        replace(item, settings_json=SAFE.replace(num_threads=threads).to_json())
        for threads, item in enumerate(table.values(), start=1)
    ]
    published(db, *marked)
    found = lookup("AMD", db=db, **asked)

    assert found.source == "promotion"
    assert list(table)[(found.settings.num_threads or 0) - 1] == wanted
    assert found.since == table[wanted].since.isoformat()


def test_settings_for_this_environment_are_used_when_the_last_promotion_was_elsewhere(db: str) -> None:
    there = entry(settings=COMPILED, environment=elsewhere(torch="9.9"), number=2)
    published(db, there, entry(number=1, newest=False))
    found = lookup("AMD", db=db)

    assert (found.source, found.settings) == ("promotion", BF16)


def test_a_model_that_is_asked_for_overrides_the_workloads_own(db: str) -> None:
    own = replace(SMALL, model="own/model")
    published(db, entry(workload=own))
    asked = replace(SMALL, revision="abc123")

    assert lookup("AMD", db=db, model="own/model", workload=asked).source == "promotion"
    assert lookup("AMD", db=db, model="own/model", workload=asked).workload == own


def test_the_newest_winner_of_the_same_workload_serves_a_new_symbol(db: str) -> None:
    published(
        db,
        entry("AAPL", settings=COMPILED, number=1),
        entry("MSFT", settings=OTHER, number=3),
        entry("GOOGL", settings=COMPILED, number=2),
        entry("BTCUSD", settings=COMPILED, workload=LARGE, number=4),
        entry("ETHUSD", settings=COMPILED, environment=elsewhere(torch="9.9"), number=5),
        entry("TSLA", settings=COMPILED, profile="throughput", number=6),
    )
    found = lookup("NEW", db=db, workload=SMALL)

    assert (found.source, found.settings, found.profile) == ("workload winner", OTHER, "production")
    assert found.since == "2026-05-07T12:00:00+00:00"
    assert reason(found, "promotion") == "NEW has none; run `autotune run --symbol NEW`"


def test_a_winner_of_a_looser_profile_is_not_used(db: str) -> None:
    published(db, entry("TSLA", settings=COMPILED, profile="throughput"))
    found = lookup("NEW", db=db, workload=SMALL)

    assert found.source == "default"
    assert reason(found, "workload winner") == (
        "made for another profile: throughput there, production wanted"
    )
    assert lookup("NEW", db=db, workload=SMALL, profile="throughput").settings == COMPILED


def test_without_a_known_workload_there_is_no_winner(db: str) -> None:
    published(db, entry("AAPL"))
    found = lookup("NEW", db=db)

    assert (found.source, found.workload, found.profile, found.model) == ("default", None, None, "toto-mini")
    assert reason(found, "workload winner").startswith("no workload was asked for")


def test_a_symbol_whose_promotion_was_elsewhere_gets_the_winner_of_its_workload_here(db: str) -> None:
    published(db, entry(environment=elsewhere(torch="9.9"), settings=COMPILED), entry("AAPL", settings=OTHER))
    found = lookup("AMD", db=db)

    assert (found.source, found.settings, found.workload) == ("workload winner", OTHER, SMALL)


def test_a_pin_holds_in_every_environment_and_keeps_the_symbols_workload(db: str) -> None:
    published(db, entry(environment=elsewhere(torch="9.9")), pins=(pin(), pin("AAPL", OTHER)))
    found = lookup("AMD", db=db)

    assert (found.source, found.settings, found.workload) == ("pin", COMPILED, SMALL)
    assert found.since == "2026-05-04T12:00:00+00:00"
    assert lookup("AAPL", db=db).settings == OTHER


BROKEN = [
    {"settings_json": '{"compile_mode":"warp"}'},
    {"settings_json": '{"compile_mode":["eager"]}'},
    {"settings_json": '{"recompile_limit":"8"}'},
    {"settings_json": '{"speed":1}'},
    {"settings_json": "[]"},
    {"settings_json": "null"},
    {"settings_json": ""},
    {"settings_json": "[" * 100_000},
    {"settings_json": '{"compile_mode":'},
    {"settings_json": None},
    {"settings_json": 5},
    {"workload_json": "{}]"},
    {"workload_json": "[]"},
    {"workload_json": '{"colour":"blue"}'},
    {"workload_json": '{"requests":[{"context_length":-1}]}'},
    {"workload_json": '{"requests":[{"weight":1' + "0" * 400 + "}]}"},
    {"workload_json": None},
    {"profile": None},
    {"model": ["toto-mini"]},
    {"environment_fingerprint": 7},
    {"promotion_id": "1"},
    {"newest": 1},
]


@pytest.mark.parametrize("raw", BROKEN, ids=lambda raw: str(raw)[:40])
def test_a_broken_entry_is_skipped_with_a_reason_and_spoils_no_other(db: str, raw: dict[str, Any]) -> None:
    good = entry("AAPL", settings=OTHER)
    published(db, entry(**raw), good)
    found = lookup("AMD", db=db, workload=SMALL)

    assert any(line.startswith("promotion: an entry of AMD is skipped: ") for line in found.reasons)
    assert all("\n" not in line and len(line) <= 500 for line in found.reasons)
    assert (found.source, found.settings) == ("workload winner", OTHER)
    published(db, entry(**{**raw, "newest": False}), entry(number=2), good)
    assert lookup("AMD", db=db).settings == BF16


def test_a_signature_of_another_type_is_skipped_as_well(db: str) -> None:
    published(db, entry(workload_signature=None), entry("AAPL", settings=OTHER))
    assert lookup("AMD", db=db, workload=SMALL).settings == OTHER


@pytest.mark.parametrize("facts", ["", "[]", '{"torch":"1"}', "[" * 100_000, None])
def test_an_environment_that_cannot_be_described_is_named_by_its_fingerprint(db: str, facts: Any) -> None:
    published(db, entry(environment=elsewhere(torch="9.9"), environment_json=facts))
    line = reason(lookup("AMD", db=db), "promotion")

    assert re.fullmatch(
        r"measured in another environment: fingerprint: [0-9a-f]{16} there, [0-9a-f]{16} here", line
    )


@pytest.mark.parametrize(
    "raw", [{"settings_json": '{"compile_mode":"warp"}'}, {"settings_json": None}, {"settings_json": "[]"}]
)
def test_a_broken_pin_is_skipped_with_a_reason(db: str, raw: dict[str, Any]) -> None:
    published(db, entry(), pins=(pin(**raw), pin("AAPL")))
    found = lookup("AMD", db=db)

    assert (found.source, found.settings) == ("promotion", BF16)
    assert reason(found, "pin").startswith("that of AMD cannot be read: ")
    assert lookup("AAPL", db=db).source == "pin"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
stored_settings = (
    st.text()
    | json_values.map(json.dumps)
    | st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("compile_mode", "freezing", "num_threads"), json_values)
    ).map(json.dumps)
)


@effort(deadline=None, max_examples=100)
@given(stored_settings, stored_settings)
def test_whatever_text_is_stored_a_lookup_answers_and_uses_only_whole_settings(
    settings_json: str, workload_json: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "a.db")
        published(
            store,
            entry("A", settings_json=settings_json),
            entry("B", workload_json=workload_json),
            pins=(pin("C", settings_json=settings_json),),
        )
        for symbol in "ABC":
            found = lookup(symbol, db=store)
            assert found.source in {"promotion", "pin", "default"}
            assert (found.source == "default") == (found.settings == SAFE and found.since is None)
            assert found.source != "default" or steps(found)[-1] == "workload winner"


@pytest.mark.parametrize(
    "symbol", ["A'; DROP TABLE", "../x", "", "A" * 33, "AMD\n", "ß", "a b", "x" * 100_000, "\udcff", "\0"]
)
def test_text_that_is_no_symbol_gets_the_default_and_a_reason(db: str, symbol: str) -> None:
    published(db, entry(), pins=(pin(),))
    found = lookup(symbol, db=db, workload=SMALL)

    assert (found.source, found.settings, found.workload) == ("default", SAFE, SMALL)
    assert "is not a symbol" in reason(found, "symbol")
    assert len(found.symbol) <= 60


@pytest.mark.parametrize("symbol", [5, None, b"AMD", ["AMD"], {"AMD": 1}, 1.5, True])
def test_what_is_not_text_gets_the_default_and_a_reason(db: str, symbol: Any) -> None:
    published(db, entry("5"), entry("NONE"), entry("TRUE"))
    found = lookup(symbol, db=db)

    assert (found.source, found.settings) == ("default", SAFE)
    assert "is not text" in reason(found, "symbol")


def test_text_and_number_are_not_confused_when_remembered(db: str) -> None:
    published(db, entry("5"))
    number: Any = 5
    assert [lookup(text, db=db).source for text in (number, "5", number)] == [
        "default",
        "promotion",
        "default",
    ]


@effort(deadline=None)
@given(st.text())
def test_any_text_is_looked_up_without_an_error(symbol: str) -> None:
    found = lookup(symbol, db="/nonexistent/autotune.db")
    try:
        assert found.symbol == parse_symbol(symbol)
    except SymbolError:
        assert "is not a symbol" in reason(found, "symbol")
    assert found.settings == SAFE


def test_the_variable_names_the_store(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    published(db, entry())
    monkeypatch.setenv("AUTOTUNE_DB", db)
    assert lookup("AMD").source == "promotion"
    assert lookup("AMD", db=db.replace("autotune", "other")).source == "default"


def test_the_store_of_the_user_folder_follows_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for home, settings in ((tmp_path / "a", BF16), (tmp_path / "b", OTHER)):
        monkeypatch.setenv("HOME", str(home))
        published(str(home / ".local/share/autotune/autotune.db"), entry(settings=settings))
        assert lookup("AMD").settings == settings


def test_a_relative_store_is_found_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, settings in (("a", BF16), ("b", OTHER)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        published("autotune.db", entry(settings=settings))
        assert lookup("AMD", db="autotune.db").settings == settings


def test_what_is_published_counts_at_once(db: str) -> None:
    seen = []
    changes: list[Callable[[], object]] = [
        lambda: published(db, entry()),
        lambda: published(db, entry(settings=OTHER)),
        lambda: published(db, entry(settings=OTHER), pins=(pin(),)),
        lambda: published(db).unlink(),
    ]
    for change in changes:
        change()
        seen.append([lookup("AMD", db=db).settings for _ in range(3)])

    assert seen == [[BF16] * 3, [OTHER] * 3, [COMPILED] * 3, [SAFE] * 3]


def test_the_same_question_gets_the_remembered_answer_within_microseconds(db: str) -> None:
    published(db, *(entry(f"S{number}", number=number, newest=True) for number in range(500)))
    first = lookup("S7", db=db)
    assert lookup("S7", db=db) is first

    def seconds_of_a_thousand() -> float:
        started = time.process_time()
        for _ in range(1000):
            lookup("S7", db=db)
        return time.process_time() - started

    assert min(seconds_of_a_thousand() for _ in range(5)) < 0.05  # 6 µs each on an idle core


def test_many_different_questions_are_answered_rightly_beyond_the_memory(db: str) -> None:
    published(db, entry())
    for number in range(10_050):
        lookup(f"S{number}", db=db)
    assert lookup("AMD", db=db).settings == BF16


def test_the_time_of_day_is_kept(db: str) -> None:
    published(db, entry(since=datetime.fromisoformat("2026-05-05T14:30:15.250001+02:00")))
    assert lookup("AMD", db=db).since == "2026-05-05T12:30:15.250001+00:00"
