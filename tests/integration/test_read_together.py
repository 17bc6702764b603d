"""What a tick reads of many symbols together is what is stored of each, in a number of queries that does not grow."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert
from sqlalchemy.engine import Engine

from autotuner.daemon import stored as stored_module
from autotuner.daemon.config import Config, DaemonConfig, SymbolConfig
from autotuner.daemon.intake import stored_notes
from autotuner.daemon.observing import Observer
from autotuner.daemon.places import Place, Whose
from autotuner.daemon.prices_seen import SeenPrices
from autotuner.daemon.stored import Stored
from autotuner.daemon.tick import Ticker
from autotuner.daemon.ticked import Ticked
from autotuner.environment import current_environment
from autotuner.record_mapping import measurement_record, promotion_record, telemetry_record
from autotuner.serving.canary import Canary
from autotuner.serving.resolution import SAFE
from autotuner.store import Promotion, Store, Subject
from storage.models import MEASUREMENTS, PROMOTIONS, ROLLBACKS, RUNS, TELEMETRY
from storage.records import RunRecord, SeriesRecord
from storage.rows import append, append_all
from tests.support.absurd_store import editing
from tests.support.outcomes import measured, timing
from tests.support.postgres import Server
from tests.support.promoted_store import BF16, FAST, NOW, STEADY, WORKLOAD, duel_figures
from tests.support.seen_store import window
from tests.support.simulated_world import World, write_prices
from toto_core.model_files import digest, locate
from toto_core.series import PriceSeries, PriceSource, read_series

SETTINGS = (FAST, STEADY, BF16)
HERE = current_environment()
ELSEWHERE = replace(HERE, hardware="another rack")
HOUR = timedelta(hours=1)


def quiet(*_: Any, **__: Any) -> None:
    """A log that nobody reads."""


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """Puts random rows of symbols into a store, within one transaction."""

    connection: Connection
    chance: random.Random

    def symbol(self, symbol: str) -> None:
        runs = [self._run(symbol) for _ in range(self.chance.randrange(5))]
        for _ in range(self.chance.randrange(4)):
            self._promotion(symbol, self.chance.choice([*runs, None]))
        for _ in range(self.chance.randrange(6)):
            self._note(symbol)

    def _run(self, symbol: str) -> str:
        chance, run_id = self.chance, str(uuid.UUID(int=self.chance.getrandbits(128)))
        environment = chance.choice((HERE, HERE, ELSEWHERE))
        begun = NOW - chance.randrange(100) * HOUR
        status = chance.choice(("finished", "finished", "failed", "running"))
        run = RunRecord(
            run_id=run_id,
            symbol=symbol,
            workload_signature=WORKLOAD.signature,
            environment_fingerprint=environment.fingerprint,
            profile=chance.choice(("production", "accuracy")),
            seed=0,
            started_at=begun,
            owner_pid=1,
            owner_started=1.0,
            study_name="study",
            status=status,  # type: ignore[arg-type]
            finished_at=None if status == "running" else begun + HOUR,
            summary_json='{"settings": {}}' if status == "finished" else None,
        )
        append_all(self.connection, RUNS, [run], leave_out=())
        for _ in range(chance.randrange(4)):
            subject = Subject(
                symbol=symbol,
                workload=WORKLOAD,
                environment=environment,
                series_digest=f"{symbol} {chance.randrange(3)}",
                model_digest="weights",
            )
            stage = chance.choice(("search", "search", "compare"))
            outcome = measured(timing(2.0))
            row = measurement_record(subject, run_id, chance.choice(SETTINGS), outcome, stage)  # type: ignore[arg-type]
            append(self.connection, MEASUREMENTS, row)
        return run_id

    def _promotion(self, symbol: str, run_id: str | None) -> None:
        chance = self.chance
        canary = Canary(share=0.5, previous=chance.choice(SETTINGS)) if chance.random() < 0.2 else None
        prices = PriceSource(data=f"/nowhere/{symbol}") if chance.random() < 0.8 else None
        new = Promotion(
            symbol=symbol,
            profile=chance.choice(("production", "accuracy")),
            workload=WORKLOAD,
            environment=chance.choice((HERE, HERE, ELSEWHERE)),
            settings=chance.choice(SETTINGS),
            verdict="first",
            reason="by chance",
            figures=replace(duel_figures(), canary=canary, prices=prices),
            promoted_at=NOW - chance.randrange(100) * HOUR,
            run_id=run_id,
        )
        left_out = ("id", "rolled_back_at", "rolled_back_reason")
        id_ = append(self.connection, PROMOTIONS, promotion_record(new), leave_out=left_out)
        if chance.random() < 0.3:
            at = NOW - chance.randrange(50) * HOUR
            back = insert(ROLLBACKS).values(promotion_id=id_, reason="it failed", rolled_back_at=at)
            self.connection.execute(back)

    def _note(self, symbol: str) -> None:
        chance = self.chance
        at = NOW - chance.randrange(100) * HOUR
        note = window(symbol, chance.choice((*SETTINGS, SAFE)), at)
        note = replace(note, environment_fingerprint=chance.choice((HERE, ELSEWHERE)).fingerprint)
        append(self.connection, TELEMETRY, telemetry_record(note))


def filled(path: Path | str, symbols: tuple[str, ...], *, seed: int = 0) -> str:
    """A store with many states of many symbols."""
    with Store(str(path)) as store:
        for environment in (HERE, ELSEWHERE):
            store.remember_setting(WORKLOAD, environment)
        store.records.put(
            *(_series(symbol, f"{symbol} {number}") for symbol in symbols for number in range(3))
        )
        with store.records._database.write() as connection:
            writer = _Writer(connection=connection, chance=random.Random(seed))
            for symbol in symbols:
                writer.symbol(symbol)
    return str(path)


def _series(symbol: str, digest: str) -> SeriesRecord:
    return SeriesRecord(
        digest=digest,
        symbol=symbol,
        source=f"{symbol}.csv",
        points=1000,
        first_timestamp=NOW - 1000 * HOUR,
        last_timestamp=NOW,
        first_seen=NOW,
    )


def looks_at(store: Store, config: Config | None = None) -> Observer:
    return Observer(
        store=store, config=config or Config(), place=Place(environment=HERE), now=NOW + HOUR, log=quiet
    )


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is asked of databases within the block."""
    found: list[str] = []

    def heard(*given: Any) -> None:
        found.append(given[2])

    event.listen(Engine, "before_cursor_execute", heard)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", heard)


