from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.environment import current_environment
from autotuner.serving.note_values import BUCKETS, MOST_SHAPES
from autotuner.serving.spool import (
    Note,
    NoteError,
    Quarantine,
    Recheck,
    Window,
    note_fields,
    parse_note,
    write_note,
)
from autotuner.workload import Workload
from tests.support.notes import QUARANTINE, RECHECK, WINDOW, unreadable
from toto_core.settings import RuntimeSettings

counts = st.integers(0, 2**63 - 1)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
names = texts.filter(bool)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
numbers = st.floats(allow_nan=False, allow_infinity=False)
labels = {
    "symbol": st.from_regex(r"[A-Z0-9^][A-Z0-9._=&/^-]{0,31}", fullmatch=True),
    "settings_key": names,
    "environment_fingerprint": names,
    "profile": st.none() | texts,
    "model": st.none() | texts,
    "workload_signature": st.none() | texts,
    "source": st.none() | texts,
}
times = {"window_start": st.just(datetime(2000, 1, 1, tzinfo=UTC)), "window_end": moments}
windows = st.builds(
    Window,
    **labels,
    **times,
    longest_ms=st.floats(0.0, allow_infinity=False),
    recompiles=counts,
    eager_calls=counts,
    limit_hits=counts,
    shapes=st.dictionaries(st.tuples(counts, counts, counts), counts, max_size=MOST_SHAPES),
    buckets=st.dictionaries(st.integers(0, BUCKETS - 1), counts),
)
quarantines = st.builds(
    Quarantine,
    **labels,
    reason=texts,
    failed_at=moments,
    settings=st.sampled_from([None, RuntimeSettings(), RuntimeSettings(precision="bf16")]),
    workload=st.sampled_from([None, Workload(), Workload(model="other", series_per_call=3)]),
    environment=st.sampled_from([None, current_environment()]),
    pid=st.none() | counts,
)
rechecks = st.builds(
    Recheck,
    **labels,
    **times,
    settings=texts,
    series_digest=texts,
    broken=st.lists(texts, max_size=5).map(tuple),
    drift=st.none() | numbers,
    quantile_shift=st.none() | numbers,
    drift_budget=numbers,
    failed=st.none() | texts,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**399),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def why_refused(given: Any) -> str | None:
    try:
        parse_note(given)
    except NoteError as error:
        return str(error)
    return None


@given(windows | quarantines | rechecks)
def test_every_note_reads_back_as_it_was_written(note: Note) -> None:
    assert parse_note(json.dumps(note_fields(note))) == note
    assert parse_note(note_fields(note)) == note


@given(st.sampled_from([WINDOW, QUARANTINE, RECHECK]), st.data())
def test_any_value_in_any_field_is_read_or_refused_in_one_line_that_names_it(
    text: str, data: st.DataObject
) -> None:
    fields = json.loads(text) | {"window_start": "2026-05-04T12:00:00Z", "window_end": "2026-05-04T12:01:00Z"}
    name = data.draw(st.sampled_from(sorted(fields)))
    changed: Any = fields | {name: data.draw(values)}
    refusals = [refusal for each in (changed, json.dumps(changed)) if (refusal := why_refused(each))]

    assert len(set(refusals)) <= 1
    assert all("\n" not in line and line.partition(":")[0] in {*fields, "note"} for line in refusals)


@given(st.text() | values.map(json.dumps))
def test_any_text_is_a_note_or_refused(text: str) -> None:
    with pytest.raises(NoteError, match=r"^(note|kind): "):
        parse_note(text)


