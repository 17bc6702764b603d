from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from autotuner.daemon.config import Config, read_config
from autotuner.daemon.plan import Due, plan
from autotuner.daemon.quiet import exchange_hours, parse_quiet, why_busy, why_quiet
from autotuner.daemon.schedule import jitter, next_tick
from autotuner.daemon.triggers import Kind, Reason
from autotuner.errors import UsageError

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)  # a Monday
COOL_DOWN = timedelta(hours=6)
NEW_YORK = ZoneInfo("America/New_York")


def due(symbol: str, kind: Kind = "age", **changes: object) -> Due:
    return Due(symbol=symbol, reasons=(Reason(kind=kind, text=kind),), **changes)  # type: ignore[arg-type]


def test_the_largest_expected_loss_is_tuned_first_then_what_may_be_unsafe() -> None:
    found = plan(
        [
            due("OLD"),
            due("BROKEN", "quarantine"),
            due("SLOW", "latency", calls_per_day=1000.0, excess_ms=2.0),
            due("RARE", "latency", calls_per_day=1.0, excess_ms=3.0),
        ],
        now=NOW,
        left_seconds=3600.0,
        cool_down=COOL_DOWN,
    )

    assert [each.symbol for each in found.chosen] == ["SLOW", "RARE", "BROKEN", "OLD"]


def test_the_days_budget_holds_and_a_cheaper_symbol_may_still_go() -> None:
    asked = [due("A", seconds=600.0), due("B", seconds=500.0), due("C", seconds=100.0)]
    found = plan(asked, now=NOW, left_seconds=800.0, cool_down=COOL_DOWN)

    assert [each.symbol for each in found.chosen] == ["A", "C"]
    assert [(each.symbol, each.why) for each in found.skipped] == [
        ("B", "the day's budget has 200 of 500 s left")
    ]


def test_a_symbol_rests_twice_as_long_after_every_run_that_changed_nothing() -> None:

    def rests(fruitless: int) -> list[float]:
        hours = [6 * 2**power for power in range(6)]
        asked = {h: due("A", last_ended=NOW - timedelta(hours=h), fruitless=fruitless) for h in hours}
        return [
            h
            for h, each in asked.items()
            if plan([each], now=NOW, left_seconds=3600.0, cool_down=COOL_DOWN).chosen
        ]

    assert [min(rests(fruitless)) for fruitless in range(6)] == [6, 12, 24, 48, 96, 96]


def test_what_is_unsafe_or_new_is_not_put_off_by_runs_that_changed_nothing() -> None:
    for kind in ("environment", "quarantine", "drift", "model"):
        asked = due("A", kind, last_ended=NOW - timedelta(hours=6), fruitless=4)
        assert plan([asked], now=NOW, left_seconds=3600.0, cool_down=COOL_DOWN).chosen == (asked,)


def test_a_symbol_rests_after_a_run_whatever_the_reason() -> None:
    just = due("A", "quarantine", last_ended=NOW - timedelta(hours=5, minutes=59))
    rested = due("B", last_ended=NOW - timedelta(hours=6))
    found = plan([just, rested], now=NOW, left_seconds=3600.0, cool_down=COOL_DOWN)

    assert [each.symbol for each in found.chosen] == ["B"]
    assert "cools down until 2026-05-04 12:01" in found.skipped[0].why


@pytest.mark.parametrize(
    ("text", "at", "holds"),
    [
        ("09:30-16:00 mon-fri", datetime(2026, 5, 4, 13, 30, tzinfo=UTC), True),  # 9:30 in New York
        ("09:30-16:00 mon-fri", datetime(2026, 5, 4, 13, 29, 59, tzinfo=UTC), False),
        ("09:30-16:00 mon-fri", datetime(2026, 5, 4, 20, 0, tzinfo=UTC), False),  # its end is free
        ("09:30-16:00 mon-fri", datetime(2026, 5, 3, 15, 0, tzinfo=UTC), False),  # a Sunday
        ("09:30-16:00 mon-fri", datetime(2026, 1, 5, 14, 30, tzinfo=UTC), True),  # winter time
        ("22:00-02:00 fri", datetime(2026, 5, 9, 5, 0, tzinfo=UTC), True),  # Saturday 1:00, begun on Friday
        ("22:00-02:00 fri", datetime(2026, 5, 9, 3, 0, tzinfo=UTC), True),  # Friday 23:00
        ("22:00-02:00 fri", datetime(2026, 5, 10, 5, 0, tzinfo=UTC), False),
        ("00:00-24:00 sat,sun", datetime(2026, 5, 9, 20, 0, tzinfo=UTC), True),
        ("00:00-24:00 sat,sun", datetime(2026, 5, 8, 20, 0, tzinfo=UTC), False),
    ],
)
def test_quiet_windows_are_wall_clock_times_of_their_zone(text: str, at: datetime, holds: bool) -> None:
    window = parse_quiet(text, NEW_YORK)

    assert window.holds(at) is holds
    assert (why_quiet(at, [window]) is not None) is holds