def named(many: int) -> tuple[str, ...]:
    return tuple(f"S{number:03d}" for number in range(many))


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "s.db")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))  # where the snapshot of a server's store lies
    server: Server = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.mark.parametrize("profile", [None, "production"])
def test_many_symbols_together_are_what_is_stored_of_each(location: str, profile: str | None) -> None:
    symbols = named(60)
    with Store(filled(location, symbols)) as store:
        looks = looks_at(store)
        stored = Stored(store, dict.fromkeys(symbols, profile), whose=looks.whose)
        seen = {symbol: _seen(store, stored, symbol, profile) for symbol in symbols}
    assert sum(seen.values()) > 20  # else chance made no promotions


def _seen(store: Store, stored: Stored, symbol: str, profile: str | None) -> bool:
    """Compare what is read together with what the store says when it is asked for one thing."""
    records = store.records
    ledger = [
        each
        for each in records.promotions(symbol)
        if each.rolled_back_at is None and profile in {None, each.profile}
    ]
    here = [each for each in ledger if each.environment_fingerprint == HERE.fingerprint]
    newest = max(here or ledger, key=lambda each: each.id or 0, default=None)
    active = stored.active(symbol)
    assert (active and active.id) == (newest and newest.id)
    if not here:
        assert active == store.active(symbol, profile)
    assert list(stored.runs(symbol)) == [replace(run, summary_json=None) for run in records.runs(symbol)]
    if active is None:
        return False
    backs = [
        each.rolled_back_at
        for each in records.promotions(symbol)
        if each.rolled_back_at and each.environment_fingerprint == active.environment.fingerprint
    ]
    assert stored.rolled_back(symbol) == backs
    own = {HERE.fingerprint, active.environment.fingerprint}
    assert stored.measured_subject(symbol) == store.measured_subject(symbol, own)
    if here:
        assert stored.price_source(symbol) == store.price_source(active)
    notes = stored_notes(records.telemetry(symbol, since=active.promoted_at), quiet)
    canary = active.figures.canary
    keys = {active.settings.key, SAFE.key, *(() if canary is None else (canary.previous.key,))}
    wanted = [
        note
        for note in notes
        if note.settings_key in keys and note.environment_fingerprint == active.environment.fingerprint
    ]
    assert list(stored_notes(stored.notes_since(symbol), quiet)) == wanted
    trials = records.measurements(stage="search", settings_key=active.settings.key, **active.keys)
    for prices in (f"{symbol} {number}" for number in range(3)):
        assert stored.is_measured_on(symbol, prices) == (prices in {each.series_digest for each in trials})
    return True


