"""What fails or is slow in production is taken back by the daemon's ticks in simulated time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from autotuner.daemon import intake
from autotuner.daemon.intake import take_in
from autotuner.daemon.observing import Observer
from autotuner.daemon.places import Place
from autotuner.daemon.situation import Observed
from autotuner.daemon.take_back import settle_canary, take_back
from autotuner.daemon.triggers import Reason
from autotuner.environment import current_environment
from autotuner.paths import spool_folder
from autotuner.record_mapping import telemetry_record
from autotuner.serving.canary import Canary
from autotuner.serving.spool import Quarantine
from autotuner.serving.telemetry import Counts
from tests.support.notes import insert, unreadable
from tests.support.simulated_world import (
    HOUR,
    World,
    labels_of,
    pass_time,
    rechecked,
    ticker,
    tuned,
    write_prices,
)
from toto_core.settings import RuntimeSettings


def test_settings_that_fail_in_production_are_taken_back_at_once(world: World) -> None:
    pass_time(world, 2)
    active = world.store.active("AMD")
    assert active is not None
    world.fail(active)
    world.log.clear()
    pass_time(world, 0.1)

    (rolled_back,) = [fields for _, event, fields in world.log if event == "rolled_back"]
    assert (rolled_back["symbol"], "no compiler" in rolled_back["reason"]) == ("AMD", True)
    now = world.store.active("AMD")
    assert now is None or now.settings != active.settings


def test_what_one_process_alone_says_tunes_and_takes_nothing_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_said", set())
    pass_time(world, 0.1)
    active = world.store.active("AMD")
    assert active is not None
    world.fail(active, processes=1)
    world.stubborn.add("AMD")
    world.log.clear()
    pass_time(world, 0.5)

    events = [(event, fields.get("symbol")) for _, event, fields in world.log]
    assert ("rolled_back", "AMD") not in events
    assert events.count(("unproven", "AMD")) == 1
    (reason,) = [
        fields["reason"] for _, event, fields in world.log if (event, fields["symbol"]) == ("tuning", "AMD")
    ]
    assert "no compiler (one process alone says so: " in reason
    assert world.store.active("AMD") == active
    world.fail(active, processes=2)  # the second of these is another one
    pass_time(world, 0.1)
    assert world.store.active("AMD") != active


def test_failures_of_anything_else_take_nothing_back(world: World) -> None:
    pass_time(world, 0.1)
    active = world.store.active("AMD")
    assert active is not None
    for changes in ({"environment_fingerprint": "0" * 16}, {"settings_key": "k"}, {"symbol": "AAPL"}):
        about = {**vars(labels_of(active)), **changes}
        for number in range(3):
            failed = Quarantine(**about, reason="no g++", failed_at=world.clock, process=f"p{number}")
            world.leave(failed)
    pass_time(world, 0.1)

    assert world.store.active("AMD") == active


def test_a_new_promotion_that_is_slow_in_production_is_rolled_back_to_the_one_before(world: World) -> None:
    pass_time(world, 2)
    first = world.store.active("AMD")
    write_prices(world.data, "AMD", 2100)
    pass_time(world, 0.3)
    second = world.store.active("AMD")
    assert first is not None
    assert second is not None
    assert second.settings != first.settings
    world.log.clear()
    pass_time(world, 0.3, every=2 * HOUR, latency={"AMD": 5.0})

    assert "AMD" in [fields["symbol"] for _, event, fields in world.log if event == "rolled_back"]


def test_what_is_slow_and_has_nothing_before_it_in_its_environment_stays_until_it_is_tuned(
    world: World,
) -> None:
    pass_time(world, 0.25)
    world.surroundings = replace(world.surroundings, driver="new")
    pass_time(world, 0.3)
    slow = world.store.active("AMD")
    world.log.clear()
    world.stubborn.add("AMD")
    pass_time(world, 0.5, every=2 * HOUR, latency={"AMD": 5.0})

    assert "rolled_back" not in [event for _, event, _ in world.log]
    assert world.store.active("AMD") == slow


def test_of_two_daemons_that_find_the_same_the_second_does_not_take_back_what_is_active_instead(
    world: World,
) -> None:
    pass_time(world, 2)
    good = world.store.active("AMD")
    assert good is not None
    other = RuntimeSettings(compile_mode="default", num_threads=77)
    world.store.promote(
        replace(good, settings=other, promoted_at=world.clock, id=None, run_id=None, kind="select")
    )
    bad = world.store.active("AMD")
    assert bad is not None
    found = (Reason(kind="quarantine", text="it failed"),)
    seen = Observed(
        symbol="AMD", promotion=bad, environment=bad.environment, now=world.clock, last_ended=None
    )
    assert [take_back(world.store, seen, found, world.clock, world.note) for _ in range(2)] == [True, False]
    assert world.store.active("AMD") == good
    assert [event for _, event, _ in world.log].count("rolled_back") == 1


def test_daemons_of_two_machines_on_one_store_leave_each_other_alone(world: World) -> None:
    pass_time(world, 1)
    ours = world.store.active("AMD")
    world.surroundings = replace(world.surroundings, hardware="another machine")
    pass_time(world, 1)
    theirs = world.store.active("AMD")
    assert theirs is not None
    assert theirs.environment.hardware == "another machine"
    world.surroundings = current_environment()
    world.log.clear()
    pass_time(world, 1)

    assert tuned(world) == []
    kept = {record.id for record in world.store.records.active_promotions() if record.symbol == "AMD"}
    assert ours is not None
    assert kept == {ours.id, theirs.id}


def test_what_another_machine_tries_out_and_what_fails_there_is_left_to_it(world: World) -> None:
    here, world.surroundings = world.surroundings, replace(world.surroundings, hardware="another machine")
    pass_time(world, 1)
    ran = world.store.active("AMD")
    assert ran is not None
    slow = RuntimeSettings(compile_mode="default", num_threads=77)
    figures = replace(ran.figures, canary=Canary(share=0.5, previous=ran.settings))
    tried = replace(ran, settings=slow, figures=figures, promoted_at=world.clock, id=None, kind="select")
    world.store.promote(replace(tried, run_id=None))
    for _ in range(6):
        world.clock += HOUR
        world.spool("AMD", milliseconds=9.0)
        before = Counts(begun=world.clock - HOUR / 2)
        for _ in range(50):
            before.count(1.0, (512, 8, 256))
        world.leave(before.window(replace(labels_of(tried), settings_key=ran.settings.key), world.clock))
    failed = world.store.active("AAPL")
    assert failed is not None
    world.fail(failed)
    world.surroundings = here
    world.log.clear()
    pass_time(world, 0.3, budget=0.0)

    assert not {"canary", "rolled_back"} & {event for event, *_ in [each[1:] for each in world.log]}
    assert world.store.active("AAPL") == failed
    now = world.store.active("AMD")
    assert now is not None
    assert now.settings == slow


def test_after_an_upgrade_what_failed_before_it_is_taken_back(world: World) -> None:
    pass_time(world, 1)
    before = world.store.active("AMD")
    assert before is not None
    other = replace(before, environment=replace(before.environment, hardware="another machine"), id=None)
    world.store.promote(replace(other, run_id=None, kind="select"))
    world.surroundings = replace(world.surroundings, driver="new")
    world.fail(before)
    pass_time(world, 0.125, budget=0.0)

    active = world.store.active("AMD")
    assert [record.id for record in world.store.records.promotions("AMD") if record.rolled_back_at] == [
        before.id
    ]
    assert active is not None
    assert active.environment == other.environment


def test_what_is_unsafe_does_not_come_back_by_the_line_of_its_trial(world: World) -> None:
    pass_time(world, 2)
    trial = world.store.active("AMD")
    assert trial is not None
    world.store.promote(replace(trial, id=None, run_id=None, kind="select", verdict="confirmed"))
    world.fail(trial)
    world.busy = 1000.0
    ticker(world).tick()

    assert world.store.active("AMD") is None


def test_a_tick_goes_through_whatever_is_stored_as_telemetry_or_lies_in_the_spool(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_said", set())
    pass_time(world, 2)
    active = world.store.active("AMD")
    assert active is not None
    bad = unreadable(vars(labels_of(active)))
    for number, payload in enumerate(bad.values()):
        insert(world.store.location, payload, symbol="AMD", settings_key=active.settings.key, at=world.clock)
        (spool_folder(world.store.location) / f"bad-{number}.json").write_text(payload)
    world.log.clear()
    first, second = ticker(world).tick(), ticker(world).tick()
    events = [event for _, event, _ in world.log]

    assert (first.intake.refused, second.intake.refused) == (len(bad), 0)
    assert events.count("refused") == events.count("skipped") == len(bad)
    assert {fields["symbol"] for _, event, fields in world.log if event == "skipped"} == {"AMD"}
    assert not {"unreadable", "rolled_back"} & set(events)
    assert world.store.active("AMD") == active
    write_prices(world.data, "AMD", 1600)
    world.drifting.add("AMD")
    pass_time(world, 2)
    assert "AMD" in rechecked(world)


def test_a_canary_is_not_confirmed_over_what_was_promoted_since_it_was_looked_at(world: World) -> None:
    ticker(world).tick()
    first = world.store.active("AMD")
    assert first is not None
    canary = replace(
        first,
        settings=RuntimeSettings(num_threads=7),
        figures=replace(first.figures, canary=Canary(share=0.5, previous=first.settings)),
        id=None,
        run_id=None,
        promoted_at=world.clock,
    )
    world.store.promote(canary)
    world.clock += HOUR
    for number in range(6):
        for settings in (canary.settings, first.settings):
            counts = Counts(begun=world.clock - timedelta(minutes=30 - number))
            for _ in range(100):
                counts.count(1.0, (512, 8, 256))
            labels = replace(labels_of(first), settings_key=settings.key)
            world.leave(counts.window(labels, world.clock - timedelta(minutes=20 - number)))
    take_in(world.store.records, spool_folder(world.store.location), now=world.clock)
    looks = Observer(
        store=world.store,
        config=ticker(world).config,
        place=Place(environment=world.environment()),
        now=world.clock,
        log=world.note,
    )
    seen = looks.alone("AMD")
    newer = replace(first, settings=RuntimeSettings(num_threads=9), id=None, run_id=None)
    world.store.promote(newer)

    assert not settle_canary(world.store, seen, world.clock, world.note)
    active = world.store.active("AMD")
    assert active is not None
    assert active.settings == newer.settings


def test_a_torn_page_of_one_symbols_notes_keeps_no_other_from_being_taken_back(world: World) -> None:
    ticker(world).tick()
    failing, other = world.store.active("AMD"), world.store.active("AAPL")
    assert failing is not None
    assert other is not None
    world.fail(failing)
    world.clock += HOUR
    take_in(world.store.records, spool_folder(world.store.location), now=world.clock)
    for number in range(200):
        counts = Counts(begun=world.clock)
        counts.count(1.0 + number / 1000, (512, 8, 256))
        note = counts.window(labels_of(other), world.clock + timedelta(seconds=number + 1))
        world.store.records.add_telemetry(telemetry_record(note))
    place = Path(world.store.location)
    torn = bytearray(place.read_bytes())
    page = int.from_bytes(torn[16:18], "big")
    torn[torn.index(b'"longest_ms": 1.1,') // page * page] = 0
    place.write_bytes(torn)

    ticked = ticker(world).tick()
    assert ticked.rolled_back == ("AMD",)
    assert ticked.unreadable == ("AAPL",)
