"""The daemon: ticks on schedule until it is told to stop, and reads its files again at every tick."""

from __future__ import annotations

import platform
import signal
import threading
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autotuner.commands.prune import MOST_DAYS, prune
from autotuner.daemon.cluster import OnCluster, Owned
from autotuner.daemon.cluster_address import refuse_without_ray
from autotuner.daemon.config import Config, DaemonConfig, read_config
from autotuner.daemon.intake import Log
from autotuner.daemon.places import Machine
from autotuner.daemon.prices_seen import SeenPrices
from autotuner.daemon.quiet import Quiet, exchange_hours, parse_quiet, why_quiet
from autotuner.daemon.schedule import jitter, next_tick, parse_zone
from autotuner.daemon.service_manager import notify, watchdog_seconds
from autotuner.daemon.sharing import Sharer
from autotuner.daemon.situation import symbols_to_keep
from autotuner.daemon.this_machine import ThisMachine
from autotuner.daemon.tick import Ticker
from autotuner.daemon.ticked import Ticked
from autotuner.engines.interpreters import forget_environments
from autotuner.errors import AutotuneError, cause
from autotuner.files import read_symbols
from autotuner.machine.signals import set_apart
from autotuner.store import Store
from storage.errors import StorageError
from toto_core.series import available_symbols