@pytest.mark.parametrize("most", [1, 3, 7])
def test_notes_of_many_are_read_some_symbols_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(stored_module, "WINDOWS_TOGETHER", most)
    symbols = named(150)
    with Store(filled(tmp_path / "autotune.db", symbols, seed=3), create=False) as store:
        together = Stored(store, dict.fromkeys(symbols), whose=lambda _: Whose.HERE)
        noted = 0
        for symbol in symbols:
            alone = Stored(store, {symbol: None}, whose=lambda _: Whose.HERE)
            assert together.notes_since(symbol) == alone.notes_since(symbol)
            noted += len(together.notes_since(symbol))
            windows = len(together._windows_of(symbol))
            assert not windows or sum(map(len, together._held[1].values())) <= max(most, windows)
        assert noted > 3 * most


def test_a_look_with_others_is_a_look_alone(tmp_path: Path) -> None:
    symbols = named(60)
    with Store(filled(tmp_path / "s.db", symbols, seed=1)) as store:
        looks = looks_at(store)
        for symbol, stored in looks.together(symbols):
            assert stored is not None
            together, alone = looks.look(symbol, stored), looks.alone(symbol)
            assert (together, together.situation) == (alone, alone.situation)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("promotions", "evidence_json", "[]"),
        ("promotions", "promoted_at", "noon"),
        ("promotions", "settings_json", b"\xff"),
        ("measurements", "measured_at", "noon"),
        ("runs", "started_at", b"\xff"),
        ("series", "points", "many"),
        ("telemetry", "payload_json", "{"),
    ],
)
def test_what_is_damaged_of_one_symbol_changes_no_look_at_another(
    tmp_path: Path, table: str, column: str, value: Any
) -> None:
    symbols = named(150)
    path = filled(tmp_path / "s.db", symbols, seed=2)
    with Store(path) as store:
        before = _looks(store, symbols)
    with editing(Path(path)) as connection:
        spoilt = f"UPDATE {table} SET {column} = ? WHERE symbol = 'S003'"
        assert connection.execute(spoilt, (value,)).rowcount
    with Store(path) as store:
        after = _looks(store, symbols)
    assert [after[symbol] for symbol in symbols if symbol != "S003"] == [
        before[symbol] for symbol in symbols if symbol != "S003"
    ]


def _looks(store: Store, symbols: tuple[str, ...]) -> dict[str, object]:
    looks = looks_at(store)
    found: dict[str, object] = {}
    for symbol, stored in looks.together(symbols):
        assert stored is not None
        try:
            found[symbol] = looks.look(symbol, stored)
        except Exception as error:
            found[symbol] = error
    return found


def test_a_tick_asks_as_many_questions_of_forty_symbols_as_of_three(tmp_path: Path) -> None:
    assert _asked(tmp_path / "three", 3) == _asked(tmp_path / "forty", 40)


def _asked(folder: Path, many: int) -> int:
    folder.mkdir()
    symbols = named(many)
    with Store(_settled(folder, symbols)) as store, statements() as asked:
        ticked = tick(store, folder, symbols)
    assert (ticked.tuned, ticked.skipped) == ((), ())
    return len(asked)


def _settled(folder: Path, symbols: tuple[str, ...]) -> str:
    """A store whose symbols were tuned on the prices that are there, so that nothing is due."""
    store = Store(str(folder / "s.db"))
    with store:
        world = World(store=store, data=folder, model=folder, clock=NOW)
        store.remember_setting(WORKLOAD, HERE)
        for symbol in symbols:
            (folder / f"{symbol}.csv").write_text("timestamp,close\n2020-01-01,1.5\n2020-01-02,1.25\n")
        prices = SeenPrices().of(symbols[0], PriceSource(data=str(folder)))
        store.records.put(_series(symbols[0], prices.digest))
        with store.records._database.write() as connection:
            for symbol in symbols:
                _tuned(connection, symbol, prices.digest, folder)
    assert world.log == []
    return str(folder / "s.db")


