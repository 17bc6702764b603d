"""How right and how cheap the search is: thousands of replayed runs over recorded grids, in simulated time."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autotuner.measurement.recorded import Recorded, ReplayTable
from autotuner.measurement.replay import Noise
from autotuner.measurement.trial import Failed
from autotuner.replaying import Replayed, replayed_decision
from autotuner.search.objective import profile
from autotuner.search.space import SearchSpace, search_space
from autotuner.selftesting import upper_bound
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

PRODUCTION = profile("production")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A recorded grid, the space it covers and its workload; a run takes ``seconds`` of simulated time."""

    table: ReplayTable
    space: SearchSpace
    workload: Workload
    seconds: float

    def run(self, seed: int, champion: RuntimeSettings | None = None) -> Replayed:
        """One run with noise of its own."""
        return replayed_decision(
            self.table,
            Noise(seed=seed),
            space=self.space,
            workload=self.workload,
            profile=PRODUCTION,
            seconds=self.seconds,
            seed=seed,
            champion=champion,
        )


def main() -> None:
    """Print, per grid: how often the promoted settings are near the best, and how often a false winner is crowned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grids", type=Path, nargs="+", help="tables that record.py wrote")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0, help="simulated seconds of one run")
    arguments = parser.parse_args()
    for path in arguments.grids:
        grid = read_grid(path, arguments.seconds)
        print(f"{path.name}: {grid.space.describe()}, {arguments.studies} runs of {grid.seconds:.0f} s each")
        report(grid, arguments.studies)


def read_grid(path: Path, seconds: float) -> Grid:
    """A table that ``record.py`` wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))
    workload = Workload.from_dict(document["workload"])
    entries = {RuntimeSettings.from_dict(e["settings"]): _recorded(e) for e in document["entries"]}
    threads = max(key.num_threads or 1 for key in entries)
    space = search_space(workload, workload.facts(device="cpu", threads=threads, patch_size=64))
    table = ReplayTable(entries=entries, reference=space.reference)
    return Grid(table=table, space=space, workload=workload, seconds=seconds)


def report(grid: Grid, studies: int) -> None:
    """Three kinds of runs, each ``studies`` times, with one-sided 95 % Clopper-Pearson bounds."""
    entries, reference = grid.table.entries, grid.space.reference
    cost = {key: _effective_ms(entry, grid.workload) for key, entry in entries.items() if _usable(entry)}
    best = min(cost, key=lambda key: cost[key])
    exhaustive = sum(entry.cost_s for entry in entries.values())
    print(f"  best: {best.label}; an exhaustive search takes {exhaustive:.0f} s")

    runs = [grid.run(seed) for seed in range(studies)]
    far = sum(cost[run.decision.settings] > 1.05 * cost[best] for run in runs)
    share = np.median([run.search_seconds for run in runs]) / exhaustive
    print(
        f"  within 5 % of the best: {1 - far / studies:.1%} (at least {1 - upper_bound(far, studies):.1%}); "
        f"median search {share:.0%} of the exhaustive one"
    )
    decisions = [grid.run(seed, best).decision for seed in range(studies)]
    worse = sum(each.promoted and cost[each.settings] > cost[best] for each in decisions)
    print(f"  promoted though worse: {worse / studies:.2%} (at most {upper_bound(worse, studies):.2%})")
    equal = replace(entries[reference], drift=0.0, quantile_shift=0.0)
    same = {key: replace(equal, cost_s=entry.cost_s) for key, entry in entries.items()}
    flat = replace(grid, table=ReplayTable(entries=same, reference=reference))
    crowned = sum(flat.run(seed, best).decision.promoted for seed in range(studies))
    print(f"  promoted among equals: {crowned / studies:.2%} (at most {upper_bound(crowned, studies):.2%})")


def _recorded(entry: Mapping[str, Any]) -> Recorded:
    if "failure" in entry:
        failed = Failed(**entry["failure"])
        return Recorded(latency_ms=(1.0,), sigma_ms=(0.0,), cost_s=entry["cost_s"], failure=failed)
    warm = entry["warm_start_ms"]
    return Recorded(
        latency_ms=tuple(entry["latency_ms"]),
        sigma_ms=tuple(_own_share(entry["sigma_ms"], entry["latency_ms"])),
        cold_start_ms=entry["cold_start_ms"] if warm is None else warm,
        drift=entry["drift"],
        quantile_shift=entry["quantile_shift"],
        cost_s=entry["cost_s"],
    )


def _own_share(sigmas: Sequence[float], latencies: Sequence[float]) -> list[float]:
    """Jitter of the settings without that of the machine, which the replay adds: at most a tenth of the latency."""
    return [min(sigma, 0.1 * latency) for sigma, latency in zip(sigmas, latencies, strict=True)]


def _usable(entry: Recorded) -> bool:
    within = entry.drift <= PRODUCTION.drift_budget and entry.quantile_shift <= PRODUCTION.quantile_limit
    return entry.failure is None and within


def _effective_ms(entry: Recorded, workload: Workload) -> float:
    steady = sum(
        weight * (latency + PRODUCTION.sigma_weight * sigma)
        for weight, latency, sigma in zip(workload.weights, entry.latency_ms, entry.sigma_ms, strict=True)
    )
    return steady + entry.cold_start_ms / workload.calls_per_process


if __name__ == "__main__":
    main()
