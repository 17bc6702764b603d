from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.checks import EARLIEST, LATEST, check_symbol
from storage.errors import InvalidRecord, SnapshotError, StorageError, StoreUnavailable
from tests.support.storage_samples import ENVIRONMENT, MEASUREMENT, NOW, PIN, PROMOTION, RUN, SERIES


@pytest.mark.parametrize("symbol", ["A", "AMD", "BRK.B", "BTC-USD", "0700.HK", "X_1", "A" * 32])
def test_symbols_of_the_allowed_form_pass_unchanged(symbol: str) -> None:
    assert check_symbol(symbol) == symbol


@pytest.mark.parametrize(
    "symbol", ["", "amd", "-A", ".A", "A" * 33, "A:B", "A B", "A\n", "A\0", "../A", "Ä", "A;DROP", None, 7]
)
def test_anything_else_is_refused_as_a_symbol(symbol: object) -> None:
    with pytest.raises(InvalidRecord, match="not a symbol"):
        check_symbol(symbol)


@pytest.mark.parametrize(
    ("record", "changes", "named"),
    [
        (ENVIRONMENT, {"fingerprint": ""}, "EnvironmentRecord.fingerprint"),
        (ENVIRONMENT, {"fingerprint": None}, "EnvironmentRecord.fingerprint"),
        (ENVIRONMENT, {"facts_json": "{"}, "EnvironmentRecord.facts_json"),
        (ENVIRONMENT, {"facts_json": '{"a": NaN}'}, "EnvironmentRecord.facts_json"),
        (ENVIRONMENT, {"facts_json": "[" * 100_000}, "EnvironmentRecord.facts_json"),
        (ENVIRONMENT, {"first_seen": datetime(2026, 1, 1)}, "EnvironmentRecord.first_seen"),
        (
            ENVIRONMENT,
            {"first_seen": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=3)))},
            "EnvironmentRecord.first_seen",
        ),
        (SERIES, {"symbol": "amd"}, "SeriesRecord.symbol"),
        (SERIES, {"points": -1}, "SeriesRecord.points"),
        (SERIES, {"points": 2**63}, "SeriesRecord.points"),
        (SERIES, {"points": True}, "SeriesRecord.points"),
        (SERIES, {"source": "a\0b"}, "SeriesRecord.source"),
        (SERIES, {"source": "\ud800"}, "SeriesRecord.source"),
        (RUN, {"owner_started": float("nan")}, "RunRecord.owner_started"),
        (RUN, {"owner_host": ""}, "RunRecord.owner_host"),
        (RUN, {"resumed_at": datetime(2026, 1, 1)}, "RunRecord.resumed_at"),
        (RUN, {"status": "asleep", "finished_at": NOW}, "RunRecord.status"),
        (RUN, {"status": "finished"}, "RunRecord.finished_at"),
        (RUN, {"finished_at": NOW}, "RunRecord.finished_at"),
        (MEASUREMENT, {"stage": "warm-up"}, "MeasurementRecord.stage"),
        (MEASUREMENT, {"measurement_json": None}, "MeasurementRecord.measurement_json"),
        (MEASUREMENT, {"outcome": ""}, "MeasurementRecord.outcome"),
        (PROMOTION, {"kind": "guess"}, "PromotionRecord.kind"),
        (PIN, {"settings_key": 5}, "PinRecord.settings_key"),
    ],
)
def test_a_value_that_must_not_be_stored_is_refused_by_name(
    record: Any, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(InvalidRecord, match=named):
        replace(record, **changes)


def test_a_failed_measurement_needs_no_figures() -> None:
    failed = replace(MEASUREMENT, outcome="out_of_memory", detail="", measurement_json=None)
    assert failed.measurement_json is None


def test_records_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        PIN.reason = "another"  # type: ignore[misc]


@given(st.datetimes(timezones=st.timezones()))
def test_times_of_any_zone_are_taken_where_sums_with_them_can_be_held(moment: datetime) -> None:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        with pytest.raises(InvalidRecord):
            replace(SERIES, first_timestamp=moment)
        return
    assert replace(SERIES, first_timestamp=moment).first_timestamp == moment  # prices may be of any century
    if EARLIEST <= moment <= LATEST:
        assert replace(ENVIRONMENT, first_seen=moment).first_seen == moment
    else:
        with pytest.raises(InvalidRecord, match="give a time from 1970 to 2200"):
            replace(ENVIRONMENT, first_seen=moment)


@given(st.text())
def test_every_message_is_one_line(text: str) -> None:
    assert len(str(StorageError(f"before {text} after")).splitlines()) == 1


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(SnapshotError("it is empty", "empty")))
    assert (str(error), error.reason) == ("it is empty", "empty")
    assert str(pickle.loads(pickle.dumps(StoreUnavailable("locked")))) == "locked"
