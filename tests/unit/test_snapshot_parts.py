"""The part of a snapshot that one look-up reads says the same as the whole, and is taken for no other."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner.environment import current_environment
from autotuner.serving import lookup as serving_lookup
from autotuner.serving.lookup import lookup
from autotuner.serving.resolution import LookupRequest, resolve
from autotuner.workload import RequestShape, Workload
from storage.errors import SnapshotError
from storage.snapshot import (
    SnapshotEntry,
    SnapshotPart,
    fill_document,
    packed_document,
    publish,
    read_snapshot,
    read_snapshot_part,
)
from storage.snapshot_parts import leaders
from tests.support.snapshots import BF16, COMPILED, SMALL, START, elsewhere, entry, pin, published
from toto_core.settings import RuntimeSettings

OTHER = Workload(shapes=(RequestShape(context_length=128, prediction_length=8, num_samples=16),))
SETTINGS = (BF16, COMPILED, RuntimeSettings(num_threads=3))
ENVIRONMENTS = (current_environment(), current_environment(), elsewhere(threads=77), elsewhere(isa="other"))


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "AUTOTUNE_DB"):
        monkeypatch.delenv(name, raising=False)


def many(symbols: int, *, seed: int = 0, unreadable: float = 0.0) -> list[SnapshotEntry]:
    """Entries of symbols, up to four of each, as chance will have them."""
    chance = random.Random(seed)
    found: list[SnapshotEntry] = []
    for number in range(symbols):
        own: list[SnapshotEntry] = []
        for _ in range(chance.randrange(5)):
            raw: dict[str, Any] = {"settings_json": "{"} if chance.random() < unreadable else {}
            new = entry(
                f"S{number:04d}",
                settings=chance.choice(SETTINGS),
                workload=chance.choice((SMALL, OTHER)),
                profile=chance.choice(("production", "accuracy")),
                environment=chance.choice(ENVIRONMENTS),
                number=len(found) + len(own) + 1,
                newest=False,
                **raw,
            )
            own.append(replace(new, since=START.replace(hour=chance.randrange(24))))
        if own:
            own[-1] = replace(own[-1], newest=True)
        found += own
    return found


def request_for(symbol: str, chance: random.Random) -> LookupRequest:
    return LookupRequest(
        symbol=symbol,
        given=symbol,
        model=None,
        workload=chance.choice((None, SMALL, OTHER)),
        profile=chance.choice((None, "production", "accuracy")),
        settings=None,
        environment=current_environment(),
        kill_switch=None,
        mode=None,
    )


def part_of(path: Path, symbol: str) -> SnapshotPart:
    found = read_snapshot_part(path, "symbols", symbol)
    assert found is not None
    return found


@pytest.mark.parametrize("symbols", [0, 1, 3, 4, 50])
def test_a_part_says_of_its_symbol_what_the_whole_says(tmp_path: Path, symbols: int) -> None:
    listed, path = many(symbols), tmp_path / "s.db"
    publish(path, listed, [pin("S0001"), pin("P")], generation_time=START)
    whole = read_snapshot(path)
    for symbol in ("P", "NOBODY", *(f"S{number:04d}" for number in range(symbols))):
        part = part_of(path, symbol)
        assert part.covers(symbol)
        assert (part.of_symbol(symbol), part.pin_of(symbol)) == (
            whole.of_symbol(symbol),
            whole.pin_of(symbol),
        )
    assert part.written_at == whole.written_at


@pytest.mark.parametrize("unreadable", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_an_answer_from_a_part_is_the_answer_from_the_whole(
    tmp_path: Path, seed: int, unreadable: float
) -> None:
    path, chance = tmp_path / "s.db", random.Random(seed)
    publish(path, many(40, seed=seed, unreadable=unreadable), [pin("S0001")], generation_time=START)
    whole, sources = read_snapshot(path), set()
    for symbol in (f"S{number:04d}" for number in range(50)):
        asked = request_for(symbol, chance)
        try:
            found = resolve(asked, part_of(path, symbol), ())
        except SnapshotError:  # a look-up reads the whole then
            assert unreadable
            continue
        assert found == resolve(asked, whole, ())
        sources.add(found.source)
    assert {"promotion", "pin"} <= sources
    assert unreadable or "workload winner" in sources


def test_what_a_part_leaves_open_is_not_read_of_a_snapshot_that_took_its_place(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    publish(path, [entry("AAPL", settings=BF16)], [], generation_time=START)
    part = part_of(path, "AMD")
    assert [each.symbol for each in part.leaders(SMALL.signature)] == ["AAPL"]
    publish(path, [entry("AAPL", settings=COMPILED)], [pin("AMD")], generation_time=START)

    with pytest.raises(SnapshotError):
        part.leaders(SMALL.signature)


def test_a_look_up_during_which_the_snapshot_is_replaced_answers_by_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = str(tmp_path / "autotune.db")
    published(db, entry("AAPL", settings=BF16))

    def replaced_first(*given: Any) -> Any:
        monkeypatch.setattr(serving_lookup, "resolve", resolve)
        published(db, entry("AAPL", settings=COMPILED), pins=(pin("AMD"),))
        return resolve(*given)

    monkeypatch.setattr(serving_lookup, "resolve", replaced_first)
    found = lookup("AMD", db=db, workload=SMALL)

    assert found.source == "pin"
    assert found == lookup("AMD", db=db, workload=SMALL)


def test_what_a_document_says_at_a_time_without_a_zone_has_no_parts(tmp_path: Path) -> None:
    listed = entry("AMD", settings=BF16)
    document = packed_document([listed], [], generation_time=START)
    naive = document.replace(b"+00:00", b"")
    for text, parts in ((document, True), (naive, False)):
        path = tmp_path / f"{parts}.db"
        path.touch()
        fill_document(path, text)
        assert (read_snapshot_part(path, "symbols", "AMD") is not None) == parts


def test_leaders_are_few(tmp_path: Path) -> None:
    assert len(leaders(many(500))) <= 2 * 2 * 2 * 3  # marked or not, workloads, profiles, environments


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE parts",
        "DELETE FROM parts",
        "UPDATE parts SET places = 5",
        "UPDATE parts SET document = CAST(replace(CAST(document AS TEXT), 'bf16', 'tf32') AS BLOB)",
        "UPDATE parts SET sha256 = 'x'",
        "UPDATE parts SET document = 5",
        "UPDATE parts SET places = 'many'",
    ],
)
def test_a_part_that_is_not_what_was_written_is_not_read(tmp_path: Path, damage: str) -> None:
    path = published(str(tmp_path / "a.db"), entry())
    assert read_snapshot_part(path, "symbols", "AMD") is not None
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    assert read_snapshot_part(path, "symbols", "AMD") is None
    assert lookup("AMD", db=str(tmp_path / "a.db")).settings == BF16  # the whole is read instead


def test_the_part_of_another_snapshot_is_not_read(tmp_path: Path) -> None:
    path = published(str(tmp_path / "a.db"), entry())
    before = shutil.copy(path, tmp_path / "before.db")
    published(str(tmp_path / "a.db"), entry(settings=COMPILED, number=2))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ATTACH ? AS old", (str(before),))
        connection.execute("DELETE FROM parts")
        connection.execute("INSERT INTO parts SELECT * FROM old.parts")
    assert lookup("AMD", db=str(tmp_path / "a.db")).settings == COMPILED


def test_a_snapshot_of_an_earlier_version_is_read_whole(tmp_path: Path) -> None:
    db = str(tmp_path / "a.db")
    path = published(db, entry(), entry("AAPL", settings=COMPILED, number=2))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE parts")
    assert [lookup(symbol, db=db).settings for symbol in ("AMD", "AAPL", "TSLA")] == [
        BF16,
        COMPILED,
        RuntimeSettings(),
    ]


def test_a_snapshot_that_is_gone_when_the_winner_is_looked_for_gives_the_safe_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = str(tmp_path / "a.db")
    path = published(db, entry())

    def vanishing(*given: Any) -> SnapshotPart | None:
        found = read_snapshot_part(*given)
        path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(serving_lookup, "read_snapshot_part", vanishing)
    found = lookup("TSLA", db=db, workload=SMALL)
    assert (found.source, found.settings) == ("default", RuntimeSettings())
    assert any(line.startswith("snapshot: ") for line in found.reasons)
    with pytest.raises(SnapshotError):
        read_snapshot(path)


def test_a_look_up_reads_no_more_of_a_large_snapshot_than_of_a_small_one(tmp_path: Path) -> None:
    read = {}
    for symbols in (200, 2_000):
        db = str(tmp_path / f"{symbols}.db")
        path = published(db, *(entry(f"S{number:04d}", number=number + 1) for number in range(symbols)))
        lookup("S0000", db=db)
        found = _bytes_read(lambda db=db: lookup("S0100", db=db))  # type: ignore[misc]
        assert found < path.stat().st_size
        read[symbols] = found
    assert read[2_000] < 2 * read[200]


def _bytes_read(act: Callable[[], object]) -> int:
    before = _rchar()
    act()
    return _rchar() - before


def _rchar() -> int:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"])
