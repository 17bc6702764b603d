"""What runs of many symbols would do, on this machine and on others that the store knows; nothing is measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from autotuner.commands.plan_reading import Reading
from autotuner.commands.plan_rows import Asked, Planner, Replays, Row
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.machine.engine_versions import engine_name
from autotuner.store import Store
from autotuner.tuning.request import TuneRequest
from toto_core.model_folder import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Nodes of a cluster that are of one environment, by ``hosts``.

    ``devices`` is how many runs they take at a time, ``here`` that they are this very machine. ``facts_for`` tells
    the environment of an engine's processes there.
    """

    label: str | None
    hosts: tuple[str, ...]
    devices: int
    here: bool
    facts_for: Callable[[str], Environment]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One environment's part; ``nodes`` are those of a cluster on which its runs would be made.

    Of another machine, where none would: ``differences`` to this one, and when something of it was promoted last.
    """

    environment: Environment
    rows: tuple[Row, ...]
    here: bool = True
    nodes: Nodes | None = None
    differences: tuple[str, ...] = ()
    newest: datetime | None = None

    @property
    def is_asked(self) -> bool:
        """Whether its runs are those that were asked for."""
        return self.here or self.nodes is not None


def plan(
    asked: Sequence[Asked], store: Store, *, replays: Replays | None = None, read_prices: bool = False
) -> tuple[Planned, ...]:
    """What each run would do, in order, this machine first; then on other machines that something is active for.

    ``replays`` answers from recorded measurements, of this machine alone; ``read_prices`` reads every price file,
    however many there are. What is wrong with one symbol is a fault of its row. Raises ``StorageError``.
    """
    planner = Planner(Reading(store, (each.symbol for each in asked), read_prices=read_prices), replays)
    rows: dict[Environment, list[Row]] = {}
    faults: list[Row] = [Row(symbol=each.symbol, due=each.due) for each in asked if not each.requests]
    for each in asked:
        for request in each.requests:
            try:
                environment = planner.reading.measurable(request.workload, request.device).environment
            except (AutotuneError, CheckpointError) as error:
                faults.append(Row(symbol=each.symbol, request=request, due=each.due, fault=str(error)))
                continue
            rows.setdefault(environment, []).append(planner.row(each, request, environment, None))
    here = next(iter(rows), None)
    planned = [Planned(environment=place, rows=tuple(found)) for place, found in rows.items()]
    if here is not None:
        planned[0] = replace(planned[0], rows=(*planned[0].rows, *faults))
    elif faults:
        from autotuner.environment import current_environment

        planned = [Planned(environment=current_environment(), rows=tuple(faults))]
    return (*planned, *([] if replays else _elsewhere(planner, asked, list(rows))))


def _elsewhere(planner: Planner, asked: Sequence[Asked], here: Sequence[Environment]) -> list[Planned]:
    """The same on every other machine that something is active for and that runs the same engine."""
    newest = {record.environment_fingerprint: record.promoted_at for record in planner.reading.ledger}
    found = []
    for record in planner.reading.store.records.environments():
        there = _read_environment(record.facts_json)
        like = next(
            (each for each in here if there and engine_name(each.engine) == engine_name(there.engine)),
            None,
        )
        if there is None or like is None or there in here or there.fingerprint not in newest:
            continue
        rows = [
            planner.row(each, request, there, there)
            for each in asked
            for request in each.requests
            if _runs_on(planner, request, like)
        ]
        found.append(
            Planned(
                environment=there,
                rows=tuple(rows),
                here=False,
                differences=like.differences(there),
                newest=newest[there.fingerprint],
            )
        )
    return found


def _runs_on(planner: Planner, request: TuneRequest, like: Environment) -> bool:
    try:
        return planner.reading.measurable(request.workload, request.device).environment == like
    except (AutotuneError, CheckpointError):  # a fault of its row here
        return False


def _read_environment(text: str) -> Environment | None:
    try:
        return Environment.from_dict(json.loads(text))
    except (AutotuneError, TypeError, ValueError):  # of another version
        return None