_EVENTS = 50


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What the files say, checked: configuration, quiet windows and symbols, none for those of the store."""

    config: Config
    symbols: tuple[str, ...]
    quiet: tuple[Quiet, ...]


def settle(config: Config) -> Settled:
    """Check everything a tick will need. Raises ``UsageError`` with one line."""
    daemon = config.daemon
    zone = parse_zone(daemon.timezone)
    next_tick(daemon.schedule, datetime.now(UTC), zone)
    if daemon.watchlist is not None:
        symbols = read_symbols(daemon.watchlist)
    else:
        data = config.defaults.data
        symbols = tuple(config.symbols) or (available_symbols(data) if data else ())
    quiet = tuple(parse_quiet(text, zone) for text in daemon.quiet)
    hours = () if daemon.calendar is None else (exchange_hours(daemon.calendar),)
    return Settled(config=config, symbols=symbols, quiet=(*quiet, *hours))


@dataclass(frozen=True)
class _Remembered:
    """A log whose last events can be looked at."""

    log: Log
    events: deque[dict[str, Any]]

    def __call__(self, event: str, **fields: Any) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.events.append({"at": at, "event": event, **fields})
        self.log(event, **fields)


@dataclass(kw_only=True)
class Daemon:
    """One daemon over one store. ``log`` gets an event's name and its fields.

    ``last``, ``last_at``, ``next_at``, ``healthy`` and the last ``events`` are what the web server shows.
    """

    location: str
    config_file: Path | None
    log: Log
    stop: threading.Event = field(default_factory=threading.Event)
    wake: threading.Event = field(default_factory=threading.Event)
    last: Ticked | None = None
    last_at: datetime | None = None
    next_at: datetime | None = None
    healthy: bool = True
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_EVENTS))
    _prices: SeenPrices = field(default_factory=SeenPrices, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.log, _Remembered):
            self.log = _Remembered(self.log, self.events)

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT end the daemon, SIGHUP reads its files again at once."""
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGHUP, lambda *_: set_apart(self.wake))

    def run(self, *, once: bool = False) -> None:
        """Tick until told to stop; with ``once`` tick a single time, now.

        Raises ``AutotuneError`` when the files are wrong at the start, or the single tick failed. Later a wrong file
        is logged and what it said before holds on; a store that fails is logged and tried again at the next tick.
        """
        settled = settle(read_config(self.config_file))
        if settled.config.daemon.on is not None:
            refuse_without_ray()
        sharer = Sharer(location=self.location, config=lambda: settled.config.share, log=self.log)
        if once:
            failed = self._tick(settled)
            sharer.once()
            if failed:
                raise AutotuneError(f"the tick failed: {failed}")
            return
        notify(READY="1", STATUS=f"keeping {len(settled.symbols) or 'all'} symbols")
        self.log("started", symbols=list(settled.symbols), schedule=settled.config.daemon.schedule)
        sharer.start()
        while not self.stop.is_set():
            self.next_at = self._next(settled.config)
            notify(STATUS=f"next tick {self.next_at:%Y-%m-%d %H:%M:%S} UTC")
            is_time = self._sleep_until(self.next_at)
            settled = self._reread(settled)
            if is_time:
                self._tick(settled)
                sharer.hurry()
        sharer.stop()
        notify(STOPPING="1")
        self.log("stopped")

    def _next(self, config: Config) -> datetime:
        daemon = config.daemon
        tick = next_tick(daemon.schedule, datetime.now(UTC), parse_zone(daemon.timezone))
        return tick + jitter(tick, daemon.jitter_seconds, platform.node())

    def _sleep_until(self, at: datetime) -> bool:
        """Whether the time came, rather than a signal."""
        beat = watchdog_seconds()
        while not self.stop.is_set():
            left = (at - datetime.now(UTC)).total_seconds()
            if left <= 0:
                return True
            if self.wake.wait(min(left, beat or left)):
                self.wake.clear()
                return False
            notify(WATCHDOG="1")
        return False

    def _reread(self, before: Settled) -> Settled:
        try:
            return settle(read_config(self.config_file))
        except AutotuneError as error:
            self.log("config", reason=str(error), kept="what it said before holds on")
            return before

    def _tick(self, settled: Settled) -> str:
        """Why it failed, empty when it did not; without its cluster it has failed, whatever it took back."""
        if self.stop.is_set():
            return ""
        daemon = settled.config.daemon
        forget_environments()  # a driver or a package may be another since the last tick
        try:
            with Store(self.location) as store:
                if store.published_again:
                    self.log("snapshot_published", reason="it was not of the store's newest state")
                symbols = settled.symbols or symbols_to_keep(store, None)
                with self._machine(settled, store) as machine:
                    ticked = Ticker(
                        store=store,
                        config=settled.config,
                        symbols=symbols,
                        quiet=settled.quiet,
                        machine=machine,
                        log=self.log,
                        prices=self._prices,
                    ).tick()
                self._prune(store, daemon)  # and clears up
        except (StorageError, AutotuneError) as error:
            return self._tick_failed(str(error))
        except Exception as error:  # the next tick must come, whatever went wrong in this one
            return self._tick_failed(cause(error))
        fault = machine.fault if isinstance(machine, OnCluster) else None
        self.last = ticked if fault is None else replace(ticked, held=fault)
        self.healthy, self.last_at = fault is None, datetime.now(UTC)
        self.log("tick", summary=str(self.last))
        notify(WATCHDOG="1", STATUS=str(self.last))
        return fault or ""

    def _machine(self, settled: Settled, store: Store) -> AbstractContextManager[Machine]:
        """This machine, or the cluster that the daemon owns."""
        daemon = settled.config.daemon
        if daemon.on is None:
            return nullcontext(
                ThisMachine(
                    stop=self.stop,
                    nice=daemon.nice,
                    device=daemon.device,
                    location=self.location,
                    quiet=settled.quiet,
                    pythons=settled.config.pythons,
                )
            )
        owned = Owned(
            on=daemon.on,
            environments=daemon.environments,
            device=daemon.device,
            models=settled.config.models,
        )
        return OnCluster(
            owned=owned,
            store=store,
            stop=self.stop,
            quiet=lambda: why_quiet(datetime.now(UTC), settled.quiet),
            beat=lambda: notify(WATCHDOG="1"),
            log=self.log,
        )

    def _tick_failed(self, reason: str) -> str:
        self.healthy = False
        self.log("tick_failed", reason=reason)
        return reason

    def _prune(self, store: Store, daemon: DaemonConfig) -> None:
        days, most = daemon.cache_days or MOST_DAYS, int(daemon.cache_gb * 1e9) or None
        try:
            done = prune(store, now=datetime.now(UTC), days=days, most_bytes=most)
        except OSError as error:
            self.log("prune_failed", reason=str(error))
            return
        if done.removed or done.failed:
            removed = sum(folder.bytes for folder in done.removed)
            self.log("pruned", folders=len(done.removed), bytes=removed, failed=list(done.failed))

    def _end(self, *_: object) -> None:
        set_apart(self.stop, self.wake)
