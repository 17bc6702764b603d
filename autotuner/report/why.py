"""An explanation as a few titled lists for people, made from the document that ``explain --json`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from autotuner.measurement.outcome import Conditions, Interval
from autotuner.report.tables import interval, label, plain, speed

Document = Mapping[str, Any]
_MOST_RULED_OUT = 12
_BAR = 24


def why(document: Document) -> RenderableType:
    """Every question with its answer; one that has none is left out."""
    parts: list[Text] = [Text(f"{document['symbol']} runs {label(document)}", style="bold")]
    questions = (
        ("why", [document["decision"]["reason"]]),
        ("how sure", _how_sure(document)),
        ("did it compile", [document["certificate"]]),
        ("what came second", _second(document)),
        ("what nothing else beats in everything", _pareto(document)),
        ("what was ruled out", _ruled_out(document)),
        ("what matters", _importance(document)),
        ("what would change the answer", document["changes"]),
    )
    for question, answers in questions:
        lines = [plain(line) for line in answers]
        if lines:
            parts.append(Text(question, style="dim"))
            parts += [Text(f"  {line}") for line in lines]
    again = f"autotune run --symbol {document['symbol']} measures again"
    return Group(*parts, Text("next", style="dim"), Text(f"  {again}; autotune history shows the ledger"))


def _how_sure(document: Document) -> Iterable[str]:
    found = speed(document)
    if found:
        yield f"{found}; 95 % interval {_origin(document)}"
    if document.get("reproduced"):
        yield (
            f"{document['reproduced']} of {document['launches']} launches answered a fixed request bit for bit as "
            "the process that compiled"
        )
    conditions = document.get("conditions")
    if conditions and conditions.get("blocks"):
        yield f"measured under {Conditions(**conditions)}"


def _origin(document: Document) -> str:
    stage, launches = document.get("stage"), document.get("launches", 1)
    if stage == "duel":
        return f"over {launches} launches of a duel"
    if stage == "shared":
        promise = document["shared_from"]
        ratio = Interval(**promise["ratio"])
        return f"of one launch, which agrees with the duel of {promise['symbol']} ({ratio})"
    return "of the search, which only ranks"


def _second(document: Document) -> Iterable[str]:
    second = document["second"]
    if second is not None:
        yield (
            f"{label(second)}: {interval(second)} once running, score {second['score']:.3f} "
            f"(eager fp32 1, lower is better), starts in {second['start_ms'] / 1000:.1f} s"
        )


def _pareto(document: Document) -> Iterable[str]:
    for point in document["pareto"]:
        yield (
            f"{label(point)}: p50 {point['p50_ms']:.2f} ms, sigma {point['sigma_ms']:.2f} ms, "
            f"drift {point['drift']:.3%}, starts in {point['start_ms'] / 1000:.2f} s"
        )


def _ruled_out(document: Document) -> Iterable[str]:
    ruled_out = document["ruled_out"]
    for entry in ruled_out[:_MOST_RULED_OUT]:
        yield f"{label(entry)}: {'; '.join(entry['reasons'])}"
    if len(ruled_out) > _MOST_RULED_OUT:
        yield f"and {len(ruled_out) - _MOST_RULED_OUT} more (--json lists them)"


def _importance(document: Document) -> Iterable[str]:
    for name, share in document["importance"].items():
        yield f"{name:18} {'#' * round(share * _BAR):{_BAR}} {share:.0%} of the differences in score"
