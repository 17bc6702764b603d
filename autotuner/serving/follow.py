"""A pipeline that follows its symbol: a new promotion is compiled and warm before it takes over."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from autotuner.errors import one_line
from autotuner.paths import DATABASE_VARIABLE
from autotuner.serving.lookup import Resolution, lookup
from autotuner.serving.pipeline import load_pipeline
from toto_core.settings import RuntimeSettings

if TYPE_CHECKING:
    from toto_core.compile_report import CompileReport

PREPARE_SECONDS = 900.0
_KILL_SECONDS = 2.0
_PREPARED_FOR = ("model", "profile", "device", "db")


class LivePipeline:
    """``load_pipeline``'s answer for a symbol, exchanged when the symbol is promoted anew; made by ``follow``.

    Calls go to the pipeline that is current when they begin. ``waiting`` says why a newer promotion waits for
    the next start of this process, None when there is none. Not safe for calls from several threads at once.
    """

    def __init__(self, symbol: str, *, every_seconds: float, options: dict[str, Any]) -> None:
        self._symbol, self._options = symbol, options
        self._pipeline = load_pipeline(symbol, **options)
        self._seen = self._found().settings
        self.waiting: str | None = None
        self.switches = 0
        self._every_seconds = every_seconds
        self._stopped = threading.Event()
        self._preparing: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, name=f"autotune-follow-{symbol}", daemon=True)
        self._thread.start()

    @property
    def settings(self) -> RuntimeSettings:
        """What the current pipeline runs."""
        return self._pipeline.settings

    @property
    def last_run_metadata(self) -> dict[str, Any]:
        """Of the current pipeline's last call."""
        return self._pipeline.last_run_metadata

    @property
    def compile_report(self) -> CompileReport:
        """Of the current pipeline."""
        return self._pipeline.compile_report

    def predict(self, *arguments: Any, **options: Any) -> Any:
        """``TotoPipeline.predict`` of the current pipeline."""
        return self._pipeline.predict(*arguments, **options)

    def predict_many(self, *arguments: Any, **options: Any) -> Any:
        """``TotoPipeline.predict_many`` of the current pipeline."""
        return self._pipeline.predict_many(*arguments, **options)

    def close(self) -> None:
        """Stop following; the current pipeline stays usable. Safe to call twice."""
        self._stopped.set()
        if (preparing := self._preparing) is not None:
            with contextlib.suppress(ProcessLookupError):
                preparing.kill()
        self._thread.join(timeout=_KILL_SECONDS)

    def _watch(self) -> None:
        while not self._stopped.wait(self._every_seconds):
            try:
                self._switch_if_promoted()
            except Exception as error:  # following must never end a process that forecasts
                self.waiting = f"following failed: {type(error).__name__}: {error}"

    def _switch_if_promoted(self) -> None:
        found = self._found()
        if found.settings == self._seen:  # served already, or refused once: asking again would change nothing
            return
        self._seen = found.settings
        self.waiting = None
        if found.settings == self._pipeline.settings:
            return
        self.waiting = why_wait(self._pipeline.settings, found.settings, self._pipeline.device.type)
        if self.waiting is not None or not self._prepared():
            return
        fresh = load_pipeline(self._symbol, **self._options)
        if fresh.settings != found.settings:  # quarantined here: what runs goes on
            self.waiting = str(fresh.provenance.get("settings_source"))
            fresh.unload()
            return
        before, self._pipeline = self._pipeline, fresh
        self.switches += 1
        before.on_call = None  # it may still be answering its last call: its memory goes with that

    def _prepared(self) -> bool:
        """Whether another process could compile and keep what the new settings need."""
        asked = self._options_for(_PREPARED_FOR)
        place = asked.pop("db", None)  # in its environment: every user of the machine can read its arguments
        request = json.dumps({"symbol": self._symbol, **asked})
        command = [sys.executable, "-m", "autotuner.serving.prepare", request]
        with subprocess.Popen(
            command,
            env={**os.environ, **({DATABASE_VARIABLE: place} if place else {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            self._preparing = process
            try:
                _, said = process.communicate(timeout=PREPARE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                said = b"took too long"
            finally:
                self._preparing = None
        if process.returncode == 0:
            return True
        lines = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
        self.waiting = f"the new settings could not be prepared: {one_line(lines[-1])}"
        return False

    def _found(self) -> Resolution:
        return lookup(self._symbol, **self._options_for((*_PREPARED_FOR, "workload", "settings")))

    def _options_for(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self._options[name] for name in names if name in self._options}


def follow(symbol: str, *, every_seconds: float = 60.0, **options: Any) -> LivePipeline:
    """A ``LivePipeline``; ``options`` are the arguments of ``load_pipeline``.

    Looks for a new promotion every ``every_seconds`` in the background. Raises as ``load_pipeline`` does.
    """
    return LivePipeline(symbol, every_seconds=every_seconds, options=options)


def why_wait(running: RuntimeSettings, wanted: RuntimeSettings, device: str = "cpu") -> str | None:
    """Why ``wanted`` cannot take over from ``running`` in a living process, None when it can.

    A process has one thread count; and what torch compiles just in time would be compiled in this process,
    beside the calls it serves. On a GPU all of it is, and torch keeps CUDA graphs by thread (pytorch#123177).
    """
    if device != "cpu" and wanted.compiled:
        return (
            f"{wanted.label} waits for the next start: on a GPU it would compile beside the calls served here"
        )
    if wanted.num_threads is not None and wanted.num_threads != running.num_threads:
        return (
            f"{wanted.label} waits for the next start: this process runs "
            f"{running.num_threads or 'as many threads as torch chose'}, and a process has one thread count"
        )
    if wanted.compiled and (wanted.compile_scope == "layer" or wanted.dynamic):
        return (
            f"{wanted.label} waits for the next start: it compiles just in time, beside the calls served here"
        )
    return None
