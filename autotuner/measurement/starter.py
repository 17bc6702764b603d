"""Starts the processes of arms: where each keeps what it compiles, what it is told to run, and builds ahead."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from autotuner.engines.interpreters import interpreter_of
from autotuner.engines.registry import engine_for
from autotuner.measurement.accuracy import WINDOWS
from autotuner.measurement.builds import Built, build_all, build_missing, forget_built
from autotuner.measurement.child.copies import Copies
from autotuner.measurement.child.handle import Child, ChildError
from autotuner.measurement.child.job import ArmJob
from autotuner.paths import answer_file, trial_artifacts
from autotuner.serving.cache_folders import mark_used
from autotuner.workload import Workload
from toto_core.held_folders import held_folder
from toto_core.private_folders import make_private
from toto_core.settings import RuntimeSettings

SEEDS = (11, 12, 13)
"""Noise of the accuracy windows, the same for every arm."""


@dataclass(frozen=True, kw_only=True)
class Starter:
    """Starts arms of one workload on one device.

    ``caches`` is a folder for what they compile, with one of its own for each configuration; ``series_file`` and
    the other fields are those of ``ArmJob``.
    """

    workload: Workload
    device: str
    caches: Path
    series_file: Path
    last_fifth_start: int
    memory_bytes: int
    warm_up_seconds: float
    windows: int = WINDOWS

    def start(
        self, settings: RuntimeSettings, children: ExitStack, deadline: float, *, empty: bool
    ) -> Copies:
        """Processes that have answered once and are gone when ``children`` are; the caller waits for a steady state.

        As many as the workload says forecast at the same time. With ``empty`` they compile anew. Raises
        ``ChildError``.
        """
        if empty:
            self._empty(settings)
        arm = Copies(lambda: self._begin(settings), self.workload.concurrency)
        children.callback(arm.close)
        try:
            arm.wait_started(deadline)
        except ChildError as error:
            if error.failed.kind == "not_reproducible":  # else it would fail for ever
                self._empty(settings)
            raise
        return arm

    def build(
        self,
        wanted: Sequence[RuntimeSettings],
        *,
        slots: int,
        seconds: float,
        apart: bool,
        say: Callable[[str], None],
    ) -> Mapping[RuntimeSettings, Built]:
        """Compile ``slots`` at a time; see ``Runner.build``. What an earlier run has built is found again."""
        if apart:
            return self._build_apart(wanted, slots=slots, seconds=seconds, say=say)
        folders = {settings: trial_artifacts(self.caches, settings) for settings in wanted}
        return build_missing(folders, self._begin_anew, slots=slots, seconds=seconds, say=say)

    def _build_apart(
        self, wanted: Sequence[RuntimeSettings], *, slots: int, seconds: float, say: Callable[[str], None]
    ) -> Mapping[RuntimeSettings, Built]:
        say(f"compiling {', '.join(settings.label for settings in wanted)} once more, alone")
        make_private(self.caches)
        with held_folder("apart-", self.caches) as aside:
            return build_all(
                wanted,
                lambda settings: self._child(settings, trial_artifacts(aside, settings)),
                slots=slots,
                deadline=time.monotonic() + seconds,
            )

    def _begin_anew(self, settings: RuntimeSettings) -> Child:
        self._empty(settings)
        return self._begin(settings)

    def _begin(self, settings: RuntimeSettings) -> Child:
        child = self._child(settings, trial_artifacts(self.caches, settings))
        mark_used(self.caches)
        return child

    def _empty(self, settings: RuntimeSettings) -> None:
        folder = trial_artifacts(self.caches, settings)
        forget_built(folder)
        shutil.rmtree(folder, ignore_errors=True)

    def _child(self, settings: RuntimeSettings, folder: Path) -> Child:
        make_private(folder)
        return Child(
            ArmJob(
                settings=settings,
                workload=self.workload,
                device=self.device,
                artifacts=str(folder),
                answer_file=str(answer_file(folder, self.caches.name)),
                series_file=str(self.series_file),
                last_fifth_start=self.last_fifth_start,
                seeds=SEEDS,
                windows=self.windows,
                memory_bytes=self.memory_bytes,
                warm_up_seconds=self.warm_up_seconds,
                python=interpreter_of(engine_for(self.workload.model, self.workload.revision).name),
            )
        )
