"""A report of some symbols as Markdown to commit, and as CSV to calculate with."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime

from autotuner import __version__
from autotuner.report.charts import charts
from autotuner.report.findings import TITLE, Table, advice, checklist, mode_tables, summary
from autotuner.report.symbol_view import SymbolView, Trial
from autotuner.report.tables import moment, plain
from toto_core.lines import escaped

_FIGURES = (
    "score",
    *("p50_ms", "p99_ms", "sigma_ms"),
    *("mae", "mae_reference", "sigma_mae", "drift"),
    *("cold_start_ms", "warm_start_ms", "peak_bytes"),
)
CSV_COLUMNS = (
    *("symbol", "profile", "role", "settings", "settings_key", "outcome", "feasible", "reasons"),
    *("ratio", "ratio_low", "ratio_high"),
    *_FIGURES,
)
_FORMULA = ("=", "+", "-", "@")


def markdown_report(views: Sequence[SymbolView], *, made_at: datetime) -> str:
    """The same tables, advice and checklist as text; charts are what they say."""
    lines = [f"# {TITLE}", "", f"Made {moment(made_at.isoformat())} by autotune {__version__}."]
    lines += ["Every figure is measured; what was not measured is said to be unknown.", "", "## Summary", ""]
    lines += _markdown_table(summary(views))
    lines += ["## By compile mode", ""]
    for table in mode_tables(views):
        lines += _markdown_table(table)
    lines += ["## What to run", ""]
    for each in advice(views):
        lines += [f"### {_escaped(each.use_case)}", ""]
        lines += [
            f"- **{_escaped(symbol)}**: {_escaped(what)} ({_escaped(why)})"
            for symbol, what, why in each.lines
        ]
        lines += ["", f"To prove it: `{each.command}`", ""]
    for view in views:
        lines += [
            f"## {_escaped(view.symbol)}",
            "",
            _escaped(f"{view.promotion.verdict}: {view.promotion.reason}"),
            "",
        ]
        lines += [f"- {each.title}: {_escaped(each.says)}" for each in charts(view)]
        lines += ["", "Before money depends on it:", ""]
        marks = {"yes": "[x]", "no": "[ ] **no**", "unknown": "[ ] unknown"}
        lines += [f"- {marks[check.state]} {check.what}: {_escaped(check.why)}" for check in checklist(view)]
        lines.append("")
    return "\n".join(lines)


def csv_report(views: Sequence[SymbolView]) -> str:
    """One row a trial, times in milliseconds; a text that a spreadsheet would calculate has a ' before it."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for view in views:
        writer.writerows(map(_harmless, _trial_row(view, trial)) for trial in view.trials)
    return out.getvalue()


def _markdown_table(table: Table) -> list[str]:
    rows = [table.header, tuple("---" for _ in table.header), *table.rows]
    lines = [f"### {table.title}", "", table.note, ""]
    lines += [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    return [*lines, ""]


def _escaped(text: str) -> str:
    """Text that Markdown, and HTML within it, leave as it is; an interval in brackets is no link."""
    letters = "\\`*_<>|#" + ("[]" if "](" in text or "][" in text else "")
    return "".join(f"\\{letter}" if letter in letters else letter for letter in plain(text))


def _trial_row(view: SymbolView, trial: Trial) -> list[object]:
    ratio = trial.ratio
    return [
        view.symbol,
        view.promotion.profile,
        trial.role,
        trial.label,
        trial.settings.key,
        trial.outcome,
        trial.feasible,
        "; ".join(trial.reasons),
        *((ratio.estimate, ratio.low, ratio.high) if ratio else (None, None, None)),
        *(getattr(trial, name) for name in _FIGURES),
    ]


def _harmless(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    shown = escaped(cell).replace("\n", "\\n")
    return f"'{shown}" if cell.lstrip().startswith(_FORMULA) or cell[:1].isspace() else shown
