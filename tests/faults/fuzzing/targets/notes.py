"""Notes in the spool: taken in, observed by a tick, counted by ``/metrics``; none is stored that cannot be read."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autotuner.environment import current_environment
from autotuner.paths import spool_folder
from autotuner.serving.spool import Note, NoteError, Recheck, note_fields, parse_note
from autotuner.store import Store
from autotuner.web.metrics import metrics
from autotuner.workload import Workload
from tests.faults.fuzzing import json_mutation, stores
from tests.faults.fuzzing.verdicts import check, check_line
from tests.support.notes import QUARANTINE, RECHECK, WINDOW
from tests.support.promoted_store import FAST
from tests.support.seen_store import quarantine, window

SECONDS = 3.0


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Changed, and half of the time with as many calls as its buckets hold, without which no window is taken in."""
    found = json_mutation.document(data, chance)
    return _fitting(found) if chance.random() < 0.5 else found


def _fitting(data: bytes) -> bytes:
    try:
        note = json.loads(data)
        note["calls"] = sum(note["buckets"].values())
        return json.dumps(note).encode()
    except Exception:  # nothing that has any
        return data


@functools.cache
def seeds() -> tuple[bytes, ...]:
    from dataclasses import replace

    now = datetime.now(UTC)
    failed = replace(
        quarantine("AMD", FAST, now, "CppCompileError: no g++"),
        settings=FAST,
        workload=Workload(),
        environment=current_environment(),
        pid=4711,
    )
    found: tuple[Note, ...] = (
        window("AMD", FAST, now - timedelta(minutes=1), eager=3),
        replace(window("AMD", FAST, now), out_of_memory=2, fitted_samples=32),
        quarantine("AMD", FAST, now, "no compiler"),
        failed,
        Recheck(
            symbol="AMD",
            settings_key=FAST.key,
            environment_fingerprint=current_environment().fingerprint,
            window_start=now,
            window_end=now,
            settings=FAST.label,
            series_digest="d1",
            broken=(),
            drift=0.0,
            quantile_shift=0.0,
            drift_budget=0.01,
            failed=None,
        ),
    )
    written = [json.dumps(note_fields(note)).encode() for note in found]
    return (*written, WINDOW.encode(), QUARANTINE.encode(), RECHECK.encode())


def _said(content: bytes) -> object:
    """What a note says: of several that say the same, one is stored."""
    try:
        return repr(parse_note(content.decode()))
    except (NoteError, ValueError):
        return content


def one(data: bytes) -> None:
    taken_in(stores.fresh("notes"), [data])


def taken_in(path: Path, notes: Sequence[bytes]) -> float:
    """Leave the notes, tick, ask for metrics and look up; the longest that a lookup took."""
    spool = spool_folder(str(path))
    spool.mkdir(mode=0o700, exist_ok=True)
    for number, content in enumerate(notes):
        (spool / f"telemetry-{number}.json").write_bytes(content)
    with Store(str(path)) as store:
        before = len(store.records.telemetry())
        tick, _ = stores.ticked(store)
        told = (*tick.failed, *(each.symbol for each in tick.skipped))
        check("MSFT" in told, f"the other symbol's tick was lost: {tick}")
        counted = tick.intake.telemetry + tick.intake.quarantines
        passed_over = len(notes) - counted - tick.intake.refused
        check(
            0 <= passed_over <= len(notes) - len(set(map(_said, notes))),
            f"of {len(notes)} notes {tick.intake} were counted",
        )
        check(len(store.records.telemetry()) == before + counted, "what was counted is stored")
        check(not any(spool.glob("*.json")), "no note is left in the spool")
        again, machine = stores.ticked(store)
        check(again.intake.refused == 0, "a note that was refused comes back")
        check(not [each for each in machine.events if each[0] == "skipped"], "what was stored cannot be read")
    body = metrics(str(path), None).decode()
    check("autotune_store_up 1.0" in body, "metrics could not read the store")
    for line in filter(None, body.split("\n")):
        check_line(line, "a line of metrics")
    return stores.looked_up(path)
