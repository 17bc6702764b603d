"""An experiment, off unless it is asked for: a call's kernels recorded once a shape as a CUDA graph, and replayed.

torch's own CUDA graphs (reduce-overhead) check guards and find the graph in Python at every call. Here a shape names
its graph, so that a call is a copy of its inputs and one launch. Needs a CUDA device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toto_core.compiling.packages import flatten, unflatten

_WARM_UPS = 3


class Recording(NamedTuple):
    """A graph, the tensors it reads, and what it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    result: Any


class Recorder:
    """Replays calls of one pipeline; whatever a call returns lasts until that call is made again."""

    def __init__(self) -> None:
        self._recordings: dict[tuple[Any, ...], Recording] = {}
        self._lasting: set[int] = set()
        self._pool: Any = torch.cuda.graph_pool_handle()

    def keep(self, tensors: Sequence[Tensor]) -> None:
        """These tensors stay where they are: graphs read and write them in place."""
        self._lasting.update(tensor.data_ptr() for tensor in tensors)

    def run(self, key: tuple[Any, ...], call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """``call(*arguments)``; ``key`` tells the shapes of its tensors and whatever else changes the call."""
        given = list(flatten(arguments))
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._recordings[key] = self._record(call, arguments, given)
        for mine, new in zip(recording.inputs, given, strict=True):
            if mine.data_ptr() != new.data_ptr():
                mine.copy_(new, non_blocking=True)
        recording.graph.replay()
        return recording.result

    def _record(self, call: Callable[..., Any], arguments: tuple[Any, ...], given: list[Tensor]) -> Recording:
        inputs = [each if each.data_ptr() in self._lasting else each.clone() for each in given]
        mine = unflatten(arguments, iter(inputs))
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch leaves it untyped
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # what is set up at the first calls must not be recorded
            for _ in range(_WARM_UPS):
                call(*mine)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = call(*mine)
        self.keep(list(flatten(result)))
        return Recording(graph, inputs, result)
