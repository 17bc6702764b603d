"""Charts of how a configuration lives: its promotions, production's latency, its starts, what decides its speed."""

from __future__ import annotations

from autotuner.measurement.outcome import Interval
from autotuner.report.figure_parts import (
    LIMIT,
    OTHER,
    REFERENCE,
    SPEED_AXIS,
    WINNER,
    Drawn,
    annotation,
    bars,
    curve,
    duration,
    layout,
    limit_line,
    points,
    text,
    whiskers,
)
from autotuner.report.symbol_view import SymbolView


def timeline(view: SymbolView) -> Drawn:
    """What was promoted and taken back, when and at what speed-up."""
    promoted = [event for event in view.events if event["event"] == "promotion" and event["ratio"]]
    if not promoted:
        return "No promotion with a speed-up is in the ledger.", None
    data = []
    for name, back, color, symbol in (
        ("promoted", False, WINNER, "diamond"),
        ("promoted, later rolled back", True, LIMIT, "x"),
    ):
        chosen = [event for event in promoted if bool(event["rolled_back_at"]) == back]
        if chosen:
            ratios = [Interval(**event["ratio"]) for event in chosen]
            at = [event["at"] for event in chosen]
            data.append(
                points(at, [ratio.estimate for ratio in ratios], name=name, color=color, symbol=symbol)
                | {
                    "error_y": whiskers(ratios),
                    "text": [text(event["reason"]) for event in chosen],
                    "hovertemplate": "%{x}<br>%{y:.3g}x<br>%{text}<extra></extra>",
                }
            )
    figure = layout("", SPEED_AXIS)
    figure["xaxis"] |= {"type": "date"}
    figure["yaxis"] |= {"rangemode": "tozero", "ticksuffix": "x"}
    taken_back = sum(bool(event["rolled_back_at"]) for event in promoted)
    says = f"Promotions with a speed-up: {len(promoted)}, rolled back: {taken_back}."
    return says, {
        "data": data,
        "layout": figure,
    }


def live(view: SymbolView) -> Drawn:
    """Latency that production saw, window by window, beside what was promised."""
    if not view.live:
        return "No telemetry since the promotion.", None
    at = [each.at.isoformat() for each in view.live]
    data = [
        curve(at, [each.p99_ms for each in view.live], name="p99", color=REFERENCE, dash="dot"),
        curve(at, [each.p50_ms for each in view.live], name="p50", color=WINNER),
    ]
    figure = layout("", "ms")
    figure["xaxis"] |= {"type": "date"}
    figure["yaxis"] |= {"rangemode": "tozero"}
    promised, _ = view.promotion.figures.promised_ms
    if promised is not None:
        figure["shapes"] = [limit_line(y=promised)]
        figure["annotations"] = [annotation(f"promised p50 {promised:.3g} ms", y=promised)]
    calls = sum(each.calls for each in view.live)
    says = f"{calls:,} calls in {len(view.live)} windows; the newest has p50 {view.live[-1].p50_ms:.3g} ms."
    return says, {"data": data, "layout": figure}


def starts(view: SymbolView) -> Drawn:
    """Cold start, start from stored artifacts, and one steady call, on one logarithmic scale."""
    figures = view.promotion.figures
    known = (
        ("cold start, nothing compiled", figures.cold_start_ms, LIMIT),
        ("start from stored artifacts", figures.warm_start_ms, OTHER),
        ("one call once running (p50)", figures.p50_ms, WINNER),
    )
    found = [(name, ms, color) for name, ms, color in known if ms is not None and ms > 0]
    if not found:
        return "Neither starts nor calls are stored.", None
    names, values, colors = zip(*found, strict=True)
    said = [duration(ms) for ms in values]
    data = [
        bars(names, values, colors=colors)
        | {"text": said, "textposition": "auto", "hovertemplate": "%{y}: %{text}<extra></extra>"}
    ]
    figure = layout("ms", "") | {"showlegend": False}
    figure["xaxis"] |= {"type": "log"}
    figure["yaxis"] |= {"autorange": "reversed"}
    return f"{'; '.join(map(' '.join, zip(names, said, strict=True)))}.", {"data": data, "layout": figure}


def importance(view: SymbolView) -> Drawn:
    """Which settings explain how much of the differences in score."""
    shares = {name.replace("_", " "): share for name, share in view.document["importance"].items()}
    if not shares:
        return "Fewer than four trials have a score.", None
    data = [
        bars([*shares], [100 * share for share in shares.values()], colors=WINNER)
        | {"hovertemplate": "%{y}: %{x:.0f} %<extra></extra>"}
    ]
    figure = layout("share of the differences in score that it explains alone, %", "") | {"showlegend": False}
    figure["yaxis"] |= {"autorange": "reversed"}
    return f"{', '.join(f'{name} {share:.0%}' for name, share in shares.items())}.", {
        "data": data,
        "layout": figure,
    }
