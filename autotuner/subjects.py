"""Finds what a run is about: prices, model and environment, checked before anything is measured or stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotuner.identity import current_environment
from autotuner.persistence import Subject
from autotuner.workload import Workload
from toto_core.model_files import check_weights, digest, locate, read_config
from toto_core.series import PriceSeries, find_series


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A subject with its prices and the model's patch size in time steps."""

    subject: Subject
    series: PriceSeries
    patch_size: int


def prepare(symbol: str, workload: Workload, *, data: Path | None, device: str) -> Prepared:
    """Read prices and model. Raises ``SeriesError`` or ``CheckpointError``, each with one line."""
    minimum = workload.longest_context + workload.longest_prediction
    series = find_series(symbol, data, minimum_points=minimum)
    folder = locate(workload.model, revision=workload.revision)
    config = read_config(folder)
    check_weights(folder)
    subject = Subject(
        symbol=symbol,
        workload=workload,
        environment=current_environment(device),
        series_digest=series.digest,
        model_digest=digest(folder),
    )
    return Prepared(subject=subject, series=series, patch_size=config.patch_size)
