"""The commands compare and selftest over recorded answers: what is stored, in which order, and what ends a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from autotuner.commands import compare as comparing
from autotuner.commands import selftest as selftesting
from autotuner.commands.compare import compare
from autotuner.commands.selftest import self_test_machine
from autotuner.environment import current_environment
from autotuner.measurement.outcome import Measured
from autotuner.measurement.recorded import Recorded, ReplayTable
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from autotuner.search.space import SearchSpace
from autotuner.store import Store
from autotuner.tuning.measuring import MeasuringPlan
from autotuner.workload import Workload
from toto_core.series import PriceSource, SeriesError
from toto_core.settings import COMPILE_MODES, RuntimeSettings

WORKLOAD = Workload()
EAGER = RuntimeSettings()
MODES = [EAGER.replace(compile_mode=mode) for mode in COMPILE_MODES]
NOBODY = "NOSUCHSYMBOL"


class Noted(ReplayRunner):
    """Recorded answers of every mode; ``measure`` raises what it is told to from its second answer on."""

    def __init__(self, keys: Sequence[RuntimeSettings], then: BaseException | None = None) -> None:
        entry = Recorded(latency_ms=(10.0,), sigma_ms=(0.5,), cost_s=0.01)
        super().__init__(
            ReplayTable(entries=dict.fromkeys(keys, entry), reference=EAGER), TimingNoise(seed=1)
        )
        self.then = then
        self.asked: list[RuntimeSettings] = []
        self.closed = 0

    def measure(self, settings: RuntimeSettings, **terms: Any) -> Any:
        if self.asked and self.then is not None:
            raise self.then
        self.asked.append(settings)
        return super().measure(settings, **terms)

    def close(self) -> None:
        self.closed += 1


def answering(monkeypatch: pytest.MonkeyPatch, module: Any, runner: Noted) -> Noted:
    plan = MeasuringPlan(space=SearchSpace.of(MODES), make_runner=lambda _: runner)
    monkeypatch.setattr(module, "plan_measuring", lambda *_, **__: plan)
    return runner


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "autotune.db")) as opened:
        yield opened


def compared(store: Store, *symbols: str, said: list[tuple[str, str]] | None = None) -> list[Any]:
    heard = [] if said is None else said
    return compare(
        symbols,
        WORKLOAD,
        store,
        prices=PriceSource(),
        device="cpu",
        seconds=60.0,
        say=lambda symbol, line: heard.append((symbol, line)),
    )


def statuses(store: Store, symbol: str = "AMD") -> list[str]:
    return [run.status for run in store.records.runs(symbol)]


def test_every_symbol_is_compared_once_and_what_is_known_is_not_measured_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = answering(monkeypatch, comparing, Noted(MODES))
    first = compared(store, "AMD", "AAPL", "AMD")
    asked = len(runner.asked)
    second = compared(store, "AMD")

    assert [comparison.symbol for comparison in first] == ["AMD", "AAPL"]
    assert first[0].price_level > 0
    assert [mode.mode for mode in first[0].modes] == list(COMPILE_MODES)
    assert all(isinstance(mode.outcome, Measured) for mode in first[0].modes)
    assert asked == len(runner.asked) == 2 * len(MODES)
    assert [mode.outcome for mode in second[0].modes] == [mode.outcome for mode in first[0].modes]
    assert (runner.closed, statuses(store)) == (3, ["finished", "finished"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no space left on device")])
def test_a_comparison_that_is_cut_short_keeps_what_is_measured(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    cut_short = answering(monkeypatch, comparing, Noted(MODES, then=error))
    with pytest.raises(type(error)):
        compared(store, "AMD")
    assert (cut_short.closed, statuses(store)) == (1, ["failed"])

    runner = answering(monkeypatch, comparing, Noted(MODES))
    compared(store, "AMD")
    assert len(runner.asked) == len(MODES) - 1


def test_who_hears_of_a_comparison_hears_the_symbol(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def speaking(say: Any) -> Noted:
        say("starting")
        return Noted(MODES)

    plan = MeasuringPlan(space=SearchSpace.of(MODES), make_runner=speaking)
    monkeypatch.setattr(comparing, "plan_measuring", lambda *_, **__: plan)
    said: list[tuple[str, str]] = []
    compared(store, "AMD", said=said)
    assert said == [("AMD", "starting")]


def selftested(location: Path, symbol: str = "AMD", say: Any = lambda _: None) -> dict[str, Any]:
    return self_test_machine(
        symbol, WORKLOAD, str(location), device="cpu", seconds=60.0, launches=5, seed=0, say=say
    )


def test_a_self_test_is_stored_as_it_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = answering(monkeypatch, selftesting, Noted(selftesting.equal_arms(EAGER)))
    document = selftested(tmp_path / "autotune.db")

    assert document["launches"] == 5
    assert runner.closed == 1
    with Store(str(tmp_path / "autotune.db"), create=False) as store:
        kept = store.selftest(current_environment())
    assert kept is not None
    assert {name: kept[name] for name in document} == document


def test_a_symbol_without_prices_makes_no_store_for_a_self_test(tmp_path: Path) -> None:
    with pytest.raises(SeriesError):
        selftested(tmp_path / "autotune.db", NOBODY)
    assert not (tmp_path / "autotune.db").exists()


def test_an_interrupted_self_test_stores_nothing_and_ends_its_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt(line)

    runner = answering(monkeypatch, selftesting, Noted(selftesting.equal_arms(EAGER)))
    with pytest.raises(KeyboardInterrupt):
        selftested(tmp_path / "autotune.db", say=interrupt)
    assert runner.closed == 1
    with Store(str(tmp_path / "autotune.db"), create=False) as store:
        assert store.selftest(current_environment()) is None
