"""Rechecks on fresh prices by the daemon's ticks in simulated time: when they happen and what they take back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.quiet import parse_quiet
from autotuner.daemon.schedule import parse_zone
from tests.support.simulated_world import (
    BEGIN,
    DAY,
    QUIET,
    SYMBOLS,
    World,
    pass_time,
    rechecked,
    ticker,
    write_prices,
)


def test_rechecks_keep_to_quiet_windows_and_their_interval_and_can_be_switched_off(world: World) -> None:
    pass_time(world, 2)
    for day in range(5):
        write_prices(world.data, "AMD", 1510 + 10 * day)
        pass_time(world, 1)
    times = [at for at, event, _ in world.log if event == "rechecked"]
    quiet = [parse_quiet(text, parse_zone("UTC")) for text in QUIET]

    assert 4 <= len(times) <= 5
    assert not [at for at in times if any(window.holds(at) for window in quiet)]
    assert all(late - early >= DAY for early, late in itertools.pairwise(times))

    off = ticker(world)
    daemon = off.config.daemon.model_copy(update={"recheck_hours": 0.0})
    write_prices(world.data, "AMD", 1700)
    world.clock += 3 * DAY
    replace(off, config=off.config.model_copy(update={"daemon": daemon})).tick()
    assert len(rechecked(world)) == len(times)


def test_a_recheck_that_fails_is_not_tried_again_at_every_tick_and_takes_nothing_back(world: World) -> None:
    pass_time(world, 2)
    before = world.store.active("AMD")
    write_prices(world.data, "AMD", 1550)
    world.failing.add("AMD")
    world.log.clear()
    pass_time(world, 2)

    assert 2 <= [event for _, event, _ in world.log].count("failed") <= 3
    assert world.store.active("AMD") == before


def test_a_daily_tick_rechecks_daily(world: World) -> None:
    pass_time(world, 1)
    for day in range(4):
        write_prices(world.data, "AMD", 1510 + 10 * day)
        world.clock = BEGIN + (2 + day) * DAY + timedelta(hours=3, minutes=17, seconds=30 - 10 * day)
        ticker(world).tick()

    assert rechecked(world) == ["AMD"] * 4


def test_what_a_recheck_broke_is_taken_back_also_where_prices_came_while_it_ran(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_time(world, 1)
    recheck, points = world.recheck, itertools.count(1520, 10)

    def as_prices_come(arguments: Sequence[str], *, seconds: float) -> Tuned:
        done = recheck(arguments, seconds=seconds)
        write_prices(world.data, "AMD", next(points))
        return done

    monkeypatch.setattr(world, "recheck", as_prices_come)
    write_prices(world.data, "AMD", 1510)
    world.drifting.add("AMD")

    pass_time(world, 2)
    assert "AMD" in rechecked(world)
    assert ("rolled_back", "AMD") in {(event, fields.get("symbol")) for _, event, fields in world.log}


def test_a_ticks_own_rechecks_count_for_the_days_budget(world: World) -> None:
    pass_time(world, 0.25)
    for symbol in SYMBOLS:
        write_prices(world.data, symbol, 1520)
    world.clock += 2 * DAY
    assert len(ticker(world, budget=430.0).tick().rechecked) == 1
