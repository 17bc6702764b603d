"""Charts of how a configuration was found and proven: its speed, its rivals, its single calls, its launches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from autotuner.measurement.outcome import Interval
from autotuner.report.figure_parts import (
    OTHER,
    REFERENCE,
    RULED_OUT,
    SPEED_AXIS,
    WINNER,
    Drawn,
    annotation,
    band,
    curve,
    layout,
    limit_line,
    points,
    text,
    times,
    whiskers,
)
from autotuner.report.symbol_view import SymbolView, Trial, quantile_of


def speed(view: SymbolView) -> Drawn:
    """The winner beside the reference, with what came second in the search."""
    ratio = view.promotion.figures.ratio
    if ratio is None:
        return "No speed-up is stored with this promotion.", None
    arms = [("reference", "eager fp32", Interval(estimate=1, low=1, high=1), REFERENCE, "square")]
    second = next((t for t in view.trials if t.settings.to_dict() == _second(view)), None)
    if second is not None and second.ratio is not None:
        arms.append(("second in the search", second.label, second.ratio, OTHER, "circle"))
    arms.append(("promoted", view.promotion.settings.label, ratio, WINNER, "diamond"))
    data = [
        points([each.estimate], [text(name)], name=name, color=color, symbol=symbol)
        | {"error_x": whiskers([each]), "hovertemplate": f"{text(label)}<br>{times(each)}<extra></extra>"}
        for name, label, each, color, symbol in arms
    ]
    figure = layout(SPEED_AXIS, "") | {"showlegend": False, "shapes": [limit_line(x=1.0)]}
    figure["xaxis"] |= {"rangemode": "tozero", "ticksuffix": "x"}
    figure["yaxis"] |= {"type": "category"}
    says = f"{view.promotion.settings.label} runs at {times(ratio)} the speed of eager fp32."
    return says, {"data": data, "layout": figure}


def pareto(view: SymbolView) -> Drawn:
    """Latency against drift of every trial; what may not run is grey and crossed."""
    measured = [trial for trial in view.trials if trial.p50_ms is not None and trial.drift is not None]
    if not measured:
        return "No trial is stored: there is nothing to lay side by side.", None
    kinds: tuple[tuple[str, Callable[[Trial], bool], str, str], ...] = (
        ("within limits", lambda trial: trial.feasible and not trial.role, OTHER, "circle"),
        ("breaks a limit", lambda trial: not trial.feasible and not trial.role, RULED_OUT, "x"),
        ("reference", lambda trial: trial.role == "reference", REFERENCE, "square"),
        ("promoted", lambda trial: trial.role == "winner", WINNER, "diamond"),
    )
    front = front_of((point["p50_ms"], 100 * point["drift"]) for point in view.document["pareto"])
    data = (
        [
            curve(
                *zip(*front, strict=True),
                name="Pareto front",
                color=OTHER,
                dash="dot",
                shape="hv",
            )
        ]
        if len(front) > 1
        else []
    )
    for name, wanted, color, symbol in kinds:
        chosen = [trial for trial in measured if wanted(trial)]
        if chosen:
            drifts = [100 * (trial.drift or 0.0) for trial in chosen]
            data.append(
                points([trial.p50_ms for trial in chosen], drifts, name=name, color=color, symbol=symbol)
                | {
                    "text": [text("; ".join((trial.label, *trial.reasons))) for trial in chosen],
                    "hovertemplate": "%{text}<br>p50 %{x:.3g} ms, drift %{y:.3g} %<extra></extra>",
                }
            )
    budget = 100 * view.profile.drift_budget
    figure = layout("p50 latency, ms", "drift of MAE, at most, %")
    figure["shapes"] = [limit_line(y=budget)]
    figure["annotations"] = [annotation(f"drift budget {budget:g} %", y=budget)]
    ruled_out = sum(not trial.feasible for trial in measured)
    says = (
        f"{len(measured)} configurations were measured, {ruled_out} of them break a limit, "
        f"{len(view.trials) - len(measured)} more failed; the drift budget of profile {view.profile.name} is "
        f"{budget:g} %."
    )
    return says, {"data": data, "layout": figure}


def front_of(costs: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """What nothing beats in both costs, by the first; fewer than what nothing beats in more than these two."""
    front: list[tuple[float, float]] = []
    for first, second in sorted(costs):
        if not front or second < front[-1][1]:
            front.append((first, second))
    return front


def latency(view: SymbolView) -> Drawn:
    """Share of the calls that took at most so long, for the winner and for the reference beside it."""
    arms = [
        (word, view.calls_ms[role], color, dash)
        for word, role, color, dash in (
            ("eager fp32", "reference", REFERENCE, "dash"),
            ("promoted", "winner", WINNER, "solid"),
        )
        if view.calls_ms.get(role)
    ]
    if not arms:
        return "No single calls are stored for what is promoted.", None
    data, said = [], []
    for word, calls, color, dash in arms:
        shares = [100 * (place + 1) / len(calls) for place in range(len(calls))]
        marks = {q: quantile_of(calls, q) for q in (0.5, 0.95, 0.99)}
        said.append(f"{word} " + ", ".join(f"p{100 * q:g} {ms:.3g} ms" for q, ms in marks.items()))
        data.append(
            curve(calls, shares, name=word, color=color, dash=dash, shape="hv")
            | {"hovertemplate": f"{word}: %{{y:.3g}} % within %{{x:.4g}} ms<extra></extra>"}
        )
        data.append(
            points([*marks.values()], [100 * q for q in marks], name=word, color=color, symbol="circle-open")
            | {
                "mode": "markers+text",
                "text": [f"p{100 * q:g}" for q in marks],
                "textposition": ["middle right", "bottom right", "top left"],
                "showlegend": False,
                "hoverinfo": "skip",
            }
        )
    figure = layout("latency of a call, ms", "calls, %")
    figure["xaxis"] |= {"type": "log"}
    figure["yaxis"] |= {"range": [0, 112]}
    deadline = view.promotion.figures.deadline_ms
    if deadline is not None:
        # Shapes take the logarithm by themselves, annotations do not: the line's own label says it instead.
        label = {
            "text": text(f"deadline {deadline:g} ms"),
            "textposition": "end",
            "textangle": 0,
            "xanchor": "right",
        }
        figure["shapes"] = [limit_line(x=deadline) | {"label": label}]
        said.append(f"the deadline is {deadline:g} ms")
    return f"Side by side in the search: {'; '.join(said)}.", {"data": data, "layout": figure}


def launches(view: SymbolView) -> Drawn:
    """The speed-up of each launch of the duel by itself, with the interval over all."""
    figures = view.promotion.figures
    ratios, ratio = figures.launch_ratios, figures.ratio
    if not ratios or ratio is None:
        count = figures.launches or 0
        return f"{count} launch{'es' * (count != 1)}, not stored one by one.", None
    data = [
        points(range(1, len(ratios) + 1), ratios, name="one launch", color=WINNER, symbol="diamond")
        | {"hovertemplate": "launch %{x}: %{y:.3f}x<extra></extra>"},
        curve([0.5, len(ratios) + 0.5], [ratio.estimate] * 2, name="all launches, 95 %", color=WINNER),
    ]
    figure = layout("launch", SPEED_AXIS) | {"shapes": [band(ratio.low, ratio.high)]}
    figure["xaxis"] |= {"tick0": 1, "dtick": 1, "range": [0.5, len(ratios) + 0.5]}
    figure["yaxis"] |= {"ticksuffix": "x"}
    span = f"{min(ratios):.3g}x to {max(ratios):.3g}x"
    says = f"{len(ratios)} launches gave {span}; all together {times(ratio)}, the band."
    return says, {"data": data, "layout": figure}


def _second(view: SymbolView) -> object:
    second = view.document["second"]
    return second and second["settings"]
