"""The store's server is killed in mid-run: what was acknowledged is there, nothing twice, and the run goes on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest

from autotuner.measurement.outcome import Outcome
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from autotuner.paths import snapshot_path, studies_url
from autotuner.search.profiles import profile
from autotuner.search.search import TrialEvent
from autotuner.search.study_storage import open_storage
from autotuner.store import Store
from autotuner.tuning.measuring import MeasuringPlan
from autotuner.tuning.request import TuneRequest
from autotuner.tuning.run import tune
from storage.patience import patience
from storage.snapshot import read_snapshot
from tests.support.command import Cli
from tests.support.postgres import Server, or_skipped
from tests.support.study_tables import SPACE, WORKLOAD, replay_table
from toto_core.settings import RuntimeSettings


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setattr("autotuner.device_lock.data_folder", lambda: tmp_path)
    monkeypatch.setattr("autotuner.paths.data_folder", lambda: tmp_path)
    with or_skipped() as found:
        yield found


class Killing(ReplayRunner):
    """Kills the server while its trials of these numbers are measured; it is back ``away`` seconds later."""

    def __init__(self, server: Server, at: set[int], away: float) -> None:
        super().__init__(replay_table(), TimingNoise.none())
        self._server, self._at, self._away = server, at, away
        self._measured = 0
        self.back: list[threading.Thread] = []

    def measure(
        self, settings: RuntimeSettings, *, seconds: float, beat: float | None = None, again: bool = False
    ) -> Outcome:
        self._measured += 1
        if self._measured in self._at:
            for thread in self.back:
                thread.join()
            self._server.kill()
            self.back.append(threading.Timer(self._away, self._server.start))
            self.back[-1].start()
            time.sleep(0.3)  # its other processes notice, and end
        return super().measure(settings, seconds=seconds, beat=beat, again=again)


class Heard:
    """What a run said and acknowledged."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.trials: list[TrialEvent] = []

    def begin(self, *_: Any) -> None: ...

    def say(self, line: str) -> None:
        self.said.append(line)

    def trial(self, event: TrialEvent) -> None:
        self.trials.append(event)

    def still_open(self, left_open: object) -> None: ...

    def looked(self, look: object) -> None: ...


def tuned(server: Server, at: set[int], away: float) -> tuple[dict[str, Any], Heard, Store]:
    """One run with the lease on this machine's CPUs, on a new store."""
    runner, heard = Killing(server, at, away), Heard()
    store = Store(server.new_database())
    plan = MeasuringPlan(space=SPACE, make_runner=lambda _: runner, clock=runner.clock, device="cpu")
    request = TuneRequest(symbol="AMD", workload=WORKLOAD, profile=profile("production"), seconds=900.0)
    try:
        with patience(0.5, lambda _: None):  # a run waits longer than whoever calls it
            document = tune(request, store, heard, plan)
    except BaseException:
        store.__exit__(None, None, None)
        raise
    finally:
        for thread in runner.back:
            thread.join()
    return document, heard, store


def holds_all(store: Store, document: dict[str, Any], heard: Heard) -> None:
    """Each acknowledged trial is stored, and once; the run is finished, promoted and published."""
    stored = [record.settings_key for record in store.records.measurements("AMD", stage="search")]
    assert stored == [event.settings.key for event in heard.trials]
    assert len(stored) == len(set(stored)) >= 5
    (run,) = store.records.runs("AMD")
    assert run.status == "finished"
    (promotion,) = store.records.promotions("AMD")
    assert json.loads(promotion.settings_json) == document["settings"]
    assert read_snapshot(snapshot_path(store.location)).entries[0].promotion_id == promotion.id
    storage = open_storage(studies_url(store.location), read_only=True)
    try:
        (name,) = optuna.get_all_study_names(storage)
        trials = optuna.load_study(study_name=name, storage=storage).trials
        told = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
        assert len(told) >= len(stored) - 2  # of what lies outside the space no trial is kept
    finally:
        storage.remove_session()
        storage.engine.dispose()


def test_a_run_goes_on_where_it_was_when_the_server_is_back(server: Server) -> None:
    document, heard, store = tuned(server, at={3}, away=2.5)
    with store:
        holds_all(store, document, heard)
    said = "\n".join(heard.said)
    assert "cannot be reached" in said
    assert "the store is back after" in said


@pytest.mark.exhaustive
@pytest.mark.parametrize("at", [{1}, {2, 4}, {3, 6, 9}, {5, 7}, {8}])
def test_whenever_it_is_killed_and_however_often(server: Server, at: set[int]) -> None:
    document, heard, store = tuned(server, at=at, away=5.0)
    with store:
        holds_all(store, document, heard)


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_a_real_run_outlasts_kills_of_its_server(server: Server, tmp_path: Path) -> None:
    url = server.new_database()
    cli = Cli(tmp_path)
    command = ("run", "--symbol", "AMD", "--timeout", "150", "--trials", "4", "--json")
    with ExitStack() as stack:
        process = stack.enter_context(cli.start(*command, extra={"AUTOTUNE_DB": url}))
        for wait in (25.0, 15.0):
            time.sleep(wait)
            if process.poll() is None:
                server.kill()
                time.sleep(5.0)
                server.start()
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    document = json.loads(out)
    with Store(url) as store:
        stored = store.records.measurements("AMD", stage="search")
        assert len(stored) == document["trials"]["measured"] + sum(document["trials"]["failed"].values())
        assert len({record.settings_key for record in stored}) == len(stored)
        (run,) = store.records.runs("AMD")
        assert run.status == "finished"