def _tuned(connection: Connection, symbol: str, prices: str, folder: Path) -> None:
    subject = Subject(
        symbol=symbol,
        workload=WORKLOAD,
        environment=HERE,
        series_digest=prices,
        model_digest=digest(locate(WORKLOAD.model)),
    )
    run = RunRecord(
        **subject.keys,
        run_id=f"run of {symbol}",
        profile="production",
        seed=0,
        started_at=NOW - HOUR,
        owner_pid=1,
        owner_started=1.0,
        study_name=subject.study,
        status="finished",
        finished_at=NOW,
    )
    append_all(connection, RUNS, [run], leave_out=())
    trial = measurement_record(subject, run.run_id, FAST, measured(timing(1.0)), "search")
    append(connection, MEASUREMENTS, trial)
    new = Promotion(
        symbol=symbol,
        profile="production",
        workload=WORKLOAD,
        environment=HERE,
        settings=FAST,
        verdict="first",
        reason="it is faster",
        figures=replace(duel_figures(), prices=PriceSource(data=str(folder))),
        promoted_at=NOW,
        run_id=run.run_id,
    )
    left_out = ("id", "rolled_back_at", "rolled_back_reason")
    append(connection, PROMOTIONS, promotion_record(new), leave_out=left_out)


def tick(store: Store, folder: Path, symbols: tuple[str, ...], prices: SeenPrices | None = None) -> Ticked:
    world = World(store=store, data=folder, model=folder, clock=NOW + HOUR)
    ticker = Ticker(
        store=store,
        config=Config(daemon=DaemonConfig(), defaults=SymbolConfig(profile="production")),
        symbols=symbols,
        quiet=(),
        machine=world,
        log=world.note,
        prices=prices or SeenPrices(),
    )
    return ticker.tick()


def test_a_model_is_digested_once_a_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    symbols, digested = named(5), []

    def counted(folder: Path) -> str:
        digested.append(folder)
        return digest(folder)

    monkeypatch.setattr("autotuner.daemon.observing.digest", counted)
    with Store(_settled(tmp_path, symbols)) as store:
        tick(store, tmp_path, symbols)
    assert len(digested) == 1


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The price files that were read."""
    found: list[Path] = []

    def counted(path: Path, *given: Any, **named_: Any) -> PriceSeries:
        found.append(path)
        return read_series(path, *given, **named_)

    monkeypatch.setattr("autotuner.daemon.prices_seen.read_series", counted)
    return found


def test_a_price_file_is_read_once_until_it_changes(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prices(tmp_path, "AMD", 700)
    file = tmp_path / "AMD.csv"
    monkeypatch.setattr("autotuner.daemon.prices_seen._SETTLED_SECONDS", -1e9)  # as if it were older
    prices, source = SeenPrices(), PriceSource(data=str(tmp_path))
    before = prices.of("AMD", source)
    assert (prices.of("AMD", source), len(read)) == (before, 1)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    assert (prices.of("AMD", source), len(read)) == (before, 2)
    write_prices(tmp_path, "AMD", 699)
    assert prices.of("AMD", source).points == 699


def test_a_price_file_that_was_written_just_now_is_read_again(tmp_path: Path, read: list[Path]) -> None:
    write_prices(tmp_path, "AMD", 700)
    prices, source = SeenPrices(), PriceSource(data=str(tmp_path))
    prices.of("AMD", source)
    prices.of("AMD", source)
    assert len(read) == 2


def test_a_new_file_of_a_symbol_counts_from_the_next_tick_on(tmp_path: Path) -> None:
    write_prices(tmp_path, "AMD", 700)
    prices, source = SeenPrices(), PriceSource(data=str(tmp_path))
    assert prices.of("AMD", source).points == 700
    write_prices(tmp_path, "AAPL", 600)
    prices.look_again()
    assert prices.of("AAPL", source).points == 600


def test_what_another_environment_promotes_is_not_due_here(tmp_path: Path) -> None:
    symbols = named(2)
    path = _settled(tmp_path, symbols)
    with Store(path) as store:
        mine = store.active("S000")
        assert mine is not None
        store.remember_setting(WORKLOAD, ELSEWHERE)
        theirs = replace(mine, environment=ELSEWHERE, settings=STEADY, id=None, promoted_at=NOW + HOUR / 2)
        store.promote(theirs)
        assert (store.active("S000") or mine).environment == ELSEWHERE
        ticked = tick(store, tmp_path, symbols)
    assert (ticked.tuned, ticked.skipped) == ((), ())
