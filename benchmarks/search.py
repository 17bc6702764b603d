"""How right and how cheap a run is: thousands of replayed runs over recorded grids, in simulated time.

Each run meets noise of its own: 10 % log-normal, autocorrelated, 2 % between launches, 5 % of blocks disturbed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from autotuner.commands.replay import Replayed, replayed_decision
from autotuner.commands.selftest import upper_bound
from autotuner.measurement.outcome import Failed
from autotuner.measurement.recorded import Recorded, ReplayTable
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from autotuner.search.profiles import Limits, profile
from autotuner.search.scoring import drift_factor, judge
from autotuner.search.space import SearchSpace, search_space
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

PRODUCTION = profile("production")
NEAR = 1.05
PROCESS_START_SECONDS = 6.0
CALLS_OF_A_LAUNCH = 24 * 5


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A recorded grid, the space it covers and its workload; a run takes at most ``seconds``, simulated."""

    name: str
    table: ReplayTable
    space: SearchSpace
    workload: Workload
    seconds: float
    cpus: int = 1

    @property
    def costs(self) -> dict[RuntimeSettings, float]:
        """Effective milliseconds a request, without noise, of what keeps the profile's limits."""
        return {
            key: effective_ms(entry, self.workload)
            for key, entry in self.table.entries.items()
            if usable(entry)
        }

    @property
    def best(self) -> RuntimeSettings:
        """What an exhaustive search without noise would find."""
        costs = self.costs
        return min(costs, key=lambda key: costs[key])

    @property
    def near(self) -> frozenset[RuntimeSettings]:
        """Everything within 5 % of the best."""
        costs = self.costs
        return frozenset(key for key, cost in costs.items() if cost <= NEAR * costs[self.best])

    @property
    def exhaustive_seconds(self) -> float:
        """What measuring every key once takes."""
        return sum(entry.cost_s for entry in self.table.entries.values())

    def run(self, seed: int, champion: RuntimeSettings | None = None) -> Replayed:
        """One run with noise of its own."""
        return replayed_decision(
            self.table,
            TimingNoise(seed=seed),
            space=self.space,
            workload=self.workload,
            profile=PRODUCTION,
            seconds=self.seconds,
            seed=seed,
            champion=champion,
            cpus=self.cpus,
        )


def main() -> None:
    """Print, per grid: how often what is promoted is near the best, how often it is false, and what that costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grids", type=Path, nargs="+", help="tables that record.py wrote")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=300.0, help="simulated seconds of one run")
    parser.add_argument("--cpus", type=int, default=2, help="builds that run side by side")
    parser.add_argument("--threads", type=int, help="leave out settings with more threads")
    parser.add_argument(
        "--builds",
        type=float,
        default=1.0,
        help="share of the recorded seconds that builds take today (decision 26)",
    )
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with multiprocessing.Pool(arguments.processes) as pool:
        for path in arguments.grids:
            grid = read_grid(path, arguments.seconds, arguments.threads, builds=arguments.builds)
            grid = replace(grid, cpus=arguments.cpus)
            print(
                f"\n{grid.name}: {len(grid.space.keys)} keys of up to {arguments.threads or 'all'} threads; "
                f"{arguments.studies} runs of at most {grid.seconds:.0f} s each, {grid.cpus} builds side by side, "
                f"which take {arguments.builds:.2f} of what was recorded"
            )
            costs = grid.costs
            print(
                f"- best: {grid.best.label} ({costs[grid.space.reference] / costs[grid.best]:.2f}x eager fp32); "
                f"{len(grid.near)} keys within 5 % of it; an exhaustive search takes {grid.exhaustive_seconds:.0f} s"
            )
            right_or_wrong(grid, range(arguments.studies), pool.map)
            what_it_costs(grid, range(arguments.studies), pool.map)


def read_grid(path: Path, seconds: float, most_threads: int | None = None, *, builds: float = 1.0) -> Grid:
    """A table that ``record.py`` wrote, of a workload with one request shape.

    The machine's mood changed while it was recorded, so the latency of settings is that of the reference over
    their ratio, which was measured side by side.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    workload = Workload.from_dict(document["workload"])
    found = {RuntimeSettings.from_dict(e["settings"]): e for e in document["entries"]}
    recorded = max(key.num_threads or 1 for key in found)
    threads = min(recorded, most_threads or recorded)
    space = search_space(workload, workload.facts(device="cpu", threads=threads, patch_size=64))
    (reference_ms,) = found[space.reference.replace(num_threads=recorded)]["latency_ms"]
    entries = {key: _recorded(found[key], reference_ms, builds) for key in space.keys}
    table = ReplayTable(entries=entries, reference=space.reference)
    return Grid(name=path.stem, table=table, space=space, workload=workload, seconds=seconds)


