"""Restart proof: who loads stored artifacts answers one fixed request as their builder did, bit for bit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autotuner.engines.protocol import numbers
from autotuner.errors import AutotuneError
from autotuner.workload import RequestShape, Workload
from storage.whole_files import written_whole

if TYPE_CHECKING:
    from autotuner.engines.protocol import Pipeline

Proof = Literal["same", "kept", "unknown"]
"""The answer is the stored one; there was none and this one is kept; or there was none and none could be kept."""


class NotReproducible(AutotuneError):  # noqa: N818 - reads as the message it stands for
    """Artifacts that gave one forecast when they were built give another one now; the message is one line."""


def prove(pipeline: Pipeline, workload: Workload, answer_file: Path) -> Proof:
    """Compare the pipeline's answer with the one in ``answer_file``; where none is, keep this one for later.

    Raises ``NotReproducible`` when a single bit differs, and whatever a forecast raises.
    """
    ours = answer(pipeline, workload)
    try:
        theirs = answer_file.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return _keep(ours, answer_file)
    except OSError:
        return "unknown"
    if ours != theirs:
        raise NotReproducible(
            "a fixed request is answered otherwise than by the process that compiled "
            f"(SHA-256 {ours[:12]}, then {theirs[:12]})"
        )
    return "same"


def _keep(ours: str, answer_file: Path) -> Proof:
    try:
        with written_whole(answer_file) as aside:
            aside.write_text(f"{ours}\n", encoding="utf-8")
    except OSError:  # a full disk says nothing of the library
        return "unknown"
    return "kept"


def answer(pipeline: Pipeline, workload: Workload) -> str:
    """SHA-256 of the forecasts of a fixed request of every shape: the same bits give the same text.

    In whatever order a workload lists its shapes: its signature is the same, too.
    """
    digests = sorted(_answer(pipeline, workload.series_per_call, shape) for shape in workload.shapes)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _answer(pipeline: Pipeline, series: int, shape: RequestShape) -> str:
    context = random_walk(series, shape.variates, shape.context_length)
    forecast = pipeline.predict(context, shape.prediction_length, shape.num_samples, seed=0)
    return hashlib.sha256(numbers(forecast).contiguous().numpy().tobytes()).hexdigest()


def random_walk(*shape: int) -> Any:
    """Prices (series, variate, time) of a geometric random walk, 1 % a step, always the same."""
    import numpy as np

    steps = np.random.default_rng(0).normal(scale=0.01, size=shape)
    return (100.0 * np.exp(np.cumsum(steps, axis=-1))).astype(np.float32)
