"""Computes latencies, effective times and ratios with confidence intervals from raw timed blocks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from autotuner.measurement.outcome import ArmBlocks, Block, Interval, ShapeTiming

Floats = npt.NDArray[np.float64]

_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class EffectiveCost:
    """How blocks become one effective time: shape weights, the weight of sigma(time), calls of one process.

    Raises ``ValueError`` for no or negative weights and for fewer than one call per process.
    """

    weights: tuple[float, ...]
    sigma_weight: float = 0.0
    calls_per_process: int = 10_000

    def __post_init__(self) -> None:
        if not self.weights or not all(math.isfinite(w) and w > 0 for w in self.weights):
            raise ValueError(f"cost: shape weights must be numbers above 0, not {self.weights}")
        if not (math.isfinite(self.sigma_weight) and self.sigma_weight >= 0):
            raise ValueError(f"cost: sigma_weight must be 0 or more, not {self.sigma_weight}")
        if self.calls_per_process < 1:
            raise ValueError(f"cost: calls_per_process must be at least 1, not {self.calls_per_process}")

    @property
    def time_alone(self) -> EffectiveCost:
        """The same request mix without the weight on sigma(time): its ratio does not depend on a profile."""
        return dataclasses.replace(self, sigma_weight=0.0)


def shape_timing(blocks: Sequence[Block]) -> ShapeTiming:
    """Median, 95th percentile and sample standard deviation over all calls of one shape, milliseconds.

    ``sigma_ms`` is the plain standard deviation, so a handful of disturbed calls raises it: they are part of
    what a caller would have seen. It is 0 for a single call. Raises ``ValueError`` without any call.
    """
    calls = np.array([ms for block in blocks for ms in block], dtype=np.float64)
    if not calls.size:
        raise ValueError("timing: no timed call to take a median of")
    return ShapeTiming(
        p50_ms=float(np.median(calls)),
        p95_ms=float(np.quantile(calls, 0.95)),
        p99_ms=float(np.quantile(calls, 0.99)),
        sigma_ms=float(np.std(calls, ddof=1)) if calls.size > 1 else 0.0,
        calls=int(calls.size),
    )


def paired_ratio(
    reference_blocks: ArmBlocks,
    blocks: ArmBlocks,
    *,
    cost: EffectiveCost,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> Interval:
    """Effective time of the reference over that of the candidate (above 1 is faster), with its interval.

    Block ``i`` of both arms was taken side by side and is resampled together; blocks beyond the shorter arm
    are left out. Neighbouring blocks share the machine's mood, so runs of about n^(1/3) blocks are drawn on a
    circle (Kuensch 1989; Politis and Romano 1992). Percentiles of few runs are too narrow, so the half-widths
    on the log scale grow by the Student-t over the normal quantile, one degree of freedom less than runs.
    Covers one launch only: the next launch may differ by more, see ``launch_ratio``. Raises ``ValueError``
    for fewer than two blocks or for blocks that do not fit the cost.
    """
    count = _common_blocks(reference_blocks, blocks)
    if count < 2:
        raise ValueError(
            f"ratio: needs at least two blocks of each arm, not {count}; give the trial more time"
        )
    logs = _log_ratios((reference_blocks, blocks), cost, rng, resamples)
    tail = (1 + confidence) / 2
    runs = max(2, count // _run_length(count))
    widen = student_quantile(tail, runs - 1) / _NORMAL.inv_cdf(tail)
    low, high = np.quantile(logs[1:], [1 - tail, tail])
    estimate = float(logs[0])
    # A skewed resample may lie wholly on one side; the interval still holds its estimate.
    return _interval(estimate, widen * max(0.0, estimate - low), widen * max(0.0, high - estimate))


def launch_ratio(
    reference: Sequence[ArmBlocks],
    candidate: Sequence[ArmBlocks],
    *,
    cost: EffectiveCost,
    rng: np.random.Generator,
    confidence: float = 0.95,
    start_ms: tuple[float, float] = (0.0, 0.0),
    resamples: int = 100,
) -> Interval:
    """The same ratio over several launches: entry ``i`` of both arms is launch ``i``.

    ``start_ms`` of reference and candidate is spread over the calls of a process. The estimate is the
    geometric mean of the launches' ratios. Launches of one configuration differ by more than their blocks tell, so
    the launch is the unit: Student-t on the log ratios of the launches, the closed form of resampling whole
    launches without that bootstrap's (n - 1)/n shrinkage and without counting blocks twice (Davison and
    Hinkley 1997, section 3.8). Few launches may agree by luck, so the interval is never narrower than their
    bootstrapped blocks alone would make it. Raises ``ValueError`` for fewer than two launches or for blocks
    that do not fit the cost.
    """
    launches = len(reference)
    if launches < 2 or launches != len(candidate):
        raise ValueError(
            f"ratio: needs the same two or more launches of each arm, not {launches} and {len(candidate)}"
        )
    pairs = zip(reference, candidate, strict=True)
    logs = np.array([_log_ratios(pair, cost, rng, resamples, start_ms) for pair in pairs])
    tail = (1 + confidence) / 2
    between = student_quantile(tail, launches - 1) * float(np.std(logs[:, 0], ddof=1))
    within = _NORMAL.inv_cdf(tail) * math.sqrt(float(np.mean(np.var(logs[:, 1:], axis=1, ddof=1))))
    half = max(between, within) / math.sqrt(launches)
    return _interval(float(np.mean(logs[:, 0])), half, half)


def each_launch(
    reference: Sequence[ArmBlocks], candidate: Sequence[ArmBlocks], *, cost: EffectiveCost
) -> tuple[float, ...]:
    """The ratio of every launch by itself, whose geometric mean ``launch_ratio`` estimates."""
    unused = np.random.default_rng(0)  # only the blocks as they are count here
    pairs = zip(reference, candidate, strict=True)
    return tuple(math.exp(float(_log_ratios(pair, cost, unused, 1)[0])) for pair in pairs)


def student_quantile(probability: float, df: int) -> float:
    """Quantile of Student's t. Raises ``ValueError`` for a probability outside (0, 1) or ``df`` below 1."""
    from scipy.special import stdtrit

    if not 0 < probability < 1 or df < 1:
        raise ValueError(f"student: needs 0 < probability < 1 and df >= 1, not {probability} and {df}")
    return float(stdtrit(df, probability))