Map = Callable[[Callable[[int], Any], Sequence[int]], list[Any]]


def right_or_wrong(grid: Grid, seeds: Sequence[int], run_all: Map) -> None:
    """Three kinds of runs with one-sided 95 % Clopper-Pearson bounds."""
    studies, costs = len(seeds), grid.costs
    runs = run_all(grid.run, seeds)
    far = sum(run.decision.settings not in grid.near for run in runs)
    print(
        f"- promoted within 5 % of the best: {1 - far / studies:.1%} (at least {1 - upper_bound(far, studies):.1%})"
    )

    champion = second_best(grid)
    decisions = [run.decision for run in run_all(partial(grid.run, champion=grid.best), seeds)]
    worse = sum(each.promoted and costs[each.settings] > costs[grid.best] for each in decisions)
    bound = upper_bound(worse, studies)
    print(f"- champion is the best, a worse one promoted: {worse / studies:.2%} (at most {bound:.2%})")
    decisions = [run.decision for run in run_all(partial(grid.run, champion=champion), seeds)]
    worse = sum(each.promoted and costs[each.settings] > costs[champion] for each in decisions)
    print(
        f"- champion is {champion.label}, a worse one promoted: {worse / studies:.2%} "
        f"(at most {upper_bound(worse, studies):.2%})"
    )
    equals = all_equal(grid)
    decisions = [run.decision for run in run_all(partial(equals.run, champion=grid.best), seeds)]
    crowned = sum(each.promoted for each in decisions)
    print(
        f"- A/A, all keys equal, promoted: {crowned / studies:.2%} (at most {upper_bound(crowned, studies):.2%})"
    )


def second_best(grid: Grid) -> RuntimeSettings:
    """The best of what is not within 5 % of the best: a champion that a run may or may not replace."""
    costs = grid.costs
    return min((key for key in costs if key not in grid.near), key=lambda key: costs[key])


def all_equal(grid: Grid) -> Grid:
    """The same grid with the reference's answers for every key; only what a trial costs differs."""
    entries = grid.table.entries
    equal = replace(entries[grid.space.reference], drift=0.0, quantile_shift=0.0)
    same = {key: replace(equal, cost_s=entry.cost_s, again_s=entry.again_s) for key, entry in entries.items()}
    return replace(grid, table=ReplayTable(entries=same, reference=grid.space.reference))


def what_it_costs(grid: Grid, seeds: Sequence[int], run_all: Map) -> None:
    """Seconds until something within 5 % of the best was measured, beside other ways to search."""
    total = grid.exhaustive_seconds
    ways: Mapping[str, Callable[[int], float]] = {
        "autotune": partial(autotune_seconds, grid),
        "random order": partial(random_seconds, grid),
        "plain TPE": partial(tpe_seconds, grid),
        "grid, simplest first": partial(grid_seconds, grid),
    }
    for name, seconds_of in ways.items():
        seconds = run_all(seconds_of, seeds)
        middle, worst = np.quantile(seconds, [0.5, 0.95])
        print(
            f"- {name}: median {middle:.0f} s ({middle / total:.0%} of the exhaustive search), "
            f"95th percentile {worst:.0f} s"
        )
    runs = run_all(grid.run, seeds)
    search, whole = (
        np.median([getattr(r, name) for r in runs]) for name in ("search_seconds", "run_seconds")
    )
    print(f"- a whole run: search {search:.0f} s, with its duel {whole:.0f} s (medians)")


def autotune_seconds(grid: Grid, seed: int) -> float:
    """Of this project's search with all the time in the world."""
    run = replace(grid, seconds=10 * grid.exhaustive_seconds).run(seed)
    return next((at for settings, at in run.tried if settings in grid.near), grid.exhaustive_seconds)