@pytest.mark.parametrize(("name", "text"), unreadable({}).items())
def test_what_is_no_note_is_refused_whatever_is_wrong_with_it(name: str, text: str) -> None:
    times = {"window_start": "2026-05-04T12:00:00Z", "window_end": "2026-05-04T12:01:00Z"}
    whole = json.dumps(json.loads(text) | times) if "recheck" in text[:30] else text
    with pytest.raises(NoteError) as refused:
        parse_note(whole)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"symbol": "../x"}, "symbol: '../x' is not a symbol"),
        ({"recompiles": -1}, "recompiles: must be a whole number from 0 to"),
        ({"recompiles": 2**63}, "recompiles: must be a whole number from 0 to"),
        ({"recompiles": True}, "recompiles: must be a whole number"),
        ({"recompiles": 1.0}, "recompiles: must be a whole number"),
        ({"longest_ms": float("inf")}, "longest_ms: must be a finite number"),
        ({"longest_ms": -0.5}, "longest_ms: must not be below 0"),
        ({"window_end": "2026-11-25T18:48:19"}, "window_end: must be a time with its zone"),
        ({"window_end": "2026-11-25T18:48:19+00:00"}, "window_end: must not be before window_start"),
        ({"window_start": "0001-01-01T00:00:00+14:00"}, "window_start: "),
        ({"settings_key": ""}, "settings_key: must not be empty"),
        ({"settings_key": "\ud800"}, "settings_key: must be text without NUL or half a surrogate pair"),
        ({"source": "x" * 20_000}, "source: must be text of at most 10000 characters"),
        (
            {"shapes": {f"{n}/1/1": 1 for n in range(MOST_SHAPES + 1)}},
            "shapes: must be a table of at most 32",
        ),
        ({"shapes": {"1/2": 1}}, "shapes: '1/2' is not context length/steps/samples"),
        ({"shapes": {"1/2/3/4": 1}}, "shapes: "),
        ({"buckets": {"057": 3}}, "buckets: '057' is not a whole number from 0 to 191"),
        ({"calls": 4}, "calls: must be as many as the buckets hold"),
        ({"calls": 3.0}, "calls: must be as many as the buckets hold"),
    ],
)
def test_a_field_out_of_its_range_is_refused_with_its_name(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(NoteError) as refused:
        parse_note(json.loads(WINDOW) | changes)
    assert str(refused.value).startswith(reason)


def test_fields_of_a_later_version_are_ignored_and_times_are_utc() -> None:
    later = json.loads(WINDOW) | {"new": [{"deep": []}], "window_start": "2026-11-25T20:48:19.260355+02:00"}

    assert parse_note(later) == parse_note(WINDOW)
    assert parse_note(later).symbol == "AMD"
    assert parse_note(json.loads(WINDOW) | {"symbol": "amd"}).symbol == "AMD"


def test_a_note_is_written_for_its_owner_alone_over_an_earlier_one(tmp_path: Path) -> None:
    note, folder = parse_note(QUARANTINE), tmp_path / "spool"
    for _ in range(2):
        write_note(folder, "a.json", note)
    (path,) = folder.iterdir()

    assert parse_note(path.read_text()) == note
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(folder.stat().st_mode)) == (0o600, 0o700)


def test_a_note_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OSError, match=r"a\.json"):
        write_note(tmp_path, "a.json", parse_note(WINDOW))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_recheck_says_how_long_it_took() -> None:
    zone = timezone(timedelta(hours=2))
    times = {
        "window_start": "2026-05-04T12:00:00Z",
        "window_end": datetime(2026, 5, 4, 14, 1, tzinfo=zone).isoformat(),
    }
    found = parse_note(json.loads(RECHECK) | times)
    assert isinstance(found, Recheck)
    assert (found.seconds, found.kept) == (60.0, False)


@pytest.mark.parametrize("field", ["settings", "workload", "environment"])
def test_a_quarantine_of_a_later_version_counts_without_what_only_informs(field: str) -> None:
    note = parse_note(QUARANTINE)
    later = note_fields(note)
    later[field] = {**later[field], "later": 1}
    found = parse_note(later)

    assert isinstance(found, Quarantine)
    assert getattr(found, field) is None
    assert found.settings_key == later["settings_key"]
