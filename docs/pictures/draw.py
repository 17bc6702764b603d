"""Draws the pictures of the statistics, with the tuner's own functions, from `measured.json` and from simulations.

    python docs/pictures/draw.py

Needs the extra "png" and Chrome or Chromium. Prints the figures that the pages quote.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kaleido
import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from autotuner.measurement.accuracy import Forecasts, compare
from autotuner.measurement.outcome import ArmBlocks, Interval
from autotuner.measurement.statistics import EffectiveCost, launch_ratio, paired_ratio
from autotuner.promotion.duel_plan import DuelPlan
from autotuner.report.figure_parts import LIMIT, OTHER, REFERENCE, WINNER

HERE = Path(__file__).parent
MEASURED = json.loads((HERE / "measured.json").read_text())
COST, PLAN = EffectiveCost(weights=(1.0,)), DuelPlan()
WIDTH, SCALE = 820, 1.5


def main() -> None:
    kaleido.start_sync_server(silence_warnings=True)
    pictures = (blocks, launches, looks, forty, power, selftest, drift, quantiles, starts)
    for draw in pictures:
        figure, height = draw(np.random.default_rng(0))
        figure.update_layout(
            template="plotly_white",
            font={"size": 13, "family": "DejaVu Sans, sans-serif"},
            margin={"l": 64, "r": 16, "t": 40, "b": 52},
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        )
        options = {"format": "png", "width": WIDTH, "height": height, "scale": SCALE}
        drawn = Image.open(io.BytesIO(kaleido.calc_fig_sync(figure.to_dict(), opts=options))).convert("RGB")
        few = drawn.quantize(64, dither=Image.Dither.NONE)  # flat colours: a fifth of the bytes
        few.save(HERE / f"{draw.__name__}.png", optimize=True)
    kaleido.stop_sync_server(silence_warnings=True)


def blocks(_: np.random.Generator) -> tuple[go.Figure, int]:
    """One launch: the reference beside itself, round after round."""
    arms = [[float(np.median(block)) for block in arm] for arm in MEASURED["launches"][13]]
    ratio = [one / other for one, other in zip(*arms, strict=True)]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    figure.add_trace(line(arms[0], "one process", WINNER), row=1, col=1)
    figure.add_trace(line(arms[1], "another of the same configuration", OTHER, "dot"), row=1, col=1)
    figure.add_trace(line(ratio, "one over the other, round by round", LIMIT, "dash"), row=2, col=1)
    figure.update_yaxes(title_text="median of a block, ms", row=1, col=1)
    figure.update_yaxes(title_text="ratio", row=2, col=1)
    figure.update_xaxes(title_text="round", row=2, col=1)
    together = float(np.asarray(np.corrcoef(arms))[0, 1])
    print(f"blocks: {min(arms[0]):.2f} to {max(arms[0]):.2f} ms, correlation {together:.2f}")
    return figure, 430


def launches(rng: np.random.Generator) -> tuple[go.Figure, int]:
    """Sixteen launches of one configuration beside itself: medians move, ratios hardly do."""
    pairs = measured_pairs()
    medians = [[float(np.median(np.concatenate(arm[0]))) for arm in pair] for pair in pairs]
    each = [paired_ratio(*pair, cost=COST, rng=rng) for pair in pairs]
    whole = launch_ratio([a for a, _ in pairs], [b for _, b in pairs], cost=COST, rng=rng)
    numbers = [*range(1, len(pairs) + 1)]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    for arm, (name, color, symbol) in enumerate(
        (("one process", WINNER, "circle"), ("another", OTHER, "diamond"))
    ):
        marker = {"color": color, "symbol": symbol, "size": 10}
        y = [pair[arm] for pair in medians]
        figure.add_trace(go.Scatter(x=numbers, y=y, mode="markers", marker=marker, name=name), row=1, col=1)
    figure.add_trace(with_bars(numbers, each, "ratio of a launch, 95 % by its blocks"), row=2, col=1)
    figure.add_hrect(whole.low, whole.high, fillcolor=WINNER, opacity=0.25, line_width=0, row=2, col=1)
    figure.update_yaxes(title_text="median, ms", row=1, col=1)
    figure.update_yaxes(title_text="ratio", row=2, col=1)
    figure.update_xaxes(title_text="launch", row=2, col=1)
    ones = [pair[0] for pair in medians]
    spread = np.std(np.log([ratio.estimate for ratio in each]), ddof=1)
    print(f"launches: {min(ones):.2f} to {max(ones):.2f} ms, {max(ones) / min(ones) - 1:.0%} apart; "
          f"ratios vary by {spread:.1%}; all together {whole}")  # fmt: skip
    return figure, 460


def looks(rng: np.random.Generator) -> tuple[go.Figure, int]:
    """How often equals are told apart by three looks at 95 % each, and by three with alpha spending."""
    steps = rng.standard_normal((200_000, PLAN.checked_after[-1])).cumsum(axis=1)
    z = np.abs(steps[:, [at - 1 for at in PLAN.checked_after]]) / np.sqrt(PLAN.checked_after)
    confidences = [PLAN.confidence(at) for at in PLAN.checked_after]
    spent = [np.percentile(np.abs(rng.standard_normal(2_000_000)), 100 * level) for level in confidences]
    shares = {
        "each look at 95 %": np.logical_or.accumulate(z > 1.96, axis=1).mean(axis=0),
        "as the duel looks": np.logical_or.accumulate(z > np.array(spent), axis=1).mean(axis=0),
    }
    figure = go.Figure()
    for (name, share), color in zip(shares.items(), (LIMIT, WINNER), strict=True):
        x = [f"after launch {at}" for at in PLAN.checked_after]
        text = [f"{each:.1%}" for each in share]
        figure.add_trace(
            go.Bar(x=x, y=share, name=name, marker_color=color, text=text, textposition="outside")
        )
    figure.add_hline(PLAN.alpha, line_dash="dash", line_color=REFERENCE)
    figure.update_yaxes(title_text="equals told apart so far", tickformat=".0%", range=[0, 0.12])
    print(
        "looks:", {name: share.round(4).tolist() for name, share in shares.items()}, np.round(confidences, 4)
    )
    return figure, 330


def forty(rng: np.random.Generator) -> tuple[go.Figure, int]:
    """How good the best of forty equal settings looks after one launch of each."""
    figure = go.Figure()
    for sigma, color in ((0.02, OTHER), (0.04, WINNER)):
        gains = 1 - np.exp(-rng.normal(0, sigma, (20_000, 40)).max(axis=1))
        name = f"launches differ by {sigma:.0%}: {gains.mean():.1%} on average"
        counts, edges = np.histogram(gains, bins=np.arange(0, 0.2, 0.005))
        marker = {"color": color}
        figure.add_trace(
            go.Bar(x=edges[:-1] + 0.0025, y=counts / 20_000, name=name, marker=marker, opacity=0.75)
        )
        print(f"forty: {name}, {np.quantile(gains, 0.05):.1%} to {np.quantile(gains, 0.95):.1%}")
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(title_text="time the best of forty equal settings seems to save", tickformat=".0%")
    figure.update_yaxes(title_text="share of searches", tickformat=".0%")
    return figure, 330


def power(rng: np.random.Generator) -> tuple[go.Figure, int]:
    """How often a duel promotes what truly saves so much, where ratios of launches differ by so much."""
    gains, figure = [0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12], go.Figure()
    for sigma, color, dash in ((0.01, WINNER, "solid"), (0.02, OTHER, "dash"), (0.04, LIMIT, "dot")):
        shares = [float(np.mean([duel(gain, sigma, rng) for _ in range(300)])) for gain in gains]
        figure.add_trace(line(shares, f"ratios of launches differ by {sigma:.0%}", color, dash, x=gains))
        print(f"power at {sigma:.0%}:", dict(zip(gains, np.round(shares, 2).tolist(), strict=True)))
    figure.add_vline(PLAN.gain, line_dash="dash", line_color=REFERENCE)
    figure.update_xaxes(title_text="time truly saved", tickformat=".0%")
    figure.update_yaxes(title_text="duels that promote", tickformat=".0%", range=[0, 1.02])
    return figure, 340


def selftest(rng: np.random.Generator) -> tuple[go.Figure, int]:
    """Lower bounds of the gain of relabelled duels of the reference with itself, and with 10 % taken off."""
    figure, pairs = go.Figure(), measured_pairs()
    for taken, color in ((0.0, WINNER), (0.1, OTHER)):
        lows = []
        for _ in range(400):
            chosen = [
                pairs[at] if rng.random() < 0.5 else pairs[at][::-1]
                for at in rng.choice(16, 5, replace=False)
            ]
            faster = [[[tuple(ms * (1 - taken) for ms in block) for block in arm[0]]] for arm, _ in chosen]
            ratio = launch_ratio([other for _, other in chosen], faster, cost=COST, rng=rng, resamples=50)
            lows.append(1 - 1 / ratio.low)
        share = np.mean(np.array(lows) >= PLAN.gain)
        name = (
            f"nothing taken off: {share:.1%} promoted"
            if not taken
            else f"10 % taken off: {share:.0%} promoted"
        )
        figure.add_trace(
            go.Histogram(x=lows, name=name, marker_color=color, opacity=0.75, xbins={"size": 0.005})
        )
        print("selftest:", name)
    figure.add_vline(PLAN.gain, line_dash="dash", line_color=LIMIT)
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(title_text="lower bound of the gain", tickformat=".0%", range=[-0.1, 0.12])
    figure.update_yaxes(title_text="relabelled duels")
    return figure, 330


def drift(rng: np.random.Generator) -> tuple[go.Figure, int]:
    """How far bf16 moved the MAE of sixteen windows, drawn anew 2,000 times."""
    ours, theirs, targets = (np.array(MEASURED["forecasts"][name]) for name in ("bf16", "fp32", "targets"))
    accuracy = compare(Forecasts(quantiles=ours), Forecasts(quantiles=theirs), targets, rng)
    errors, errors_theirs = (np.abs(each[:, :, 2] - targets).mean(axis=(0, 2)) for each in (ours, theirs))
    rows = rng.integers(errors.size, size=(2000, errors.size))
    moved = np.abs((errors - errors_theirs)[rows].mean(axis=1)) / errors_theirs[rows].mean(axis=1)
    as_is = abs((errors - errors_theirs).mean()) / errors_theirs.mean()
    figure = go.Figure(go.Histogram(x=moved, marker_color=WINNER, name="windows drawn anew", nbinsx=50))
    for at, says, color in (
        (as_is, f"as measured {as_is:.3%}", OTHER),
        (accuracy.drift, f"drift {accuracy.drift:.2%}", LIMIT),
    ):
        figure.add_vline(
            at, line_color=color, line_width=3, annotation_text=says, annotation_position="top right"
        )
    figure.update_xaxes(title_text="|MAE of bf16 - MAE of fp32| / MAE of fp32", tickformat=".2%")
    figure.update_yaxes(title_text="of 2,000")
    print(f"drift: as is {as_is:.4%}, all windows {np.quantile(moved, 0.95):.4%}, kept {accuracy.drift:.4%}; "
          f"quantile shift {accuracy.quantile_shift:.2%}")  # fmt: skip
    return figure, 320


def quantiles(_: np.random.Generator) -> tuple[go.Figure, int]:
    """The window in which bf16 moved a quantile furthest."""
    ours, theirs = (np.array(MEASURED["forecasts"][name]) for name in ("bf16", "fp32"))
    spread = (theirs[:, :, 4] - theirs[:, :, 0])[:, :, np.newaxis]
    shift = np.abs(ours - theirs) / spread
    seed, window, level, step = np.unravel_index(shift.argmax(), shift.shape)
    steps, figure = [*range(1, ours.shape[-1] + 1)], go.Figure()
    for values, name, color, dash in ((theirs, "fp32", REFERENCE, "solid"), (ours, "bf16", WINNER, "dot")):
        for at in range(5):
            shown = line(
                values[seed, window, at].tolist(), f"{name}: 10, 25, 50, 75, 90 %", color, dash, x=steps
            )
            figure.add_trace(shown.update(showlegend=at == 0))
    says = f"{shift.max():.1%} of the spread"
    figure.add_annotation(
        x=int(step) + 1, y=theirs[seed, window, level, step], text=says, ay=-50, font_color=LIMIT
    )
    figure.update_xaxes(title_text="step of the forecast")
    figure.update_yaxes(title_text="price")
    print(f"quantiles: {says}, at level {MEASURED['forecasts']['levels'][level]}")
    return figure, 340


def starts(_: np.random.Generator) -> tuple[go.Figure, int]:
    """What a request costs with its share of the start."""
    known, calls, figure = MEASURED["starts"], np.logspace(1, 6, 60), go.Figure()
    for name, start, p50, color, dash in (
        ("eager fp32", 0.0, known["reference_p50_ms"], REFERENCE, "solid"),
        ("compiled, nothing stored", known["cold_ms"], known["p50_ms"], LIMIT, "dot"),
        ("compiled, from stored artifacts", known["warm_ms"], known["p50_ms"], WINNER, "dash"),
    ):
        figure.add_trace(line((p50 + start / calls).tolist(), name, color, dash, x=calls.tolist()))
    even = known["cold_ms"] / (known["reference_p50_ms"] - known["p50_ms"])
    figure.add_vline(
        even, line_dash="dot", line_color=LIMIT, annotation_text=f" even after {even:,.0f} calls"
    )
    figure.update_xaxes(title_text="calls of a process", type="log", dtick=1, tickformat=",")
    figure.update_yaxes(title_text="ms a request, start included", type="log")
    print(f"starts: {known}, even after {even:,.0f} calls")
    return figure, 340


def duel(gain: float, sigma: float, rng: np.random.Generator) -> bool:
    """Whether one simulated duel ends in *better*: blocks that differ by 7 %, launches by ``sigma``."""
    opponent = [simulated(2.0, rng) for _ in range(PLAN.stage2_launches)]
    challenger = [simulated(2.0 * (1 - gain) * np.exp(rng.normal(0, sigma)), rng) for _ in opponent]
    for taken in PLAN.checked_after:
        confidence = PLAN.confidence(taken)
        ratio = launch_ratio(
            opponent[:taken], challenger[:taken], cost=COST, rng=rng, confidence=confidence, resamples=25
        )
        gained = Interval(estimate=1 - 1 / ratio.estimate, low=1 - 1 / ratio.low, high=1 - 1 / ratio.high)
        verdict = PLAN.verdict(gained, taken)
        if verdict in PLAN.early:
            break
    return verdict == "better"


def simulated(centre: float, rng: np.random.Generator) -> ArmBlocks:
    times = centre * np.exp(rng.normal(0, 0.07, (60, 1)) + rng.normal(0, 0.02, (60, 4)))
    return [[tuple(block) for block in times.tolist()]]


def measured_pairs() -> list[tuple[ArmBlocks, ArmBlocks]]:
    pairs: list[tuple[ArmBlocks, ArmBlocks]] = []
    for arms in MEASURED["launches"]:
        one, other = ([[tuple(block) for block in arm]] for arm in arms)
        pairs.append((one, other))
    return pairs


def line(
    y: Sequence[float], name: str, color: str, dash: str = "solid", *, x: Sequence[float] | None = None
) -> Any:
    x = [*range(1, len(y) + 1)] if x is None else x
    return go.Scatter(
        x=[*x], y=[*y], mode="lines", name=name, line={"color": color, "dash": dash, "width": 2}
    )


def with_bars(x: Sequence[int], intervals: Sequence[Interval], name: str) -> Any:
    above = [each.high - each.estimate for each in intervals]
    below = [each.estimate - each.low for each in intervals]
    bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": LIMIT}
    marker = {"color": LIMIT, "symbol": "square", "size": 8}
    estimates = [each.estimate for each in intervals]
    return go.Scatter(x=[*x], y=estimates, error_y=bars, mode="markers", marker=marker, name=name)


if __name__ == "__main__":
    main()