def random_seconds(grid: Grid, seed: int) -> float:
    """Of measuring the keys in random order."""
    order = np.random.default_rng(seed).permutation(len(grid.space.keys))
    return _until_near(grid, (grid.space.keys[index] for index in order))


def grid_seconds(grid: Grid, _: int) -> float:
    """Of measuring the keys from the simplest settings on."""
    return _until_near(grid, sorted(grid.space.keys, key=lambda key: (key.complexity, key.key)))


def tpe_seconds(grid: Grid, seed: int) -> float:
    """Of Optuna's TPE with its default settings; a repeated key costs nothing."""
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(sampler=sampler)
    runner = ReplayRunner(grid.table, TimingNoise(seed=seed))

    def keys() -> Iterator[RuntimeSettings]:
        scores: dict[RuntimeSettings, float] = {}
        while len(scores) < len(grid.space.keys) and len(study.trials) < 20 * len(grid.space.keys):
            trial = study.ask(
                {
                    name: optuna.distributions.CategoricalDistribution(values)
                    for name, values in grid.space.sampled.items()
                }
            )
            key = grid.space.key_of(trial.params)
            if key is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            if key not in scores:
                outcome = runner.measure(key, seconds=1e9)
                found = judge(outcome, grid.workload, PRODUCTION, Limits())
                scores[key] = found.score if found.score is not None and found.feasible else 2.0
                yield key
            study.tell(trial, scores[key])

    return _until_near(grid, keys())


def _until_near(grid: Grid, order: Iterable[RuntimeSettings]) -> float:
    """Seconds of trying keys in this order, as many built side by side as a run of ours builds."""
    runner, keys = ReplayRunner(grid.table, TimingNoise.none(), cpus=grid.cpus), iter(order)
    while batch := list(itertools.islice(keys, grid.cpus)):
        runner.build([key for key in batch if key.compiled], seconds=math.inf)
        for key in batch:
            runner.measure(key, seconds=math.inf, again=key.compiled)
            if key in grid.near:
                return runner.seconds_spent
    return grid.exhaustive_seconds


def effective_ms(entry: Recorded, workload: Workload) -> float:
    """Milliseconds a request under the production profile, start and drift included."""
    steady = sum(
        weight * (latency + PRODUCTION.sigma_weight * sigma)
        for weight, latency, sigma in zip(workload.weights, entry.latency_ms, entry.sigma_ms, strict=True)
    )
    start = entry.start_ms / workload.calls_per_process
    return (steady + start) * drift_factor(entry.drift, PRODUCTION)


def usable(entry: Recorded) -> bool:
    """Whether it was measured and keeps the limits."""
    within = entry.drift <= PRODUCTION.drift_budget and entry.quantile_shift <= PRODUCTION.quantile_limit
    return entry.failure is None and within


def _recorded(entry: Mapping[str, Any], reference_ms: float, builds: float) -> Recorded:
    if "failure" in entry:
        failed = Failed(**entry["failure"])
        return Recorded(latency_ms=(1.0,), sigma_ms=(0.0,), cost_s=entry["cost_s"], failure=failed)
    warm, (latency_ms,) = entry["warm_start_ms"], entry["latency_ms"]
    true_ms = reference_ms / entry["ratio"]["estimate"]
    start_ms = entry["cold_start_ms"] if warm is None else warm
    again_s = PROCESS_START_SECONDS + (start_ms + CALLS_OF_A_LAUNCH * true_ms) / 1000.0
    compiled = RuntimeSettings.from_dict(entry["settings"]).compiled
    compiling = entry["cold_start_ms"] / 1000.0 if compiled else 0.0
    return Recorded(
        latency_ms=(true_ms,),
        sigma_ms=(_own_share(entry["sigma_ms"][0] / latency_ms) * true_ms,),
        start_ms=start_ms,
        was_warm=warm is not None,
        drift=entry["drift"],
        quantile_shift=entry["quantile_shift"],
        cost_s=entry["cost_s"] - (1 - builds) * compiling,
        again_s=again_s,
    )


def _own_share(jitter: float) -> float:
    """Jitter of the settings without that of the machine, which the replay adds: at most a tenth of the latency."""
    return min(jitter, 0.1)


if __name__ == "__main__":
    main()
