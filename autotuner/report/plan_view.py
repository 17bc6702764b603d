"""A plan as the document that ``--json`` prints, and as tables for people."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from autotuner.commands.plan import Nodes, Planned
from autotuner.commands.plan_rows import Row
from autotuner.machine.engine_versions import engine_name
from autotuner.report.tables import bare_table, plain
from autotuner.tuning.models import CHOOSING_SECONDS
from autotuner.tuning.planned import Work

_NOT_DUE = "nothing"
_PRICES = {"changed": "prices changed since", "not read": "prices not read"}
_NAMED = 3
"""Symbols of a row that are named; the rest are counted."""


def plan_document(planned: Sequence[Planned]) -> dict[str, Any]:
    """Everything, a row for each symbol and model."""
    return {
        "environments": [
            {
                "fingerprint": each.environment.fingerprint,
                "here": each.here,
                **asdict(each.environment),
                **({} if each.nodes is None else _on_nodes(each.nodes, each.rows)),
                "differences": list(each.differences),
                "last_promoted": None if each.newest is None else each.newest.isoformat(),
                "totals": totals(each.rows),
                "symbols": [_row(row) for row in each.rows],
            }
            for each in planned
        ]
    }


def _on_nodes(nodes: Nodes, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "label": nodes.label,
        "nodes": list(nodes.hosts),
        "devices": nodes.devices,
        "seconds_on_devices": round(span(rows, nodes.devices), 1),
    }


def span(rows: Iterable[Row], devices: int) -> float:
    """Seconds expected until all rows are done on so many devices at a time.

    What waits for a proof that has yet to be made begins once the run that makes it has ended; a symbol's models are
    tuned one after the other.
    """
    runs: dict[str, list[Work]] = defaultdict(list)
    for row in rows:
        if row.work is not None:
            runs[row.symbol].append(row.work)
    free, ended = [0.0] * max(1, devices), defaultdict[str, float](float)
    for symbol, works in runs.items():
        ready = max((ended[work.proof_of or ""] for work in works if work.assumed), default=0.0)
        begins = max(heapq.heappop(free), ready)
        ended[symbol] = begins + sum(work.seconds for work in works)
        heapq.heappush(free, ended[symbol])
    return max(ended.values(), default=0.0)


def _row(row: Row) -> dict[str, Any]:
    request, work = row.request, row.work
    document: dict[str, Any] = {
        "symbol": row.symbol,
        "due": row.due,
        "does": _does(row),
        "why": _why(row),
        "fault": row.fault,
    }
    if request is not None:
        workload = request.workload
        document |= {
            "profile": request.profile.name,
            "model": workload.model,
            "workload": workload.signature,
            "champion": row.champion,
            "run_id": row.goes_on,
            "busy": row.busy,
            "prices": None if row.prices is None else row.prices.state,
        }
    if work is not None:
        document |= {
            "proof_of": work.proof_of,
            "assumed": work.assumed,
            "trials": {
                name: getattr(work, name) for name in ("space", "reused", "certain", "expected", "most")
            },
            "builds": {"to_build": len(work.builds), "in_cache": work.at_hand, "bytes": row.bytes},
            "seconds": {"expected": round(work.seconds, 1), "most": work.most_seconds, "from": _basis(row)},
        }
    return document


def totals(rows: Iterable[Row]) -> dict[str, Any]:
    """Sums over the rows."""
    rows = list(rows)
    works = [row.work for row in rows if row.work is not None]
    models = Counter(row.symbol for row in rows if row.request is not None)
    choosing = CHOOSING_SECONDS * sum(count > 1 for count in models.values())
    return {
        "symbols": len({row.symbol for row in rows}),
        **{
            does: sum(_does(row) == does for row in rows)
            for does in ("search", "check", "reference", _NOT_DUE)
        },
        "faults": sum(row.fault is not None for row in rows),
        "trials": {
            name: sum(getattr(work, name) for work in works) for name in ("reused", "certain", "expected")
        },
        "builds": {
            "to_build": sum(len(work.builds) for work in works),
            "in_cache": sum(work.at_hand for work in works),
            "bytes": sum(row.bytes for row in rows),
        },
        "seconds": {
            "expected": round(sum(work.seconds for work in works), 1),
            "most": sum(work.most_seconds for work in works) + choosing,
        },
    }


def plan_lines(planned: Sequence[Planned]) -> Iterator[RenderableType]:
    """What is asked for in full, rows that read alike as one; of other machines a line each."""
    for each in planned:
        if each.is_asked:
            yield Text(plain(_headline(each)), style="bold")
            yield _table(each.rows)
            yield Text(plain(f"{_sum(each.rows)}{_at_once(each)}\n"))
    others = [each for each in planned if not each.is_asked]
    for each in others:
        yield Text(plain(f"not this machine: {_headline(each)}"), style="bold")
        yield Text(plain(f"  {'; '.join(each.differences)}"))
        yield Text(f"  {_sum(each.rows)}")


def _headline(planned: Planned) -> str:
    there = planned.environment
    last = "" if planned.newest is None else f", last promoted {planned.newest:%Y-%m-%d}"
    nodes = planned.nodes
    on = "" if nodes is None else f"{nodes.label or there.fingerprint} on {', '.join(_some(nodes.hosts))}: "
    return (
        f"{on}{there.device}, {there.threads} threads, torch {there.torch}, engine {engine_name(there.engine)} "
        f"({there.fingerprint}){last}"
    )


def _some(hosts: Sequence[str]) -> list[str]:
    counted = [f"{host} ({count} nodes)" if count > 1 else host for host, count in Counter(hosts).items()]
    return counted if len(counted) <= _NAMED else [*counted[:_NAMED], f"{len(counted) - _NAMED:,} more"]


def _at_once(planned: Planned) -> str:
    nodes = planned.nodes
    if nodes is None or nodes.devices < 2:
        return ""
    return f"; about {duration(span(planned.rows, nodes.devices))} on {nodes.devices} devices"


def _table(rows: Sequence[Row]) -> RenderableType:
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        alike.setdefault(_cells(row), []).append(row.symbol)
    table = bare_table("symbol", "what", "trials", "builds", "expected", "at most", "why")
    for cells, symbols in alike.items():
        style = "red" if cells[0] == "fails" else "dim" if cells[0] == _NOT_DUE else ""
        table.add_row(_named(symbols), *(Text(cell) for cell in cells), style=style)
    return table


def _named(symbols: Sequence[str]) -> str:
    some = "\n".join(dict.fromkeys(symbols[:_NAMED]))
    return some if len(symbols) <= _NAMED else f"{some}\nand {len(symbols) - _NAMED:,} more"


def _cells(row: Row) -> tuple[str, ...]:
    work = row.work
    if work is None:
        return _does(row), "", "", "", "", _why(row)
    what = {"search": "search, duel", "check": "check a proof", "reference": "measure the reference"}
    trials = f"{work.expected} of {work.space}" if work.does == "search" else f"{work.expected}"
    if work.most > work.expected:
        trials += f", at most {work.most}"
    if work.reused:
        trials += f", {work.reused} reused"
    builds = ", ".join(
        f"{count} {name}"
        for count, name in ((len(work.builds), "to build"), (work.at_hand, "in cache"))
        if count
    )
    return (
        what[work.does],
        trials,
        builds or "none",
        duration(work.seconds),
        duration(work.most_seconds),
        _why(row),
    )


def _does(row: Row) -> str:
    if row.fault is not None:
        return "fails"
    return _NOT_DUE if row.work is None else row.work.does


def _why(row: Row) -> str:
    work = row.work
    if row.fault is not None:
        return plain(row.fault)
    if work is None:
        return "not due"
    parts = [row.due or "", _reason(row)]
    parts += ["goes on with an unfinished run"] if row.goes_on else []
    parts += ["being tuned now"] if row.busy else []
    parts += [_PRICES[row.prices.state]] if row.prices and row.prices.state in _PRICES else []
    return "; ".join(part for part in parts if part)


def _reason(row: Row) -> str:
    work = row.work
    assert work is not None
    if work.does == "check":
        return (
            f"after {work.proof_of}, if that proves anything"
            if work.assumed
            else f"{work.proof_of} proved it"
        )
    if work.does == "reference":
        return "its profile does not search"
    left = "nothing likely is left to try" if work.settled else ""
    against = f"against {row.champion}" if row.champion else "nothing proven here yet"
    return ", ".join(part for part in (against, left) if part)


def _basis(row: Row) -> str:
    return "earlier runs" if row.work is not None and row.work.measured else "priors"


def _sum(rows: Sequence[Row]) -> str:
    found = totals(rows)
    trials, builds, seconds = found["trials"], found["builds"], found["seconds"]
    works = [row.work for row in rows if row.work is not None]
    measured = sum(work.measured for work in works)
    known = {0: "by priors alone", len(works): "by earlier runs"}.get(
        measured, f"{measured:,} of {len(works):,} by earlier runs"
    )
    disk = f" ({builds['bytes'] / 2**20:,.0f} MB)" if builds["bytes"] else ""
    faults = f", {found['faults']:,} fail" if found["faults"] else ""
    return (
        f"{found['symbols']:,} symbol{'s' * (found['symbols'] != 1)}{faults}: "
        f"{trials['expected']:,} trials, {trials['reused']:,} reused, "
        f"{builds['to_build']:,} builds{disk}, {builds['in_cache']:,} in cache; "
        f"about {duration(seconds['expected'])} one after the other{f', {known}' if works else ''}, "
        f"at most {duration(seconds['most'])}"
    )


def duration(seconds: float) -> str:
    """``95 s``, ``12 min`` or ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
