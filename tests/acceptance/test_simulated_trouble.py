"""Trouble that tuning does not cure, in simulated time: the daemon rests, saves its budget and waits for quiet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.quiet import parse_quiet
from autotuner.daemon.schedule import parse_zone
from tests.support.simulated_world import (
    DAY,
    HOUR,
    QUIET,
    RUN_SECONDS,
    SYMBOLS,
    World,
    pass_time,
    ticker,
    tuned,
)


def test_quiet_windows_budgets_and_rests_hold_over_a_week_of_trouble(world: World) -> None:
    budget = 2 * RUN_SECONDS
    for day in range(7):
        world.surroundings = replace(world.surroundings, torch=f"2.{day}")
        pass_time(world, 1, budget=budget)
    runs = world.store.records.runs()
    zone = parse_zone("UTC")
    quiet = [parse_quiet(text, zone) for text in QUIET]

    assert len(runs) > 7
    assert not [run for run in runs if any(window.holds(run.started_at) for window in quiet)]
    for run in runs:
        day_before = [r for r in runs if run.started_at - DAY < r.started_at <= run.started_at]
        assert len(day_before) * RUN_SECONDS <= budget
    for symbol in SYMBOLS:
        starts = [run.started_at for run in runs if run.symbol == symbol]
        assert all(late - early >= timedelta(hours=6) for early, late in itertools.pairwise(starts))


def test_what_tuning_does_not_cure_is_tried_ever_more_rarely(world: World) -> None:
    pass_time(world, 2)
    world.stubborn.add("AMD")
    world.log.clear()
    pass_time(world, 6, latency={"AMD": 3.0})
    times = [day for day, symbol, _ in tuned(world) if symbol == "AMD"]
    rests = [late - early for early, late in itertools.pairwise(times)]

    assert len(times) == 4
    assert all(rest >= least for rest, least in zip(rests, (0.5, 1.0, 2.0), strict=True))


def test_a_promotion_that_runs_keep_confirming_is_not_tuned_every_day_for_its_age(world: World) -> None:
    pass_time(world, 2)
    world.stubborn.update(SYMBOLS)
    world.log.clear()
    pass_time(world, 14, every=6 * HOUR)

    assert 2 <= len([symbol for _, symbol, _ in tuned(world) if symbol == "AMD"]) <= 3


def test_nothing_is_measured_while_others_keep_the_machine_busy(world: World) -> None:
    world.busy = 1000.0
    pass_time(world, 2)

    assert tuned(world) == []
    assert [event for _, event, _ in world.log].count("held") > 5
    world.busy = 0.1
    pass_time(world, 0.5)
    assert {symbol for _, symbol, _ in tuned(world)} == set(SYMBOLS)


@dataclass(kw_only=True)
class Odd(World):
    """A machine whose runs of AAPL print a document of another kind."""

    def tune(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        if "AAPL" in arguments:
            return Tuned(document={"symbols": []})
        return super().tune(arguments, seconds=seconds)


def test_a_run_whose_document_is_none_fails_by_itself(world: World) -> None:
    odd = Odd(store=world.store, data=world.data, model=world.model)
    ticked = ticker(odd).tick()
    assert (ticked.tuned, ticked.failed) == (("AMD",), ("AAPL",))
    (reason,) = [fields["reason"] for _, event, fields in odd.log if event == "failed"]
    assert "promoted" in reason