@pytest.mark.parametrize("text", ["", "9-16", "09:30-16:00 monday", "25:00-26:00", "09:30-16:00 mon-", "x"])
def test_what_is_no_quiet_window_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="must be like"):
        parse_quiet(text, NEW_YORK)


def test_a_busy_machine_is_left_alone() -> None:
    assert why_busy(1.7, 2, 0.8) == "load 1.7 on 2 CPUs is above the ceiling of 80%"
    assert why_busy(1.6, 2, 0.8) is None


def test_ticks_are_reckoned_from_now_so_that_missed_ones_are_skipped() -> None:
    assert next_tick("17 3 * * *", NOW, ZoneInfo("UTC")) == datetime(2026, 5, 5, 3, 17, tzinfo=UTC)
    later = datetime(2026, 5, 20, 3, 18, tzinfo=UTC)
    assert next_tick("17 3 * * *", later, ZoneInfo("UTC")) == datetime(2026, 5, 21, 3, 17, tzinfo=UTC)


def test_a_night_in_which_the_clocks_change_has_one_tick() -> None:
    spring = datetime(2026, 3, 8, 0, 0, tzinfo=NEW_YORK)  # 2:30 does not exist
    autumn = datetime(2026, 11, 1, 0, 0, tzinfo=NEW_YORK)  # 1:30 exists twice
    for begin, schedule, hours in ((spring, "30 2 * * *", 23), (autumn, "30 1 * * *", 25)):
        end = begin.astimezone(UTC) + timedelta(hours=hours)
        ticks = []
        tick = next_tick(schedule, begin, NEW_YORK)
        while tick < end:
            ticks.append(tick)
            tick = next_tick(schedule, tick, NEW_YORK)
        assert len(ticks) == 1, ticks


def test_jitter_is_bounded_and_the_same_again() -> None:
    first, again, other = (jitter(NOW, 60.0, owner) for owner in ("a", "a", "b"))

    assert first == again != other
    assert timedelta(0) <= first <= timedelta(seconds=60)


def test_a_configuration_is_read_and_variables_override_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "autotune.toml"
    file.write_text(
        '[daemon]\nwatchlist = "w.txt"\nload_ceiling = 0.5\n[defaults]\nprofile = "accuracy"\n'
        "[symbols.amd]\nnum_samples = 0\n"
    )
    monkeypatch.setenv("AUTOTUNE_DAEMON__LOAD_CEILING", "0.7")
    found = read_config(file)

    assert found.daemon.watchlist == tmp_path / "w.txt"
    assert found.daemon.load_ceiling == 0.7
    assert found.of("AMD").arguments() == ["--profile", "accuracy", "--num-samples", "0"]
    assert found.of("AAPL").arguments() == ["--profile", "accuracy"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[daemon]\nnice = 40\n", "daemon.nice"),
        ("[daemon]\nshedule = '1'\n", "daemon.shedule"),
        ("[symbols.'../x']\nprofile = 'a'\n", "symbols"),
        ("[daemon\n", "line 1"),
        (
            "[daemon]\non = 'ray://me:secret@h'\n",
            r"toml: daemon\.on: with a user name or a password: Ray takes none",
        ),
        ("[daemon]\non = 'ray://h?x=1'\n", r"toml: daemon\.on: 'ray://h\?x=1': give ray, the cluster"),
        (
            "[daemon]\non = 'ray'\nenvironments = ['']\n",
            r"toml: daemon\.environments: without a name: give the",
        ),
        (
            "[daemon]\nenvironments = ['a']\n",
            r"toml: daemon\.environments: they are nodes of a cluster: name one",
        ),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_with_file_and_field(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "autotune.toml"
    file.write_text(text)

    with pytest.raises(UsageError, match=reason) as refused:
        read_config(file)
    assert str(file) in str(refused.value)
    assert "secret" not in str(refused.value)


def test_without_a_file_the_defaults_hold() -> None:
    assert read_config(None).model_dump() == Config().model_dump()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("at", "is_open"),
    [
        (datetime(2026, 5, 4, 14, 0, tzinfo=UTC), True),
        (datetime(2026, 5, 4, 13, 29, tzinfo=UTC), False),
        (datetime(2026, 5, 3, 15, 0, tzinfo=UTC), False),  # a Sunday
        (datetime(2026, 7, 3, 15, 0, tzinfo=UTC), False),  # Independence Day, observed
        (datetime(2026, 11, 27, 19, 0, tzinfo=UTC), False),  # a half day: it closed at 13:00 in New York
    ],
)
def test_an_exchange_is_quiet_while_it_trades(at: datetime, is_open: bool) -> None:
    pytest.importorskip("exchange_calendars")
    hours = exchange_hours("XNYS")

    assert hours.holds(at) is is_open
    assert (why_quiet(at, [hours]) == "quiet: XNYS is open") is is_open


def test_an_exchange_that_is_none_is_refused() -> None:
    pytest.importorskip("exchange_calendars")
    with pytest.raises(UsageError, match="no such exchange"):
        exchange_hours("NOPE")
