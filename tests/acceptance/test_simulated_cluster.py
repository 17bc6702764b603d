"""A daemon that owns a cluster: each of its environments is kept right by itself, in simulated time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from autotuner.daemon.cluster import OnCluster, Owned
from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.places import Job, Place
from autotuner.environment import current_environment
from autotuner.store import Promotion
from tests.support.simulated_world import HOUR, World, pass_time, rechecked, ticker, tuned, write_prices

RACKS = tuple(
    Place(environment=replace(current_environment(), hardware=f"rack {name}"), name=name) for name in "ab"
)


@dataclass(kw_only=True)
class Racks(World):
    """A cluster of two environments whose nodes run all jobs at once; ``begun`` are batches of jobs."""

    racks: tuple[Place, ...] = RACKS
    begun: list[list[Job]] = field(default_factory=list)

    def places(self) -> Sequence[Place]:
        return self.racks

    def measure(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Tuned]]:
        self.begun.append(list(jobs))
        for job in reversed(self.begun[-1]):  # they end in any order
            self.surroundings = job.place.environment
            (result,) = (found for _, found in super().measure([job]))
            yield job, result


@pytest.fixture
def racks(world: World) -> Racks:
    return Racks(store=world.store, data=world.data, model=world.model)


def runs(racks: Racks) -> list[tuple[str, str]]:
    return [
        (job.symbol, job.place.name) for batch in racks.begun for job in batch if job.arguments[0] == "run"
    ]


def promoted(racks: Racks, place: Place, symbol: str = "AMD") -> Promotion:
    found = racks.store.active_in(symbol, None, [place.environment.fingerprint])
    assert found is not None
    assert found.environment == place.environment
    return found


EVERY = [("AMD", "a"), ("AAPL", "a"), ("AMD", "b"), ("AAPL", "b")]


def test_each_symbol_is_tuned_once_in_each_environment_and_all_of_a_tick_are_put_there_at_once(
    racks: Racks,
) -> None:
    pass_time(racks, 0.5)
    assert sorted(runs(racks)) == sorted(EVERY)
    assert max(map(len, racks.begun)) == 4
    active = racks.store.records.active_promotions()
    assert len({(each.symbol, each.environment_fingerprint) for each in active}) == len(active) == 4


def test_what_changes_in_one_environment_is_tuned_again_there_alone_and_at_once(racks: Racks) -> None:
    pass_time(racks, 0.125)
    changed = replace(RACKS[1], environment=replace(RACKS[1].environment, torch="2.99.0"))
    racks.racks = (RACKS[0], changed)
    racks.begun.clear()
    racks.log.clear()
    pass_time(racks, 0.125)
    assert sorted(runs(racks)) == [("AAPL", "b"), ("AMD", "b")]
    assert all("torch" in reason for _, _, reason in tuned(racks))


def test_what_drifts_is_rechecked_and_taken_back_where_it_does(racks: Racks) -> None:
    pass_time(racks, 0.25)
    write_prices(racks.data, "AMD", 1520)
    racks.drifting.add("AMD")
    racks.log.clear()
    racks.clock += 24 * HOUR
    ticked = ticker(racks, budget=3600.0).tick()
    assert sorted(ticked.rechecked) == ["AMD (a)", "AMD (b)"]
    assert rechecked(racks) == ["AMD", "AMD"]
    assert {fields["environment"] for _, event, fields in racks.log if event == "rechecked"} == {"a", "b"}


def test_new_weights_are_tuned_for_in_every_environment_however_late_the_budget_allows_it(
    racks: Racks,
) -> None:
    ticker(racks, budget=2000.0).tick()
    racks.clock += 30 * HOUR
    (racks.model / "config.json").write_text((racks.model / "config.json").read_text() + "\n")
    racks.begun.clear()
    ticker(racks, budget=350.0).tick()
    assert len(runs(racks)) == 1
    racks.clock += 26 * HOUR
    ticker(racks, budget=2000.0).tick()
    assert sorted(runs(racks)) == sorted(EVERY)
    racks.begun.clear()
    racks.clock += 26 * HOUR
    ticker(racks, budget=2000.0).tick()
    assert runs(racks) == []


def test_a_roll_back_in_one_environment_leaves_what_runs_confirmed_in_another(racks: Racks) -> None:
    ticker(racks, budget=2000.0).tick()
    racks.stubborn = {"AMD", "AAPL"}
    racks.clock += 7 * 24 * HOUR + HOUR
    ticker(racks, budget=2000.0).tick()  # nothing better: what is there is confirmed
    racks.clock += 24 * HOUR
    racks.fail(promoted(racks, RACKS[1]))
    assert ticker(racks, budget=2000.0).tick().rolled_back == ("AMD (b)",)
    racks.clock += 9 * HOUR
    racks.begun.clear()
    ticker(racks, budget=2000.0).tick()
    assert ("AMD", "a") not in runs(racks)


def test_rechecks_that_are_put_there_at_once_leave_the_days_budget_a_run(racks: Racks) -> None:
    pass_time(racks, 0.25)
    write_prices(racks.data, "AMD", 1520)
    racks.clock += 48 * HOUR
    ticked = ticker(racks, budget=430.0).tick()
    assert ticked.rechecked == ("AMD (a)",)


def test_while_the_cluster_is_away_what_is_unsafe_is_taken_back_and_nothing_is_measured(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    pass_time(world, 0.25)
    active = world.store.active("AMD")
    assert active is not None
    world.fail(active)
    beats: list[None] = []
    cluster = OnCluster(
        owned=Owned(on="ray://127.0.0.1:1"),
        store=world.store,
        stop=threading.Event(),
        quiet=lambda: None,
        beat=lambda: beats.append(None),
        log=world.note,
    )
    with cluster:
        ticked = replace(ticker(world), machine=cluster, quiet=()).tick()
    assert ticked.rolled_back == (f"AMD ({active.environment.fingerprint})",)
    assert world.store.active("AMD") is None
    assert ticked.tuned == ticked.failed == ()
    assert ticked.held is not None
    assert "ray" in ticked.held
    assert beats
    (said,) = [fields for _, event, fields in world.log if event == "cluster"]
    assert said["reason"] == ticked.held
