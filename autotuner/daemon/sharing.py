"""Shares the snapshot while the daemon runs: after every tick and every few minutes, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from autotuner.commands.share import share_once
from autotuner.daemon.config import ShareConfig
from autotuner.daemon.intake import Log
from autotuner.errors import AutotuneError, cause
from storage.errors import StorageError

_END_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 60.0


@dataclass(kw_only=True)
class Sharer:
    """``config`` is asked each time, so that a file that was read again counts; None of ``to`` shares nothing.

    A place that hangs or fails holds up no tick.
    """

    location: str
    config: Callable[[], ShareConfig]
    log: Log
    _due: threading.Event = field(default_factory=threading.Event)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Share now, and go on."""
        self._due.set()
        self._thread = threading.Thread(target=self._run, name="autotune-share", daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Share at once: something may have been published."""
        self._due.set()

    def stop(self) -> None:
        """End after what is being put, or leave that behind: the release before then stays."""
        self._stopped.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join(timeout=_END_SECONDS)

    def once(self) -> None:
        """Share where the configuration says where to; what fails is logged."""
        config = self.config()
        if config.to is None:
            return
        try:
            done = share_once(self.location, config.to, config.key, artifacts=config.artifacts)
        except (AutotuneError, StorageError) as error:
            self.log("share_failed", reason=str(error))
        except Exception as error:  # the next one must come, whatever went wrong with this one
            self.log("share_failed", reason=cause(error))
        else:
            if done.put_blobs or done.said:
                self.log(
                    "shared",
                    place=done.place,
                    sequence=done.sequence,
                    symbols=done.symbols,
                    bytes=done.put_bytes,
                    left_out=list(done.said),
                )

    def _run(self) -> None:
        while not self._stopped.is_set():
            config = self.config()
            self._due.wait(_LOOK_AGAIN_SECONDS if config.to is None else config.every_minutes * 60)
            self._due.clear()
            if not self._stopped.is_set():
                self.once()
