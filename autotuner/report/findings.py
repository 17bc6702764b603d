"""What a report says in tables and lists: four tables by compile mode, advice by use case, and a checklist.

The form of the hand-written report that people used to make once; every figure here comes from the store, and
what was not measured is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autotuner.report.symbol_view import SymbolView, Trial
from autotuner.report.tables import interval, moment, speed
from toto_core.settings import COMPILE_MODES

TITLE = "How to run Toto forecasts, symbol by symbol"
NOT_MEASURED = "not measured"
Cell = Callable[[Trial], str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts: its title, what its figures are, and rows as long as the header."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What symbols may run in one use case: ``lines`` are (symbol, what, on what it rests)."""

    use_case: str
    profile: str
    command: str
    lines: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One item of the checklist: ``state`` is ``yes``, ``no`` or ``unknown``, with what says so."""

    what: str
    state: str
    why: str


def summary(views: Sequence[SymbolView]) -> Table:
    """What each symbol runs and how sure that is."""
    return Table(
        title="What each symbol runs",
        note="Speed-up over eager fp32 with its 95 % interval, over the launches of a duel unless said otherwise.",
        header=("symbol", "runs", "speed-up", "p50", "drift at most", "figures", "since"),
        rows=tuple(_summary(view) for view in views),
    )


def mode_tables(views: Sequence[SymbolView]) -> tuple[Table, ...]:
    """Latency, both sigmas and the difference in MAE of every plain compile mode in fp32, a row a symbol."""
    searched = "Trials of the search: they rank and promise nothing; what is promoted was proven in a duel."
    return (
        _table("Performance by compile mode", searched, views, _performance),
        _table("MAE stability: sigma(MAE) over noise seeds", "In units of the price.", views, _sigma_mae),
        _table("Time stability: sigma(time) in steady state", searched, views, _sigma_time),
        _table(
            "MAE differences, compiled beside uncompiled",
            "On the same windows and the same noise, in units of the price and as a share of the reference's MAE.",
            views,
            _difference,
        ),
    )


def advice(views: Sequence[SymbolView]) -> tuple[Advice, ...]:
    """What to run in each use case: proven where it was promoted for it, else what the search ranks first."""
    return tuple(
        Advice(
            use_case=use_case,
            profile=name,
            command=f"autotune run --symbol {views[0].symbol if views else 'AMD'} --profile {name}",
            lines=tuple((view.symbol, *_advised(view, name)) for view in views),
        )
        for name, use_case in _USE_CASES.items()
    )


def checklist(view: SymbolView) -> tuple[Check, ...]:
    """What is to be true before money depends on it."""
    figures, document = view.promotion.figures, view.document
    report, budget = figures.compile_report, view.profile.drift_budget
    compiled = view.promotion.settings.compiled
    return (
        _check(
            "Proven faster on this symbol's own prices",
            None if figures.ratio is None else figures.won_a_duel and figures.ratio.low > 1,
            speed(document) or "no speed-up is stored",
        ),
        _check(
            "Difference in MAE within the budget",
            None if figures.drift is None else figures.drift <= budget,
            "drift was not measured"
            if figures.drift is None
            else f"at most {figures.drift:.3%} of {budget:.1%} ({view.profile.name})",
        ),
        Check(
            what="Measured with the requests of production", state="yes", why=view.promotion.workload.summary
        ),
        _check(
            "Memory known",
            None if not figures.peak_bytes else True,
            f"{figures.peak_bytes / 2**20:,.0f} MiB at peak" if figures.peak_bytes else NOT_MEASURED,
        ),
        _check(
            "Starts warm",
            None if figures.warm_start_ms is None and compiled else True,
            "runs uncompiled"
            if not compiled
            else "start from stored artifacts not measured"
            if figures.warm_start_ms is None
            else f"{figures.warm_start_ms / 1000:.2f} s from stored artifacts",
        ),
        _check(
            "Compiled whole, without recompiling",
            None if report is None else not compiled or (report.really_compiled and not report.recompiles),
            "no compile report is stored" if report is None else report.summary,
        ),
        _check(
            "Restarts give the same forecast, bit for bit",
            None if figures.reproduced is None else figures.reproduced == figures.launches,
            NOT_MEASURED
            if figures.reproduced is None
            else f"{figures.reproduced} of {figures.launches} launches",
        ),
        _check(
            "Still right on fresh prices",
            None if not view.rechecks else view.rechecks[-1].kept and view.rechecks[-1].failed is None,
            "not rechecked since the promotion"
            if not view.rechecks
            else f"rechecked {moment(view.rechecks[-1].window_end.isoformat())}",
        ),
        _check(
            "Watched in production",
            True if view.live else None,
            f"{sum(each.calls for each in view.live):,} calls seen" if view.live else "no telemetry since",
        ),
        Check(
            what="Way back",
            state="yes",
            why=f"autotune rollback {view.symbol}; TOTO_DISABLE_COMPILE=1 at once",
        ),
    )


_USE_CASES = {
    "production": "Production trading: fast, steady, within 1 % of MAE",
    "accuracy": "Accuracy-critical: within 0.1 % of MAE, jitter counts",
    "throughput": "Batches and backtests: most forecasts a second, within 5 % of MAE",
    "research": "Research and validation: the reference itself",
}


def _summary(view: SymbolView) -> tuple[str, ...]:
    figures = view.promotion.figures
    return (
        view.symbol,
        view.promotion.settings.label,
        interval(view.document) or "unknown",
        "unknown" if figures.p50_ms is None else f"{figures.p50_ms:.3g} ms",
        "unknown" if figures.drift is None else f"{figures.drift:.3%}",
        {"duel": f"{figures.launches} launches", "shared": "one launch, proven elsewhere"}.get(
            figures.stage or "", "search: ranks only"
        ),
        moment(view.promotion.promoted_at.isoformat()),
    )


def _advised(view: SymbolView, profile: str) -> tuple[str, str]:
    promotion = view.promotion
    if promotion.profile == profile:
        on = "proven in a duel" if promotion.figures.won_a_duel else "promoted, not proven"
        return promotion.settings.label, f"{on}: {interval(view.document) or 'no speed-up stored'}"
    first = view.by_profile.get(profile)
    if profile == "research":
        return "eager fp32", "the reference, by definition"
    if first is None or first.ratio is None:
        return "unknown", "nothing that was measured keeps its limits"
    ratio = f"{first.ratio.estimate:.2f}x [{first.ratio.low:.2f}, {first.ratio.high:.2f}]"
    return first.label, f"first in the search, not proven: {ratio}, drift at most {first.drift:.3%}"


def _table(title: str, note: str, views: Sequence[SymbolView], cell: Cell) -> Table:
    return Table(
        title=title,
        note=note,
        header=("symbol", *COMPILE_MODES),
        rows=tuple((view.symbol, *(_cell(view, mode, cell) for mode in COMPILE_MODES)) for view in views),
    )


def _cell(view: SymbolView, mode: str, cell: Cell) -> str:
    trial = view.modes[mode]
    if mode in view.aliases:
        return f"= {view.aliases[mode]} here"
    if trial is None:
        return NOT_MEASURED
    return trial.outcome if trial.p50_ms is None else cell(trial)


def _performance(trial: Trial) -> str:
    ratio = trial.ratio
    assert ratio is not None
    return f"{trial.p50_ms:.3g} ms, {ratio.estimate:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"


def _sigma_mae(trial: Trial) -> str:
    return f"{trial.sigma_mae:.3g}"


def _sigma_time(trial: Trial) -> str:
    return f"{trial.sigma_ms:.3g} ms"


def _difference(trial: Trial) -> str:
    if not trial.settings.compiled:
        return "the reference"
    assert trial.mae is not None
    assert trial.mae_reference is not None
    difference = abs(trial.mae - trial.mae_reference)
    share = difference / trial.mae_reference if trial.mae_reference else float("nan")
    return f"{difference:.3g} ({share:.4%})"


def _check(what: str, holds: bool | None, why: str) -> Check:
    return Check(what=what, state={True: "yes", False: "no", None: "unknown"}[holds], why=why)
