"""``Runner``: the one way to get an outcome, whether from child processes or from recorded answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from autotuner.measurement.outcome import ColdStart, Failed, Launch, Outcome
from toto_core.settings import RuntimeSettings


class Runner(Protocol):
    """Measures configurations for one symbol, workload and environment; used by one caller at a time."""

    def measure(
        self, settings: RuntimeSettings, *, seconds: float, beat: float | None = None, again: bool = False
    ) -> Outcome:
        """One trial beside the reference within ``seconds`` of wall time; a failure is an outcome, not raised.

        ``beat`` is a ratio to the reference that another configuration is sure to reach: timing may end at an
        interim look once this one is known to stay below it. ``again`` begins with what an earlier trial of
        the same configuration compiled: the start is a warm one, and no cold one is measured.
        """
        ...

    @property
    def slots(self) -> int:
        """How many configurations ``build`` compiles at a time; with 1, building ahead gains nothing."""
        ...

    def build(
        self, wanted: Sequence[RuntimeSettings], *, seconds: float, apart: bool = False
    ) -> Mapping[RuntimeSettings, ColdStart | Failed]:
        """Compile configurations side by side, in this order, ``slots`` at a time, for trials that begin ``again``.

        Each one's cold start, or how it failed. What is not done within ``seconds`` is left out, but for the first,
        which then has timed out. Nothing is built any more when it returns. ``apart`` compiles what is there
        already, too, and keeps nothing of it: for the cold start alone.
        """
        ...

    def launch(self, arms: Sequence[RuntimeSettings], *, blocks: int, seconds: float) -> Launch:
        """Start a fresh process per arm and time ``blocks`` or more interleaved blocks of each within ``seconds``."""
        ...

    def close(self) -> None:
        """End every process that is still running; safe to call twice."""
        ...
