"""A daemon that owns a cluster: each of its environments is kept right by itself, in simulated time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from autotuner.daemon import cluster_address
from autotuner.daemon.away import SIDE_BY_SIDE, away_places
from autotuner.daemon.cluster import OnCluster, Owned
from autotuner.daemon.due import Overdue
from autotuner.daemon.loop import Daemon
from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.places import Job, Place
from autotuner.environment import Environment, current_environment
from autotuner.errors import AutotuneError
from autotuner.store import Promotion
from autotuner.web.metrics import health
from tests.support.simulated_world import (
    HOUR,
    RUN_SECONDS,
    World,
    pass_time,
    rechecked,
    ticker,
    tuned,
    write_prices,
)
from toto_core.model_files import digest

RACKS = tuple(
    Place(environment=replace(current_environment(), hardware=f"rack {name}"), name=name) for name in "ab"
)


@dataclass(kw_only=True)
class Racks(World):
    """A cluster of two environments whose nodes run all jobs at once; ``begun`` are batches of jobs.

    The environment ``without_node`` has just lost its last one;
    ``runs_in`` is the environment of an engine that all runs have, None for that of their place.
    """

    racks: tuple[Place, ...] = RACKS
    runs_in: Environment | None = None
    drifting_at: set[tuple[str, str]] = field(default_factory=set)
    begun: list[list[Job]] = field(default_factory=list)
    without_node: str = ""

    def places(self) -> Sequence[Place]:
        return (*self.racks, *away_places(self.store, "cpu", (), self.racks))

    def measure(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Tuned]]:
        self.begun.append(list(jobs))
        for job in reversed(self.begun[-1]):  # they end in any order
            if self.without_node and job.place.name == self.without_node:
                yield job, Tuned(document=None, cause="its environment has no node any more", began=False)
                continue
            self.surroundings = self.runs_in or job.place.environment
            self.drifting = {symbol for symbol, where in self.drifting_at if where == job.place.name}
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
    racks.drifting_at.add(("AMD", "b"))
    racks.log.clear()
    kept, unsafe = (promoted(racks, place) for place in RACKS)
    racks.clock += 24 * HOUR
    ticked = ticker(racks, budget=3600.0).tick()
    assert sorted(ticked.rechecked) == ["AMD (a)", "AMD (b)"]
    assert rechecked(racks) == ["AMD", "AMD"]
    assert {fields["environment"] for _, event, fields in racks.log if event == "rechecked"} == {"a", "b"}
    assert ticked.rolled_back == ("AMD (b)",)
    (fields,) = [fields for _, event, fields in racks.log if event == "rolled_back"]
    assert (fields["symbol"], fields["environment"]) == ("AMD", "b")
    assert promoted(racks, RACKS[0]) == kept
    assert promoted(racks, RACKS[1]) != unsafe


def test_a_model_is_digested_once_a_tick_however_many_environments_there_are(
    racks: Racks, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticker(racks).tick()
    digested: list[Path] = []

    def counted(folder: Path) -> str:
        digested.append(folder)
        return digest(folder)

    monkeypatch.setattr("autotuner.daemon.observing.digest", counted)
    ticker(racks, budget=0.0).tick()
    assert len(digested) == 1


def test_a_tick_names_the_environment_in_which_something_waits(racks: Racks) -> None:
    assert "waiting AAPL (a), AAPL (b)" in str(ticker(racks, budget=0.0).tick())


def test_a_recheck_that_no_node_took_is_tried_again_at_the_next_tick(racks: Racks) -> None:
    pass_time(racks, 0.25)
    write_prices(racks.data, "AMD", 1520)
    racks.clock += 24 * HOUR
    racks.without_node = "b"
    assert ticker(racks, budget=3600.0).tick().rechecked == ("AMD (a)",)
    racks.without_node = ""
    racks.clock += HOUR
    assert ticker(racks, budget=3600.0).tick().rechecked == ("AMD (b)",)


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
    kept, here = promoted(racks, RACKS[0]), RACKS[0].environment
    assert Overdue(racks.store).why(kept, environment=here, now=racks.clock) is None


def test_rechecks_that_are_put_there_at_once_leave_the_days_budget_a_run(racks: Racks) -> None:
    pass_time(racks, 0.25)
    write_prices(racks.data, "AMD", 1520)
    racks.clock += 48 * HOUR
    ticked = ticker(racks, budget=430.0).tick()
    assert ticked.rechecked == ("AMD (a)",)


def test_while_one_environment_is_away_what_is_unsafe_there_is_taken_back_and_nothing_is_measured_there(
    racks: Racks,
) -> None:
    ticker(racks).tick()
    racks.racks, racks.begun = RACKS[:1], []
    racks.clock += HOUR
    gone = RACKS[1].environment.fingerprint
    racks.fail(promoted(racks, RACKS[1]))
    racks.fail(promoted(racks, RACKS[1], "AAPL"), processes=1)
    write_prices(racks.data, "AAPL", 1520)
    for _ in range(2):
        racks.clock += 24 * HOUR
        ticked = ticker(racks).tick()
        assert not [job for batch in racks.begun for job in batch if job.place.name != "a"]
        assert not [each for each in ticked.skipped if gone in each.why]
    (rolled_back,) = [fields for _, event, fields in racks.log if event == "rolled_back"]
    assert rolled_back["symbol"] == "AMD"
    assert promoted(racks, RACKS[0])
    assert promoted(racks, RACKS[1], "AAPL")
    assert racks.store.records.active_promotion("AMD", environment_fingerprint=gone) is None


def test_what_another_environment_has_is_a_reason_to_tune_and_is_taken_back_there(racks: Racks) -> None:
    racks.racks = RACKS[1:]
    ticker(racks).tick()
    racks.clock += 7 * HOUR
    racks.fail(promoted(racks, RACKS[1]))
    racks.racks = RACKS
    racks.log.clear()
    assert ticker(racks).tick().rolled_back == ("AMD (b)",)
    why = {
        (fields["symbol"], fields["environment"]): fields["reason"]
        for _, event, fields in racks.log
        if event == "tuning"
    }
    assert "failed in production" in why["AMD", "b"]
    assert why["AMD", "a"] == "the environment changed (hardware: rack b there, rack a here)"


def test_an_engine_that_the_nodes_have_in_another_version_than_the_daemons_host_is_no_reason_to_tune(
    racks: Racks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTUNE_ENGINES__CHRONOS2__PYTHON", "/nowhere/python")
    there = replace(RACKS[0].environment, engine="chronos2 1+0.0.1", torch="2.0.0")
    racks.racks = (replace(RACKS[0], engines=(there,)),)
    racks.runs_in = there
    ticker(racks).tick()
    racks.clock += 7 * HOUR
    racks.begun.clear()
    ticker(racks).tick()
    assert runs(racks) == []
    racks.racks = (replace(RACKS[0], engines=(replace(there, engine="chronos2 1+0.0.2"),)),)
    ticker(racks).tick()
    assert runs(racks) == [("AAPL", "a"), ("AMD", "a")]
    assert {why for *_, why in tuned(racks)[-2:]} == {
        "the environment changed (engine: chronos2 1+0.0.1 there, chronos2 1+0.0.2 here)"
    }


def test_whatever_engine_a_run_was_of_its_environment_rests_after_it(racks: Racks) -> None:
    racks.racks = (replace(RACKS[0], engines=(replace(RACKS[0].environment, engine="chronos2 1+0.0.2"),)),)
    racks.runs_in = replace(RACKS[0].environment, engine="chronos2 1+0.0.1")
    ticker(racks).tick()
    racks.begun.clear()
    racks.clock += HOUR
    ticked = ticker(racks).tick()
    assert runs(racks) == []
    assert {each.why.split(" until")[0] for each in ticked.skipped} == {"in a: cools down"}


def test_away_is_what_is_owned_and_active_once_a_machine_and_what_ran_there_side_by_side(
    racks: Racks,
) -> None:
    old = replace(RACKS[0].environment, hardware="cpu, labelled r1", torch="2.0.0")
    other = replace(old, torch="2.1.0")
    of_engine = replace(other, engine="chronos2 1+0.0.1")
    cuda = replace(other, device="cuda", hardware="gpu beside cpu, labelled r1")
    for environment in (old, other, of_engine, cuda):
        racks.runs_in = environment
        racks.racks = RACKS[:1]
        list(racks.measure([job_in(environment)]))
    away = away_places(racks.store, "cpu", ("r1",), ())
    assert [(place.environment.torch, place.name) for place in away] == [
        ("2.1.0", "r1"),
        ("2.0.0", f"r1 {old.fingerprint}"),
    ]
    assert away_places(racks.store, "cpu", (old.fingerprint,), ()) == away
    assert away_places(racks.store, "cpu", ("r2",), ()) == ()
    present = Place(environment=other, name="r1")
    assert [place.name for place in away_places(racks.store, "cpu", (), (present,))] == [
        f"r1 {old.fingerprint}"
    ]
    racks.clock += SIDE_BY_SIDE + HOUR
    racks.runs_in = other
    list(racks.measure([job_in(other)]))
    assert [place.name for place in away_places(racks.store, "cpu", (), ())] == ["r1"]


def job_in(environment: Environment) -> Job:
    """A run of AMD that is put into an environment."""
    arguments = ("run", "--symbol", "AMD", "--because", "never tuned")
    return Job(symbol="AMD", place=Place(environment=environment), arguments=arguments, seconds=RUN_SECONDS)


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


def test_a_tick_without_its_cluster_is_a_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cluster_address, "find_spec", lambda _: True)
    config = tmp_path / "autotune.toml"
    config.write_text('[daemon]\non = "ray://127.0.0.1:1"\n[symbols.AMD]\n')
    daemon = Daemon(location=str(tmp_path / "s.db"), config_file=config, log=lambda *_, **__: None)
    with pytest.raises(AutotuneError, match=r"^the tick failed: .*ray"):
        daemon.run(once=True)
    found = health(daemon)
    assert (found["healthy"], "held: " in found["summary"]) == (False, True)
    assert [each["event"] for each in daemon.events] == ["cluster", "tick"]

    monkeypatch.setattr(cluster_address, "find_spec", lambda _: None)
    with pytest.raises(AutotuneError, match=r"^ray missing: pip install 'toto-autotune\[cluster\]'$"):
        daemon.run()


def test_a_tick_that_begins_in_a_quiet_window_measures_nothing_to_its_end(world: World) -> None:
    pass_time(world, 0.25)
    world.clock += 24 * 9 * HOUR
    world.log.clear()
    quiet = iter(["quiet: of the exchange", *([None] * 1000)])
    cluster = OnCluster(
        owned=Owned(on="ray://127.0.0.1:1"),
        store=world.store,
        stop=threading.Event(),
        quiet=lambda: next(quiet),
        beat=lambda: None,
        log=world.note,
    )
    with cluster:
        ticked = replace(ticker(world), machine=cluster, quiet=()).tick()
    assert ticked.held == "quiet: of the exchange"
    assert [event for _, event, _ in world.log if event in {"tuning", "cluster"}] == []
