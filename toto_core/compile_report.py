"""``CompileReport``: what compiling a pipeline did, as torch counted it; needs no torch."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """Counts since the pipeline was built; all zero for an eager one.

    requested            whether the settings asked for compilation.
    graphs               graphs compiled.
    graph_breaks         places where a graph was split.
    recompiles           graphs beyond the first of each call: another shape, or guards that failed.
    recompile_limit_hit  torch reached the limit and runs further shapes in eager mode.
    cudagraph_skips      distinct reasons why CUDA graphs were not used, where they were asked for.
    compile_seconds      time spent compiling.
    cache_hits           compiled graphs found on disk.
    eager_calls          calls that ran eagerly because compiling was on hold.
    """

    requested: bool = False
    graphs: int = 0
    graph_breaks: int = 0
    recompiles: int = 0
    recompile_limit_hit: bool = False
    cudagraph_skips: tuple[str, ...] = ()
    compile_seconds: float = 0.0
    cache_hits: int = 0
    eager_calls: int = 0

    @property
    def really_compiled(self) -> bool:
        """Asked to compile, at least one graph came of it, and no shape fell back to eager mode."""
        return self.requested and self.graphs > 0 and not self.recompile_limit_hit

    @property
    def summary(self) -> str:
        """One line for people."""
        if not self.requested:
            return "eager"
        limit = "hit" if self.recompile_limit_hit else "not hit"
        return (
            f"graphs {self.graphs}, breaks {self.graph_breaks}, recompiles {self.recompiles}, limit {limit}, "
            f"CUDA-graph skips {len(self.cudagraph_skips)}, compiling {self.compile_seconds:.1f} s"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self) | {"cudagraph_skips": list(self.cudagraph_skips)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CompileReport:
        """The inverse of ``to_dict``. Raises ``TypeError`` or ``ValueError`` for anything else."""
        for field in dataclasses.fields(cls):
            if field.name in values and not _is_alike(values[field.name], field.default):
                raise ValueError(f"compile report: {field.name} is of another kind than {field.default!r}")
        return cls(**{**values, "cudagraph_skips": tuple(values.get("cudagraph_skips", ()))})


def _is_alike(value: object, default: object) -> bool:
    """Whether a value from JSON is of the kind of its field's default, numbers finite."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, int)
