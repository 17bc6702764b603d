"""``StartedArm``: a child process that is ready for its turns, with what it said so far."""

from __future__ import annotations

from typing import Any

from autotuner.measurement.child import Child
from autotuner.measurement.placement import place
from autotuner.measurement.timing import WINDOW
from autotuner.measurement.trial import Block, Failed
from toto_core.compile_report import CompileReport
from toto_core.settings import RuntimeSettings


class StartedArm:
    """A started child with its answers so far."""

    def __init__(self, child: Child, settings: RuntimeSettings, cold_start_ms: float) -> None:
        self.child = child
        self.settings = settings
        self.cold_start_ms = cold_start_ms
        self.report = CompileReport()
        self.peak_bytes = 0

    def block(self, shape: int, deadline: float) -> Block:
        """Milliseconds of one block of calls. Raises ``ChildError``, as the other requests do."""
        request = {"ask": "block", "shape": shape, "calls": WINDOW}
        milliseconds = self.child.ask(request, event="block", deadline=deadline)["ms"]
        return tuple(milliseconds[1:])  # the first call pays for the other arm's cache

    def cpu_seconds(self) -> float:
        """CPU time of the process so far."""
        return self.child.cpu_seconds()

    def place(self, cpus: frozenset[int]) -> None:
        """Run on these CPUs alone from now on."""
        place(self.child.pid, cpus)

    def note(self, answer: dict[str, Any]) -> None:
        """Keep what an answer says of compilation and memory."""
        self.report = CompileReport.from_dict(answer["report"])
        self.peak_bytes = answer.get("peak_bytes", self.peak_bytes)

    def refresh(self, deadline: float) -> None:
        """Ask for that again."""
        self.note(self.child.ask({"ask": "report"}, event="report", deadline=deadline))


def not_compiled(settings: RuntimeSettings, report: CompileReport) -> Failed | None:
    """The failure of settings that ask for compilation and did not get it, None for all others."""
    if not settings.compiled or report.really_compiled:
        return None
    if report.recompile_limit_hit:
        cause = (
            f"the recompile limit of {settings.recompile_limit} was reached and further shapes ran eagerly"
        )
    else:
        cause = "no graph was compiled"
    return Failed(kind="not_compiled", detail=f"asked for {settings.compile_mode}, but {cause}")
