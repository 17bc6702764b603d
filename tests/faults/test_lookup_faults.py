from __future__ import annotations

import hashlib
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from autotuner.paths import snapshot_path
from autotuner.serving.lookup import Resolution, lookup
from storage.snapshot import SnapshotEntry
from tests.support.snapshots import BF16, COMPILED, SMALL, entry, pin, published
from tests.support.storage_samples import new_store, shared_folder, unprivileged
from toto_core.settings import RuntimeSettings

SAFE = RuntimeSettings()
HOLD = """
import sqlite3, sys
held = [sqlite3.connect(path, isolation_level=None) for path in sys.argv[1:]]
for connection in held:
    connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "AUTOTUNE_DB"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def db(tmp_path: Path) -> str:
    return str(tmp_path / "autotune.db")


@pytest.fixture
def folder() -> Iterator[Path]:
    with shared_folder() as path:
        yield path


def refusal(found: Resolution) -> str:
    """Why there is no snapshot, of an answer that is the safe default."""
    assert (found.source, found.settings) == ("default", SAFE)
    (line,) = (line for line in found.reasons if line.startswith("snapshot: "))
    assert line.endswith("; run `autotune run --symbol AMD`")
    return line.removeprefix("snapshot: ").partition("; run")[0]


def state(db: str) -> str:
    found = refusal(lookup("AMD", db=db))
    assert str(snapshot_path(db)) in found
    return found.removeprefix(f"{snapshot_path(db)} ")


def test_a_missing_snapshot_is_said_and_nothing_is_made(db: str) -> None:
    assert state(db) == "is missing"
    assert state(str(Path(db).parent / "no" / "folder" / "a.db")) == "is missing"
    assert list(Path(db).parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "empty"),
        (b"hello", "not a database"),
        (bytes(70_000), "not a database"),
        (b"SQLite format 3\0", "truncated/corrupt"),
        (b"SQLite format 3\0" + b"\xff" * 9000, "truncated/corrupt"),
    ],
)
def test_a_file_that_is_no_snapshot_is_said(db: str, content: bytes, wanted: str) -> None:
    snapshot_path(db).write_bytes(content)
    assert state(db) == f"cannot be used ({wanted})"


def test_every_truncation_gives_the_safe_default_or_the_whole_answer(db: str) -> None:
    path = published(db, entry())
    right, whole = lookup("AMD", db=db), path.read_bytes()
    for length in (1, 16, 99, 100, 101, 4096, len(whole) // 3, len(whole) * 2 // 3):
        path.write_bytes(whole[:length])
        assert state(db) == "cannot be used (truncated/corrupt)", length
    path.write_bytes(whole[:-1])
    assert lookup("AMD", db=db) == right  # of what is whole: its last byte is of others, too


def test_flipped_bytes_give_the_safe_default_or_the_whole_answer(db: str) -> None:
    path = published(db, entry(), pins=(pin("AAPL"),))
    whole = path.read_bytes()
    right = lookup("AMD", db=db)
    chance = random.Random(3)
    used = [place for place, byte in enumerate(whole) if byte]
    refused = 0
    for place in chance.sample(used, 150):
        damaged = bytearray(whole)
        damaged[place] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        found = lookup("AMD", db=db)
        assert found == right or found.settings == SAFE
        refused += found != right
    assert refused


def test_what_is_damaged_wherever_it_stands_is_refused(db: str) -> None:
    path = published(db, entry(), entry("AAPL", settings=COMPILED, number=2))
    whole = path.read_bytes()
    assert whole.count(b"bf16") > 2  # in the document, and in the parts made of it
    path.write_bytes(whole.replace(b"bf16", b"tf32"))
    assert state(db) == "cannot be used (truncated/corrupt)"
    found = lookup("AAPL", db=db)
    assert (found.source, found.settings) == ("default", SAFE)


def test_what_is_damaged_in_one_of_two_places_is_answered_from_the_other(db: str) -> None:
    path = published(db, entry(), entry("AAPL", settings=COMPILED, number=2))
    right, whole = lookup("AMD", db=db), path.read_bytes()
    assert right.settings == BF16
    for place in (match.start() for match in re.finditer(b"bf16", whole)):
        path.write_bytes(whole[:place] + b"tf32" + whole[place + 4 :])
        assert lookup("AMD", db=db) == right


def test_a_folder_a_link_in_a_circle_and_an_endless_name_are_said(db: str, tmp_path: Path) -> None:
    snapshot_path(db).mkdir()
    assert state(db) == "cannot be used (unreadable)"
    circle = str(tmp_path / "circle.db")
    snapshot_path(circle).symlink_to(snapshot_path(circle))
    assert state(circle) == "cannot be used (unreadable)"
    assert state(str(tmp_path / f"{'x' * 300}.db")) == "cannot be used (unreadable)"


@pytest.mark.timeout(20)
def test_a_pipe_in_the_snapshots_place_is_not_waited_for(db: str) -> None:
    os.mkfifo(snapshot_path(db))
    assert state(db) == "cannot be used (unreadable)"


@pytest.mark.parametrize("store", ["~nobody-by-this-name/a.db", "/", ".", "sqlite:///"])
def test_a_store_without_a_place_is_said(store: str) -> None:
    found = lookup("AMD", db=store)
    assert (found.source, found.settings) == ("default", SAFE)
    assert found.reasons[0].startswith(f"snapshot: the store {store!r} has no place: ")


def test_a_store_of_a_forbidden_name_is_said_in_printable_text() -> None:
    assert all(reason.isprintable() for reason in lookup("AMD", db="a\0\x1b[2J.db").reasons)


def test_a_store_on_a_server_that_was_never_published_is_said() -> None:
    assert "is missing" in refusal(lookup("AMD", db="postgresql+psycopg://nobody@nowhere.invalid/autotune"))


def test_a_forbidden_snapshot_is_said_and_found_once_it_is_allowed(folder: Path) -> None:
    db = str(folder / "a.db")
    path = published(db, entry())
    path.chmod(0o000)
    with unprivileged():
        assert state(db) == "cannot be used (unreadable)"
    path.chmod(0o644)
    with unprivileged():
        assert lookup("AMD", db=db).source == "promotion"
    folder.chmod(0o000)
    with unprivileged():
        assert state(db) == "cannot be used (unreadable)"
    folder.chmod(0o755)
    with unprivileged():
        assert lookup("AMD", db=db).source == "promotion"


@contextmanager
def locked(*paths: Path) -> Iterator[None]:
    command = [sys.executable, "-c", HOLD, *map(str, paths)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield
        holder.communicate("")


def test_a_lock_on_the_store_and_the_snapshot_holds_up_no_lookup(db: str) -> None:
    new_store(Path(db)).close()
    path = published(db, entry())
    with locked(Path(db), path):
        with closing(sqlite3.connect(path, timeout=0)) as other, pytest.raises(sqlite3.OperationalError):
            other.execute("SELECT * FROM snapshot").fetchall()
        started = time.perf_counter()
        found = lookup("AMD", db=db)
        assert time.perf_counter() - started < 1.0
    assert (found.source, found.settings) == ("promotion", BF16)


def test_a_store_that_is_damaged_does_not_matter_beside_its_snapshot(db: str) -> None:
    published(db, entry())
    Path(db).write_bytes(b"garbage")
    assert lookup("AMD", db=db).source == "promotion"


def rewritten(path: Path, document: Any) -> None:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    with closing(sqlite3.connect(path)) as connection:
        row = (hashlib.sha256(text).hexdigest(), text)
        connection.execute("UPDATE snapshot SET sha256=?, document=?", row)
        connection.commit()


def stored(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        (document,) = connection.execute("SELECT document FROM snapshot").fetchone()
    found: dict[str, Any] = json.loads(document)
    return found


@pytest.mark.parametrize(
    "document",
    [b"", b"\xff", b"{}", b"[]", b"null", b"[" * 100_000, b'{"entries":{},"pins":[],"texts":[]}'],
)
def test_a_document_of_another_shape_under_its_own_digest_is_said(db: str, document: bytes) -> None:
    rewritten(published(db, entry()), document)
    assert state(db) == "cannot be used (truncated/corrupt)"


@pytest.mark.parametrize("change", [{"texts": []}, {"entries": [[1, 2]]}, {"pins": [None]}, {"texts": None}])
def test_a_document_that_does_not_hang_together_is_said(db: str, change: dict[str, Any]) -> None:
    path = published(db, entry(), pins=(pin("AAPL"),))
    rewritten(path, stored(path) | change)
    assert state(db) == "cannot be used (truncated/corrupt)"


@pytest.mark.parametrize("value", [None, 5, True, [], {}, "2026-01-01T00:00:00", "x" * 10_000])
def test_any_wrong_value_in_one_entry_leaves_the_others_in_use(db: str, value: Any) -> None:
    path = published(db, entry(), entry("AAPL", settings=COMPILED, number=2))
    document = stored(path)
    places = [place for place, found in enumerate(document["entries"][0]) if isinstance(found, str | bool)]
    assert len(places) >= 7
    for place in places:
        changed = json.loads(json.dumps(document))
        changed["entries"][0][place] = value
        rewritten(path, changed)
        found = lookup("AMD", db=db, workload=SMALL)
        if any(line.startswith("snapshot:") for line in found.reasons):
            assert found.settings == SAFE
        else:
            assert found.source in {"promotion", "workload winner"}
            assert lookup("AAPL", db=db).settings == COMPILED


def test_a_snapshot_of_a_later_schema_is_said(db: str) -> None:
    path = published(db, entry())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    assert state(db) == "cannot be used (schema)"


def test_while_snapshots_are_published_every_answer_is_one_of_them_as_a_whole(db: str) -> None:
    versions = [
        entry(settings=BF16.replace(num_threads=threads), number=threads, profile=f"p{threads}")
        for threads in range(1, 6)
    ]
    published(db, versions[0])
    done = threading.Event()

    def publish_all() -> None:
        for turn in range(60):
            published(db, versions[turn % 5])
        done.set()

    publisher = threading.Thread(target=publish_all)
    publisher.start()
    wanted = {(v.since.isoformat(), v.profile, v.settings_key) for v in versions}
    seen = set()
    while not done.is_set():
        found = lookup("AMD", db=db)
        seen.add((found.since, found.profile, found.settings_key))
    publisher.join()

    assert seen <= wanted
    assert len(seen) > 1
    assert lookup("AMD", db=db).profile == "p5"


def test_threads_that_look_up_at_once_get_the_same_answers(db: str) -> None:
    published(db, *(entry(f"S{number}", number=number) for number in range(50)))
    answers: list[list[Resolution]] = []

    def look_all_up() -> None:
        answers.append([lookup(f"S{number}", db=db) for number in range(50)])

    threads = [threading.Thread(target=look_all_up) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)
    assert {found.source for found in answers[0]} == {"promotion"}


OBJECTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**399),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
DEEP = "[" * 50_000 + "]" * 50_000
ON_TRIAL = '{"canary": {"share": %s, "previous": {}}}'


class Odd:
    """An object that fails at whatever it is asked."""

    def _fail(self, *_: object) -> Any:
        raise OddError

    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __len__ = __contains__ = __getattr__ = _fail


class OddError(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "evidence",
    [
        None,
        5,
        [],
        '{"canary": ' + DEEP + "}",
        ON_TRIAL % ("9" * 400),
        ON_TRIAL % ("9" * 5000),
        ON_TRIAL % "NaN",
        ON_TRIAL % "-1",
        ON_TRIAL % "[]",
        '{"canary": {"share": 0.5, "previous": ' + DEEP + "}}",
        '{"canary": {"share": 0.5, "previous": {"num_threads": ' + "9" * 400 + "}}}",
    ],
)
def test_a_trial_that_cannot_be_read_gives_the_safe_default_and_one_reason(db: str, evidence: Any) -> None:
    path = published(db, entry(), entry("AAPL", settings=COMPILED, number=2))
    document = stored(path)
    place = [field.name for field in fields(SnapshotEntry)].index("promised_json")
    document["texts"].append(evidence)
    document["entries"][0][place] = len(document["texts"]) - 1
    rewritten(path, document)
    found = lookup("AMD", db=db)

    assert (found.source, found.settings) == ("default", SAFE)
    (line,) = (line for line in found.reasons if line.startswith("promotion: an entry of AMD is skipped: "))
    assert "\n" not in line
    assert lookup("AAPL", db=db).settings == COMPILED


@effort(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_json_anywhere_in_a_snapshot_gives_an_answer(db: str, data: st.DataObject) -> None:
    path = published(db, entry(), pins=(pin("AAPL"),))
    document = stored(path)
    part = data.draw(st.sampled_from(["entries", "pins", "texts"]))
    row = document[part] if part == "texts" else document[part][0]
    row[data.draw(st.integers(0, len(row) - 1))] = data.draw(
        OBJECTS | OBJECTS.map(json.dumps) | st.just(DEEP)
    )
    rewritten(path, document)
    for symbol in ("AMD", "AAPL", "TSLA"):
        found = lookup(symbol, db=db, workload=SMALL)
        assert found.settings in {SAFE, BF16, COMPILED}
        assert all("\n" not in line for line in found.reasons)


@effort(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=OBJECTS)
def test_any_json_for_a_snapshot_gives_the_safe_default(db: str, document: Any) -> None:
    rewritten(published(db), document)
    assert lookup("AMD", db=db).settings == SAFE


@effort(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["symbol", "model", "workload", "profile", "settings", "db", "device"]),
    value=OBJECTS | st.builds(Odd) | st.builds(object) | st.just(Path("a")) | st.binary(max_size=5),
)
def test_any_argument_gives_an_answer(db: str, name: str, value: Any) -> None:
    published(db, entry())
    given_arguments: dict[str, Any] = {"symbol": "AMD", "db": db, name: value}
    found = lookup(**given_arguments)

    assert isinstance(found.settings, RuntimeSettings)
    assert isinstance(found.model, str)
    assert all("\n" not in line for line in found.reasons)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"workload": []}, "lookup: workload must be Workload, not list; "),
        ({"workload": Odd()}, "lookup: workload must be Workload, not Odd; "),
        ({"settings": "fast"}, "lookup: settings must be RuntimeSettings, not str; "),
        ({"model": 5}, "lookup: model must be str, not int; "),
        ({"db": Path("a.db")}, "lookup: db must be str, not PosixPath; "),
        ({"device": None}, "lookup: device must be str, not NoneType; "),
    ],
)
def test_an_argument_of_another_type_is_named(db: str, arguments: dict[str, Any], reason: str) -> None:
    published(db, entry())
    found = lookup("AMD", **{"db": db, **arguments})

    assert (found.symbol, found.settings, found.source) == ("AMD", SAFE, "default")
    (line,) = found.reasons
    assert line.startswith(reason)


def test_a_symbol_that_fails_at_whatever_it_is_asked_has_an_answer(db: str) -> None:
    odd: Any = Odd()
    found = lookup(odd, db=db)

    assert (found.symbol, found.settings, found.reasons) == (
        "Odd",
        SAFE,
        ("lookup: OddError; eager fp32 is safe",),
    )


@pytest.mark.parametrize(
    "name", ["TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "AUTOTUNE_DB", "HOME", "XDG_DATA_HOME"]
)
@pytest.mark.parametrize(
    "value", ["", "\udcff\n", "x" * 10_000, "~nobody-by-this-name/a", "postgresql://", "\x1b[2J"]
)
def test_any_variable_gives_an_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    found = lookup("AMD")

    assert found.settings == SAFE
    assert all("\n" not in line for line in found.reasons)


def test_a_snapshot_full_of_hostile_entries_is_answered_within_a_second(db: str) -> None:
    evidence = (DEEP, ON_TRIAL % ("9" * 400), '{"canary": {"share": 0.5, "previous": ' + DEEP + "}}", "{")
    path = published(db, *(entry(f"S{number}", number=number) for number in range(1, 200)), entry())
    document = stored(path)
    document["texts"] += evidence
    place = [field.name for field in fields(SnapshotEntry)].index("promised_json")
    for number, row in enumerate(document["entries"][:-1]):
        row[place] = len(document["texts"]) - 1 - number % len(evidence)
    rewritten(path, document)
    began = time.process_time()
    found = [lookup(symbol, db=db, workload=SMALL) for symbol in ("AMD", "S1", "TSLA")]

    assert time.process_time() - began < 1.0
    assert [each.settings for each in found] == [BF16, BF16, BF16]  # the last two by the workload's winner
