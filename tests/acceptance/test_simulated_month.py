"""A month of the daemon's ticks in simulated time, over a real store, spool, price files and model folder."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from autotuner.serving.telemetry import Counts
from tests.support.simulated_world import (
    BEGIN,
    DAY,
    HOUR,
    SYMBOLS,
    World,
    labels_of,
    pass_time,
    rechecked,
    tuned,
    write_prices,
)

pytestmark = pytest.mark.slow


def test_a_month_in_which_every_trigger_fires_for_its_reason_and_no_other(world: World) -> None:
    pass_time(world, 3)
    assert [(symbol, why) for _, symbol, why in tuned(world)] == [
        ("AAPL", "never tuned"),
        ("AMD", "never tuned"),
    ]

    world.log.clear()
    world.surroundings = replace(world.surroundings, torch="2.14.0")
    pass_time(world, 1)
    assert sorted(symbol for _, symbol, _ in tuned(world)) == ["AAPL", "AMD"]
    assert all("torch: " in why for *_, why in tuned(world))

    world.log.clear()
    pass_time(world, 2)
    pass_time(
        world, 0.5, latency={"AMD": 3.0}
    )  # long after its promotion: a reason to tune, not to roll back
    assert [(symbol, why.split(" of ")[0]) for _, symbol, why in tuned(world)] == [("AMD", "live p50")]

    world.log.clear()
    pass_time(world, 2)
    assert tuned(world) == []
    write_prices(world.data, "AAPL", 2100)
    pass_time(world, 0.25)
    assert [(symbol, why) for _, symbol, why in tuned(world)] == [
        ("AAPL", "the series grew past 2,048 points (from 1,024)")
    ]

    world.log.clear()
    pass_time(world, 2)
    world.spool("AMD", recompiles=2)
    pass_time(world, 0.25)
    assert [symbol for _, symbol, _ in tuned(world)] == ["AMD"]
    assert "2 recompiles" in tuned(world)[0][2]

    world.log.clear()
    pass_time(world, 2)
    (world.model / "config.json").write_text((world.model / "config.json").read_text() + "\n")
    pass_time(world, 1)
    assert {symbol for _, symbol, _ in tuned(world)} == set(SYMBOLS)
    assert all("the model changed" in why for *_, why in tuned(world))

    world.log.clear()
    write_prices(world.data, "AMD", 1550)
    pass_time(world, 1)
    assert rechecked(world) == ["AMD"]
    assert tuned(world) == []
    write_prices(world.data, "AMD", 1600)
    world.drifting.add("AMD")
    pass_time(world, 2)
    assert [(symbol, why) for _, symbol, why in tuned(world)] == [
        ("AMD", "on fresh prices: drift 2% above 1%")
    ]
    assert [fields["symbol"] for _, event, fields in world.log if event == "rolled_back"] == ["AMD"]
    assert rechecked(world) == ["AMD", "AMD"]

    world.log.clear()
    world.drifting.clear()
    pass_time(world, 2)
    for number in range(40):
        active = world.store.active("AAPL")
        assert active is not None
        end = world.clock - timedelta(seconds=number)
        world.leave(strange_counts(end).window(labels_of(active), end))
    pass_time(world, 0.25)
    assert [symbol for _, symbol, _ in tuned(world)] == ["AAPL"]
    assert "most of them 256/64/16" in tuned(world)[0][2]

    world.log.clear()
    pass_time(world, 12, every=6 * HOUR)
    assert {(symbol, why) for _, symbol, why in tuned(world)} == {
        (symbol, "last tuned 7 days ago") for symbol in SYMBOLS
    }
    assert (world.clock - BEGIN) > 28 * DAY


def strange_counts(clock: datetime) -> Counts:
    counts = Counts(begun=clock - HOUR / 2)
    for _ in range(100):
        counts.count(1.0, (256, 64, 16))
    return counts