def _log_ratios(
    arms: tuple[ArmBlocks, ArmBlocks],
    cost: EffectiveCost,
    rng: np.random.Generator,
    resamples: int,
    start_ms: tuple[float, float] = (0.0, 0.0),
) -> Floats:
    # (1 + resamples,): the blocks as they are first, then each resample, the same blocks of both arms.
    for arm in arms:
        if len(arm) != len(cost.weights):
            raise ValueError(
                f"timing: blocks of {len(arm)} request shapes where {len(cost.weights)} have a weight"
            )
    counts = _resampled_counts(_common_blocks(*arms), resamples, rng)
    times_ms = [
        _effective_resampled(arm, counts, cost) + start / cost.calls_per_process
        for arm, start in zip(arms, start_ms, strict=True)
    ]
    return np.asarray(np.log(times_ms[0] / times_ms[1]), dtype=np.float64)


def _resampled_counts(count: int, resamples: int, rng: np.random.Generator) -> Floats:
    # (block, 1 + resamples): how often each block is in each resample; in the first column every block once.
    run = _run_length(count)
    starts = rng.integers(count, size=(resamples, -(-count // run), 1))
    drawn = ((starts + np.arange(run)) % count).reshape(resamples, -1)[:, :count]
    rows = drawn + count * np.arange(resamples)[:, np.newaxis]
    counts = np.ones((count, 1 + resamples))
    counts[:, 1:] = np.bincount(rows.ravel(), minlength=resamples * count).reshape(resamples, count).T
    return counts


def _effective_resampled(blocks_by_shape: ArmBlocks, counts: Floats, cost: EffectiveCost) -> Floats:
    total = np.zeros(counts.shape[1])
    for blocks, weight in zip(blocks_by_shape, cost.weights, strict=True):
        used = blocks[: len(counts)]
        calls = np.array([ms for block in used for ms in block], dtype=np.float64)
        if not all(used) or not np.all(np.isfinite(calls) & (calls > 0)):
            raise ValueError("ratio: every block must hold calls, each a finite time above 0 ms")
        order = np.argsort(calls)
        repeats = counts[np.repeat(np.arange(len(used)), [len(block) for block in used])[order]]
        total += weight * _medians(calls[order], repeats)
        if cost.sigma_weight:
            total += weight * cost.sigma_weight * _sigmas(calls[order], repeats)
    return total


def _medians(calls: Floats, repeats: Floats) -> Floats:
    # Medians of calls (call,), sorted, one for each column of repeats (call, resample).
    ranks = np.cumsum(repeats, axis=0)
    half = ranks[-1] / 2
    below, above = np.count_nonzero(ranks < half, axis=0), np.count_nonzero(ranks <= half, axis=0)
    medians: Floats = (calls[below] + calls[above]) / 2
    return medians


def _sigmas(calls: Floats, repeats: Floats) -> Floats:
    numbers = repeats.sum(axis=0)
    centred = calls - calls.mean()
    sums, squares = centred @ repeats, centred**2 @ repeats
    sigmas: Floats = np.sqrt(np.maximum(0.0, squares - sums**2 / numbers) / np.maximum(numbers - 1, 1))
    return sigmas


def _common_blocks(*arms: ArmBlocks) -> int:
    count = min((len(blocks) for arm in arms for blocks in arm), default=0)
    if not count:
        raise ValueError("ratio: an arm has no timed block")
    return count


def _run_length(count: int) -> int:
    # At most half of the blocks: one run of all of them would give every resample the same blocks.
    return max(1, min(math.ceil(math.pow(count, 1 / 3) - 1e-9), count // 2))


def _interval(log_estimate: float, below: float, above: float) -> Interval:
    # Few launches far apart make widths that no float holds.
    low, high = max(log_estimate - below, -700.0), min(log_estimate + above, 700.0)
    return Interval(estimate=math.exp(log_estimate), low=math.exp(low), high=math.exp(high))
