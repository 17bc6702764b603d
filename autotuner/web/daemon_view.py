"""What there is to know of the daemon and of measuring: queue, leases, budget, builds, last errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from autotuner.daemon.config import read_config
from autotuner.daemon.plan import Skipped
from autotuner.daemon.spent import spent_seconds
from autotuner.errors import AutotuneError
from autotuner.paths import cache_folder
from autotuner.report.progress import under_way
from autotuner.serving.cache_folders import CacheFolder, cache_folders
from autotuner.web.metrics import health
from autotuner.web.site import Site
from storage.records import LeaseRecord, RunRecord

RUNS = 20


@dataclass(frozen=True, kw_only=True)
class DaemonView:
    """``health`` is what ``/healthz`` says; ``waiting`` and ``log`` are the serving daemon's, empty without one.

    ``spent`` and ``budget`` are seconds of the last day, ``budget`` None without a configuration that can be read;
    ``caches`` are folders of compiled code and their bytes.
    """

    health: dict[str, Any]
    waiting: tuple[Skipped, ...]
    log: tuple[dict[str, Any], ...]
    running: tuple[RunRecord, ...]
    recent: tuple[RunRecord, ...]
    leases: tuple[LeaseRecord, ...]
    spent: float
    budget: float | None
    caches: tuple[tuple[str, int], ...]


def daemon_view(site: Site) -> DaemonView:
    """Read it now. Raises ``StorageError`` and ``AutotuneError``."""
    now, daemon = datetime.now(UTC), site.daemon
    with site.open() as store:
        records = store.records
        running = under_way(store)
        recent = records.newest_runs(RUNS)
        leases = records.leases(now)
        spent = spent_seconds(store, now, lambda *_, **__: None)
    last = None if daemon is None else daemon.last
    return DaemonView(
        health=health(daemon),
        waiting=() if last is None else last.skipped,
        log=() if daemon is None else tuple(reversed(daemon.events)),
        running=running,
        recent=recent,
        leases=leases,
        spent=spent,
        budget=_budget(site),
        caches=_sizes(cache_folders(cache_folder())),
    )


def _budget(site: Site) -> float | None:
    if site.daemon is None:
        return None
    try:
        return read_config(site.daemon.config_file).daemon.budget_seconds_per_day
    except AutotuneError:  # the daemon's log says so
        return None


def _sizes(folders: Sequence[CacheFolder]) -> tuple[tuple[str, int], ...]:
    sizes: dict[str, int] = {}
    for folder in folders:
        sizes[folder.kind] = sizes.get(folder.kind, 0) + folder.bytes
    return tuple(sorted(sizes.items()))
