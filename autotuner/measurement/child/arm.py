"""One arm inside its child process: a pipeline, its requests, and what it answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autotuner.engines.protocol import Pipeline, first_quantiles
from autotuner.engines.registry import engine_for
from autotuner.measurement.accuracy import LEVELS, rolling_origins
from autotuner.measurement.child.job import ArmJob
from autotuner.measurement.child.timing import timed_ms, warm_up
from autotuner.paths import holds_artifacts, packages_folder
from autotuner.serving.restart_proof import prove
from autotuner.workload import RequestShape
from toto_core.device import records_graphs

Floats = npt.NDArray[np.float64]
_TIMED_CONTEXTS = 8
CALLS_UNTIL_REPLAY = 3
"""Calls of a shape up to the first that replays CUDA graphs."""


class Arm:
    """A pipeline that has answered every request shape once; ``start_ms`` is its load plus those calls.

    With CUDA graphs that takes three calls of a shape: torch compiles in the first, records in the second and
    replays in the third.
    ``was_warm`` says that the start found what an earlier process of the same configuration compiled, and
    ``reproduced`` that it answers a fixed request as that process did. Raises ``NotReproducible`` when it does not.
    """

    def __init__(self, job: ArmJob) -> None:
        self.job = job
        self._close: Floats = np.load(job.series_file)
        self._contexts = [self._timed_contexts(shape) for shape in job.workload.shapes]
        self._calls = 0
        self.was_warm = job.settings.compiled and holds_artifacts(Path(job.artifacts))
        started = time.perf_counter()
        self._engine = engine_for(job.workload.model, job.workload.revision)
        self._pipeline = self._engine.load(
            job.workload.model,
            device=job.device,
            settings=job.settings,
            revision=job.workload.revision,
            artifacts=packages_folder(Path(job.artifacts)),
            measured=True,  # what does not fit is an outcome, and nothing smaller is measured in its name
        )
        self._pipeline.rescues = False  # what fails is this trial's outcome
        calls = CALLS_UNTIL_REPLAY if records_graphs(self._pipeline.device, job.settings.compile_mode) else 1
        for shape in range(len(job.workload.shapes)):
            for _ in range(calls):
                self.call(shape)
        self.start_ms = (time.perf_counter() - started) * 1000.0
        kept = job.settings.compiled and prove(self._pipeline, job.workload, Path(job.answer_file))
        self.reproduced = kept == "same"

    @property
    def threads(self) -> int:
        """CPU threads that torch computes with."""
        return torch.get_num_threads()

    def call(self, shape: int) -> None:
        """One request of a shape, as production makes it: arrays in, forecast out."""
        ask = self.job.workload.shapes[shape]
        self._calls += 1
        context = self._contexts[shape][self._calls % _TIMED_CONTEXTS]
        self._pipeline.predict(context, ask.prediction_length, ask.num_samples, seed=self._calls)

    def warm_up(self) -> bool:
        """Whether the arm reached a steady state within its time."""
        shapes, seconds = len(self.job.workload.shapes), self.job.warm_up_seconds
        return warm_up(self.call, shapes, lambda: self._pipeline.compile_report.graphs, seconds=seconds)

    def block(self, shape: int, calls: int) -> tuple[float, ...]:
        """Milliseconds of successive calls of one shape; the caller discards the first: its cache is cold."""
        return tuple(timed_ms(self.call, shape) for _ in range(calls))

    def forecasts(self) -> list[dict[str, Any]]:
        """For every shape: quantiles [seed][window][level][step] and realised prices [window][step]."""
        shapes = self.job.workload.shapes
        return [self._forecasts(self._pipeline, shape, self.job.seeds) for shape in shapes]

    def exact_forecasts(self) -> list[dict[str, Any]]:
        """The same in float64, uncompiled, whatever this arm's settings; of the first seed alone.

        Nothing where the engine computes nothing in float64.
        """
        workload = self.job.workload
        pipeline = self._engine.exact(workload.model, device=self.job.device, revision=workload.revision)
        if pipeline is None:
            return []
        return [self._forecasts(pipeline, shape, self.job.seeds[:1]) for shape in workload.shapes]

    def report(self) -> dict[str, Any]:
        """The pipeline's ``CompileReport`` as plain values."""
        return self._pipeline.compile_report.to_dict()

    def peak_bytes(self) -> int:
        """Most memory used so far."""
        return self._pipeline.peak_bytes

    def _forecasts(self, pipeline: Pipeline, shape: RequestShape, seeds: Sequence[int]) -> dict[str, Any]:
        origins = rolling_origins(
            len(self._close),
            last_fifth_start=self.job.last_fifth_start,
            context=shape.context_length,
            prediction=shape.prediction_length,
            windows=self.job.windows,
            close=self._close,
        )
        targets = np.stack([self._close[o : o + shape.prediction_length] for o in origins])
        quantiles = [[self._quantiles(pipeline, shape, int(o), seed) for o in origins] for seed in seeds]
        return {"quantiles": quantiles, "targets": targets.tolist()}

    def _quantiles(
        self, pipeline: Pipeline, shape: RequestShape, origin: int, seed: int
    ) -> list[list[float]]:
        """Quantiles [level][step] of the first series and variate, in a call of the workload's own shape."""
        context = self._context(shape, origin)
        forecast = pipeline.predict(context, shape.prediction_length, shape.num_samples, seed=seed)
        return first_quantiles(forecast, LEVELS)

    def _timed_contexts(self, shape: RequestShape) -> list[npt.NDArray[np.float32]]:
        first = max(self.job.last_fifth_start, shape.context_length)
        origins = np.linspace(first, len(self._close), _TIMED_CONTEXTS).astype(int)
        return [self._context(shape, int(origin)) for origin in origins]

    def _context(self, shape: RequestShape, origin: int) -> npt.NDArray[np.float32]:
        """A request (series, variate, time) that ends before ``origin``.

        Further series and variates of the same request are the same symbol, one step earlier each, as far as
        its history reaches.
        """
        series, variates = self.job.workload.series_per_call, shape.variates
        newest = origin - shape.context_length
        starts = newest - np.arange(series * variates) % (newest + 1)
        windows = np.stack([self._close[s : s + shape.context_length] for s in starts])
        return windows.reshape(series, variates, shape.context_length).astype(np.float32)
