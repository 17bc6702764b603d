"""A plan says what the run after it does: what is measured, reused, checked and gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from autotuner.commands.plan import Nodes, plan
from autotuner.commands.plan_cluster import plan_on
from autotuner.commands.plan_prices import FEW
from autotuner.commands.plan_rows import Asked, Row
from autotuner.environment import Environment, current_environment
from autotuner.machine.engine_versions import TOTO1
from autotuner.measurement.recorded import ReplayTable
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from autotuner.report.plan_view import plan_document, plan_lines, span
from autotuner.search.profiles import profile
from autotuner.store import Store
from autotuner.tuning.measuring import MeasuringPlan
from autotuner.tuning.request import TuneRequest
from autotuner.tuning.run import tune
from autotuner.workload import Workload
from tests.integration.test_shared_runs import Quiet, table
from tests.support.invoking import document, refused, run
from tests.support.promoted_store import STEADY, promotion
from tests.support.simulated_world import write_prices
from tests.support.study_tables import SPACE, WORKLOAD
from toto_core.prices.options import PriceSource

REQUEST = TuneRequest(symbol="AMD", workload=WORKLOAD, profile=profile("production"), seconds=600.0)
SHORT = replace(REQUEST, trials=4)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "autotune.db")) as opened:
        yield opened


def recorded(seed: int = 3, answers: ReplayTable | None = None) -> MeasuringPlan:
    runner = ReplayRunner(answers or table(), TimingNoise(seed=seed))
    return MeasuringPlan(
        space=SPACE,
        make_runner=lambda _: runner,
        clock=runner.clock,
        holds=lambda settings: settings.compiled,
    )


def planned(store: Store, *requests: TuneRequest) -> list[Row]:
    """What a plan says of each request here, answered from the recorded measurements."""
    asked = [Asked(symbol=request.symbol, requests=(request,)) for request in requests]
    answers = recorded()
    (here,) = plan(asked, store, replays=lambda request: (request, answers))
    return list(here.rows)


def work(row: Row) -> Any:
    assert row.fault is None
    return row.work


def the_run_does_what_was_announced(store: Store, request: TuneRequest) -> dict[str, Any]:
    (row,) = planned(store, request)
    done = tune(request, store, Quiet(), recorded())
    trials, said = done["trials"], work(row)
    measured = trials["measured"] + sum(trials["failed"].values())
    assert trials["reused"] == said.reused
    assert said.certain <= measured <= said.most
    assert (trials["ended_because"] == "shared") == (said.does == "check")
    assert row.goes_on in {None, done["run_id"]}
    return done


def test_what_is_announced_is_what_the_run_measures_reuses_and_checks(store: Store) -> None:
    first = the_run_does_what_was_announced(store, REQUEST)
    again = the_run_does_what_was_announced(store, REQUEST)
    other = the_run_does_what_was_announced(store, replace(REQUEST, symbol="AAPL"))

    assert again["trials"]["reused"] == first["trials"]["measured"] > 5
    assert other["shared_from"]["symbol"] == "AMD"
    assert again["trials"]["measured"] == 0
    assert work(planned(store, replace(REQUEST, reuse=False))[0]).reused == 0


def test_of_symbols_that_share_a_signature_the_first_pays_and_the_others_follow(store: Store) -> None:
    symbols = ("AMD", "AAPL", "GOOGL")
    requests = [replace(SHORT, symbol=symbol) for symbol in symbols]
    before = [(work(row).does, work(row).proof_of, work(row).assumed) for row in planned(store, *requests)]
    tune(SHORT, store, Quiet(), recorded())
    after = [(work(row).does, work(row).proof_of, work(row).assumed) for row in planned(store, *requests)]

    assert before == [("search", None, False), ("check", "AMD", True), ("check", "AMD", True)]
    assert after == [("search", None, False), ("check", "AMD", False), ("check", "AMD", False)]


def test_an_interrupted_run_is_gone_on_with_and_its_trials_are_reused(store: Store) -> None:
    class Interrupting(Quiet):
        def trial(self, event: Any) -> None:
            if event.number == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(SHORT, store, Interrupting(), recorded())
    (stopped,) = store.records.runs()
    (row,) = planned(store, SHORT)
    (begun_anew,) = planned(store, replace(SHORT, resume=False))
    done = the_run_does_what_was_announced(store, SHORT)

    assert (row.goes_on, work(row).reused) == (stopped.run_id, 3)
    assert begun_anew.goes_on is None
    assert (done["run_id"], done["trials"]["reused"]) == (stopped.run_id, 3)


def test_earlier_runs_tell_the_seconds_where_there_are_any(store: Store) -> None:
    asked = [Asked(symbol="AMD", requests=(replace(SHORT, seconds=None),))]
    (here,) = plan(asked, store)
    before = work(here.rows[0])
    promoted = tune(SHORT, store, Quiet(), recorded())
    (here,) = plan(asked, store)
    after = work(here.rows[0])

    assert promoted["promoted"]
    assert (before.measured, after.measured) == (False, True)
    assert after.seconds < before.seconds  # a replay takes no time at all


def test_another_machine_that_something_runs_on_is_named_with_what_it_needs(store: Store) -> None:
    there = replace(current_environment(), torch="2.12.0")
    store.promote(replace(promotion(chosen=STEADY), environment=there))
    request = replace(SHORT, workload=Workload())
    here, elsewhere = plan([Asked(symbol="AMD", requests=(request,))], store)

    assert (here.here, elsewhere.here) == (True, False)
    assert elsewhere.environment == there
    assert [each for each in elsewhere.differences if "2.12.0 there" in each]
    assert (here.rows[0].champion, elsewhere.rows[0].champion) == (None, "default fp32")
    assert plan_document((here, elsewhere))["environments"][1]["differences"] == list(elsewhere.differences)


def test_a_plan_writes_nothing_and_makes_no_store(tmp_path: Path) -> None:
    place = tmp_path / "autotune.db"
    found = document(place, "plan", "--all", "--timeout", "60")

    (here,) = found["environments"]
    assert here["totals"]["symbols"] == len(here["symbols"]) == 5
    assert here["totals"]["seconds"]["most"] == 5 * 60
    assert list(tmp_path.iterdir()) == []


def test_it_refuses_what_a_run_refuses_and_names_what_would_fail(tmp_path: Path) -> None:
    place = tmp_path / "autotune.db"
    short = tmp_path / "prices"
    short.mkdir()
    write_prices(short, "AMD", 100)
    write_prices(short, "AAPL", 1500)
    both = run(place, "plan", "--all", "--data", str(short))

    assert "name the symbols" in refused(run(place, "plan"), 2)
    assert "100 points where" in refused(run(place, "plan", "--symbol", "AMD", "--data", str(short)), 1)
    assert both.exit_code == 1
    assert both.stderr.startswith("Error: AMD: ")
    assert "fails" in both.stdout
    assert "check" not in both.stdout  # AAPL is not told to wait for the proof of a run that fails


def test_of_many_symbols_only_prices_on_which_something_hangs_are_read(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "prices"
    folder.mkdir()
    write_prices(folder, "AMD", 1500)
    for number in range(FEW):
        (folder / f"S{number}.csv").write_text("nothing that could be read")
    request = replace(SHORT, prices=PriceSource(data=str(folder)))
    tune(request, store, Quiet(), recorded())
    symbols = ("AMD", *(f"S{number}" for number in range(FEW)))
    rows = planned(store, *(replace(request, symbol=symbol) for symbol in symbols))
    amd, *others = (row.prices.state if row.prices else "" for row in rows)

    assert amd == "changed"  # the file is younger than a minute before the run
    assert set(others) == {"not read"}
    (read,) = planned(store, request)
    assert read.prices is not None
    assert (read.prices.state, work(read).reused) == ("read", 4)


def test_a_file_left_alone_since_it_was_measured_need_not_be_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "prices"
    folder.mkdir()
    write_prices(folder, "AMD", 1500)
    request = replace(SHORT, prices=PriceSource(data=str(folder)))
    tune(request, store, Quiet(), recorded())
    monkeypatch.setattr("autotuner.commands.plan_reading.FEW", 0)
    monkeypatch.setattr("autotuner.commands.plan_prices._AGO", datetime.min - datetime.min)
    (row,) = planned(store, request)
    (other_way,) = planned(store, replace(request, prices=PriceSource(data=str(folder / "AMD.csv"))))

    assert row.prices is not None
    assert (row.prices.state, work(row).reused) == ("as measured", 4)
    assert other_way.prices is not None
    assert other_way.prices.state == "changed"


def test_every_option_of_a_run_is_one_of_a_plan(tmp_path: Path) -> None:
    from autotuner.cli.plan import plan_command
    from autotuner.cli.run import run_command

    ours, theirs = ({param.name for param in command.params} for command in (plan_command, run_command))
    assert theirs - ours == {"exit_code"}
    assert ours - theirs == {"read_prices"}


def test_a_symbol_that_is_not_due_is_said_to_need_nothing(store: Store) -> None:
    store.promote(replace(promotion(), promoted_at=datetime.now(UTC)))
    place = Path(store.location)
    found = document(place, "plan", "--symbol", "AMD", "--symbol", "AAPL", "--due")
    rows = {row["symbol"]: row for row in found["environments"][0]["symbols"]}

    assert (rows["AMD"]["does"], rows["AAPL"]["due"]) == ("nothing", "never tuned")


def nodes_of(environment: Environment, *, devices: int = 2, here: bool = False) -> Nodes:
    return Nodes(
        label="rack-2",
        hosts=("h",) * devices,
        devices=devices,
        here=here,
        facts_for=lambda engine: environment if engine == TOTO1 else replace(environment, engine=engine),
    )


def test_each_environment_of_a_cluster_is_planned_by_what_is_known_there(store: Store) -> None:
    here = current_environment()
    there = replace(here, hardware="another card")
    tune(SHORT, store, Quiet(), recorded())
    asked = [Asked(symbol=symbol, requests=(replace(SHORT, symbol=symbol),)) for symbol in ("AAPL", "AMD")]
    not_due = [Asked(symbol="AAPL", requests=())]
    planned = plan_on([(nodes_of(here, here=True), asked), (nodes_of(there), asked + not_due)], store)
    found = plan_document(planned)["environments"]

    assert [each["fingerprint"] for each in found] == [here.fingerprint, there.fingerprint]
    assert [row["champion"] is None for row in found[0]["symbols"]] == [True, False]
    assert [(row["does"], row.get("assumed")) for row in found[1]["symbols"]] == [
        ("search", False),
        ("check", True),
        ("nothing", None),
    ]
    assert (found[1]["label"], found[1]["nodes"], found[1]["devices"]) == ("rack-2", ["h", "h"], 2)
    lines = [str(line) for line in plan_lines(planned)]
    assert any(line.startswith("rack-2 on h (2 nodes): cpu, ") for line in lines)
    assert any(line.strip().endswith(" on 2 devices") for line in lines)


def test_a_driver_without_the_nodes_cards_plans_for_them(store: Store) -> None:
    cards = replace(current_environment(), device="cuda", hardware="a card", driver="1")
    asked = [Asked(symbol="AMD", requests=(replace(SHORT, device="cuda"),))]
    ((row,),) = [each.rows for each in plan_on([(nodes_of(cards), asked)], store)]

    assert row.fault is None
    assert {settings.num_threads for settings in work(row).builds} <= {None, 1}


def test_what_waits_for_a_proof_begins_once_that_is_made_and_the_rest_side_by_side(store: Store) -> None:
    environment = replace(current_environment(), hardware="another card")
    symbols = ("AMD", "AAPL", "GOOGL", "ETHUSD")
    asked = [Asked(symbol=symbol, requests=(replace(SHORT, symbol=symbol),)) for symbol in symbols]
    (planned,) = plan_on([(nodes_of(environment), asked)], store)
    first, check, *_ = (work(row).seconds for row in planned.rows)

    assert span(planned.rows, 1) == pytest.approx(first + 3 * check)
    assert span(planned.rows, 2) == pytest.approx(first + 2 * check)
    assert span(planned.rows, 3) == span(planned.rows, 9) == pytest.approx(first + check)
    assert span([], 2) == 0.0
