"""What compiling did, added up from torch's global counters over one pipeline's own calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from toto_core.compile_report import CompileReport


class Counts(NamedTuple):
    """torch's counters at one moment; another pipeline in the process moves them too."""

    frames: int
    frames_ok: int
    graphs: int
    breaks: int
    limits: int
    skips: int
    cache_hits: int


@dataclass
class Tally:
    """The report of one pipeline as it grows, call by call."""

    report: CompileReport
    graphs: Counter[str] = field(default_factory=Counter)
    """How many graphs each call got so far."""

    def add(self, call: str, before: Counts, after: Counts, seconds: float) -> None:
        """Account for one just-in-time call named ``call``; most compile nothing and end here at once."""
        if after == before:
            return
        report = self.report
        fell_back = after.frames - after.frames_ok > before.frames - before.frames_ok
        self.report = replace(
            report,
            graph_breaks=report.graph_breaks + after.breaks - before.breaks,
            recompile_limit_hit=report.recompile_limit_hit or fell_back or after.limits > before.limits,
            cudagraph_skips=_with_reasons(report.cudagraph_skips, skipped=after.skips > before.skips),
        )
        found = after.cache_hits - before.cache_hits
        self.add_graphs(call, after.graphs - before.graphs, seconds, found=found)

    def add_held(self) -> None:
        """Note a call that ran in eager mode because compiling was on hold."""
        self.report = replace(self.report, eager_calls=self.report.eager_calls + 1)

    def add_graphs(self, call: str, graphs: int, seconds: float, *, found: int) -> None:
        """Account for graphs of ``call``, of which ``found`` were on disk and the others compiled just now."""
        self.graphs[call] += graphs > 0  # torch may split one call into several, which is no recompilation
        self.report = replace(
            self.report,
            graphs=self.report.graphs + graphs,
            recompiles=sum(count - 1 for count in self.graphs.values() if count),
            compile_seconds=round(self.report.compile_seconds + seconds, 3),
            cache_hits=self.report.cache_hits + found,
        )


def counts() -> Counts:
    """torch's counters now."""
    from torch._dynamo.utils import counters  # here, because a stored package runs without torch's compiler

    frames, inductor = counters["frames"], counters["inductor"]
    unimplemented = counters["unimplemented"].items()
    return Counts(
        frames["total"],
        frames["ok"],
        counters["stats"]["unique_graphs"],
        sum(counters["graph_break"].values()),
        sum(count for reason, count in unimplemented if "recompile limit" in reason.lower()),
        inductor["cudagraph_skips"],
        inductor["fxgraph_cache_hit"],
    )


def _with_reasons(known: tuple[str, ...], *, skipped: bool) -> tuple[str, ...]:
    # Each reason once: a graph that is skipped while it runs is counted again in every call.
    return tuple(dict.fromkeys((*known, *_skip_reasons()))) if skipped else known


def _skip_reasons() -> tuple[str, ...]:
    from torch._dynamo.utils import get_compilation_metrics

    metrics = get_compilation_metrics()
    reasons = {m.cudagraph_skip_reason for m in metrics if getattr(m, "cudagraph_skip_reason", None)}
    return tuple(sorted(str(reason) for reason in reasons)) or ("reason not reported by torch",)
