"""The real daemon on a minute schedule: tunes, re-tunes, rolls back, and survives twenty kills in mid-trial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotuner.daemon.intake import stored_notes
from autotuner.daemon.situation import notes_of
from autotuner.paths import spool_folder
from autotuner.serving.spool import Labels, Recheck, write_note
from autotuner.serving.telemetry import Counts
from autotuner.store import Promotion, Store
from storage.snapshot import read_snapshot
from tests.support.command import Cli
from toto_core.series import find_series

CONFIG = """
[daemon]
schedule = "* * * * *"
jitter_seconds = 0
watchlist = "watchlist.txt"
load_ceiling = 64
cool_down_hours = 0
run_seconds = 45
budget_seconds_per_day = 1000000
recheck_hours = 0.001
http = "127.0.0.1:0"

[defaults]
data = "prices"
"""
KILLS = 20

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(3600)]


def start(autotune: Cli) -> subprocess.Popen[str]:
    return autotune.start("daemon", "--config", str(autotune.folder / "autotune.toml"))


def wait_for(what: Callable[[], Any], seconds: float = 240.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError("did not happen in time")


def prepare_folder(autotune: Cli) -> None:
    (autotune.folder / "autotune.toml").write_text(CONFIG)
    (autotune.folder / "watchlist.txt").write_text("AMD\n")
    (autotune.folder / "prices").mkdir()
    for symbol in ("AMD", "AAPL"):
        write_prices(autotune.folder / "prices", symbol, newest=20)


def write_prices(folder: Path, symbol: str, *, newest: int) -> None:
    """The sample series without its ``newest`` prices."""
    series = find_series(symbol, None)
    rows = list(zip(series.timestamps, series.close, strict=True))[: len(series) - newest]
    lines = [f"{stamp}Z,{close}" for stamp, close in rows]
    (folder / f"{symbol}.csv").write_text("\n".join(["timestamp,close", *lines]))


def rechecks(autotune: Cli, promotion: Promotion) -> list[Recheck]:
    with Store(str(autotune.db)) as store:
        notes = stored_notes(store.records.telemetry(promotion.symbol), print)
    ours = notes_of(notes, promotion, promotion.settings)
    return [note for note in ours if isinstance(note, Recheck)]


def active(autotune: Cli, symbol: str) -> Promotion | None:
    if not autotune.db.exists():
        return None
    with Store(str(autotune.db)) as store:
        return store.active(symbol)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def test_a_daemon_keeps_two_symbols_through_trouble(autotune: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_folder(autotune)
    daemon = start(autotune)
    first = wait_for(lambda: active(autotune, "AMD"))

    (autotune.folder / "watchlist.txt").write_text("AMD\nAAPL\n")
    wait_for(lambda: active(autotune, "AAPL"))

    write_prices(autotune.folder / "prices", "AMD", newest=0)
    (recheck,) = wait_for(lambda: rechecks(autotune, first))
    assert recheck.broken == ()

    os.sched_setaffinity(daemon.pid, {min(os.sched_getaffinity(0))})  # another number of threads
    second = wait_for(lambda: (p := active(autotune, "AMD")) and p.id != first.id and p)
    assert second.environment.fingerprint != first.environment.fingerprint

    third = promote_after(autotune, second)
    leave_slow_calls(autotune, third)
    wait_for(lambda: rolled_back(autotune, third))

    daemon.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    _, log = daemon.communicate(timeout=30)
    assert time.monotonic() - begun < 10.0
    events = [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]
    assert events[-1] == "stopped"
    assert {"started", "tuning", "tuned", "rechecked", "rolled_back", "tick"} <= set(events)


def test_twenty_kills_in_mid_trial_leave_nothing_behind_and_the_next_tick_goes_on(autotune: Cli) -> None:
    prepare_folder(autotune)
    for kill in range(KILLS):
        daemon = autotune.start("daemon", "--once", "--config", str(autotune.folder / "autotune.toml"))
        wait_for(lambda: len(family(daemon)) >= 3, seconds=60.0)  # noqa: B023 - waited for here
        time.sleep(0.3 * kill)
        left = family(daemon)
        daemon.send_signal(signal.SIGKILL)
        daemon.communicate(timeout=30)
        _, alive = psutil.wait_procs(left, timeout=10.0)
        assert alive == []
        snapshot = autotune.db.with_name("autotune.snapshot.db")
        if snapshot.exists():
            read_snapshot(snapshot)
    begun = time.monotonic()
    done = autotune.run("daemon", "--once", "--config", str(autotune.folder / "autotune.toml"))

    assert done.returncode == 0, done.stderr
    assert active(autotune, "AMD") is not None
    assert time.monotonic() - begun < 150.0
    with Store(str(autotune.db)) as store:
        assert store.records.leases(datetime.now(UTC)) == ()


def promote_after(autotune: Cli, promotion: Promotion) -> Promotion:
    """Other settings, by hand, so that there is something to go back to in the same environment."""
    settings = promotion.settings.replace(num_threads=(promotion.settings.num_threads or 1) + 1)
    new = replace(
        promotion, settings=settings, promoted_at=datetime.now(UTC), id=None, run_id=None, kind="select"
    )
    with Store(str(autotune.db)) as store:
        store.promote(new)
        found = store.active(promotion.symbol)
    assert found is not None
    assert found.settings == settings
    return found


def leave_slow_calls(autotune: Cli, promotion: Promotion) -> None:
    labels = Labels(
        symbol=promotion.symbol,
        settings_key=promotion.settings.key,
        environment_fingerprint=promotion.environment.fingerprint,
    )
    for _ in range(6):
        counts = Counts(begun=datetime.now(UTC))
        for _ in range(100):
            counts.count(500.0, (512, 8, 256))
        window = counts.window(labels, datetime.now(UTC))
        write_note(spool_folder(str(autotune.db)), f"telemetry-{uuid.uuid4()}.json", window)


def rolled_back(autotune: Cli, promotion: Promotion) -> bool:
    with Store(str(autotune.db)) as store:
        ledger = store.records.promotions(promotion.symbol)
    return any(record.id == promotion.id and record.rolled_back_at is not None for record in ledger)
