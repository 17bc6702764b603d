"""What an earlier driver of the same command had finished when it was killed or interrupted."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import filelock

from autotuner.errors import AutotuneError
from autotuner.fleet.orders import Order
from autotuner.paths import data_folder
from autotuner.store import Store
from storage.whole_files import written_whole

GOES_ON = timedelta(days=7)
"""After this long the same command begins anew: what is a week old is due again."""


class Campaign:
    """When a command was first given; kept in a file until every order of it has ended.

    The file says nothing but that: what is finished is read from the store. Raises ``AutotuneError`` while another
    process of this user is at the same command.
    """

    def __init__(self, store: str, arguments: Sequence[str], *, anew: bool) -> None:
        text = json.dumps([store, *arguments])
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._file = data_folder() / "fleet" / f"{name}.json"
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = filelock.FileLock(self._file.with_suffix(".lock"))
        try:
            self._lock.acquire(timeout=0)  # gone with this process, however that ends
        except filelock.Timeout:
            raise AutotuneError(
                "another process is at the same command on a cluster: wait for it, or end it"
            ) from None
        before = None if anew else _read(self._file)
        self.goes_on = before is not None and datetime.now(UTC) - before <= GOES_ON
        self.begun = before if before is not None and self.goes_on else datetime.now(UTC)
        if not self.goes_on:
            with written_whole(self._file) as aside:
                aside.write_text(json.dumps({"begun": self.begun.isoformat()}), encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def over(self) -> None:
        """Every order has ended: the same command begins anew."""
        with contextlib.suppress(OSError):
            self._file.unlink()

    def finished(self, store: Store, orders: Iterable[Order]) -> dict[Order, dict[str, Any]]:
        """Orders all of whose runs have finished since, with the document of the last. Raises ``StorageError``."""
        if not self.goes_on:
            return {}
        done = {
            (run.symbol, run.workload_signature, run.profile, run.environment_fingerprint): run.run_id
            for run in store.records.run_rows()
            if run.status == "finished" and run.finished_at is not None and run.finished_at >= self.begun
        }
        found = {}
        for order in orders:
            runs = [done.get((order.symbol, *result)) for result in order.results]
            if all(runs):
                document = _document(store, order.symbol, str(runs[-1]))
                if document is not None:
                    found[order] = document
        return found


def _document(store: Store, symbol: str, run_id: str) -> dict[str, Any] | None:
    for run in store.records.runs(symbol):
        if run.run_id == run_id and run.summary_json:
            found: dict[str, Any] = json.loads(run.summary_json)
            return found
    return None


def _read(file: Path) -> datetime | None:
    try:
        found = datetime.fromisoformat(json.loads(file.read_text(encoding="utf-8"))["begun"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.tzinfo is not None and found <= datetime.now(UTC) else None
