"""What runs of many symbols would do on the nodes of a cluster; nothing is measured."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.commands.plan import Nodes, Planned
from autotuner.commands.plan_reading import Reading
from autotuner.commands.plan_rows import Asked, Planner, Row
from autotuner.engines.registry import engine_for
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.machine.engine_versions import TOTO1
from autotuner.store import Store
from autotuner.tuning.request import TuneRequest
from toto_core.model_folder import CheckpointError


def plan_on(
    asked: Sequence[tuple[Nodes, Sequence[Asked]]], store: Store, *, read_prices: bool = False
) -> tuple[Planned, ...]:
    """What each run would do on the nodes of a cluster, environment by environment; as ``plan.plan`` otherwise."""
    planned, symbols = [], {each.symbol for _, of_it in asked for each in of_it}
    planner = Planner(Reading(store, symbols, read_prices=read_prices), None)
    for nodes, of_it in asked:
        rows: dict[Environment, list[Row]] = {}
        for each in of_it:
            if not each.requests:
                rows.setdefault(nodes.facts_for(TOTO1), []).append(Row(symbol=each.symbol, due=each.due))
            for request in each.requests:
                there = nodes.facts_for(_engine_of(request))
                row = planner.row(each, request, there, None if nodes.here else there)
                rows.setdefault(there, []).append(row)
        planned += [
            Planned(environment=there, rows=tuple(found), here=nodes.here, nodes=nodes)
            for there, found in rows.items()
        ]
    return tuple(planned)


def _engine_of(request: TuneRequest) -> str:
    try:
        return engine_for(request.workload.model, request.workload.revision).name
    except (AutotuneError, CheckpointError):  # a fault of its row
        return TOTO1
