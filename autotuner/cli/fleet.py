"""``autotune run --on``: the options of a run as the nodes get them, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autotuner.cli import options
from autotuner.cli.due import each_as_before, each_due
from autotuner.cli.fleet_nodes import connected, task
from autotuner.cli.run_options import RunOptions, TunedAs, requests_of
from autotuner.errors import AutotuneError

if TYPE_CHECKING:
    from autotuner.cli.fleet_progress import FleetProgress, PlainFleetProgress
    from autotuner.fleet.driver import Ended
    from autotuner.fleet.nodes import Fleet, Node
    from autotuner.fleet.orders import Group, Order
    from autotuner.fleet.station import Task
    from autotuner.store import Store

_OF_THE_DRIVER = frozenset(
    ("symbols", "everything", "symbols_file", "on", "environments", "as_json", "db", "exit_code")
)
_CHOOSING = ("symbols", "everything", "symbols_file", "on", "environments")
_OF_PRICES = frozenset(("data", "price_column", "time_column", "timezone", "decimal", "allow_negative"))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a fleet is to do; ``environments`` are fingerprints and labels, none for all of the cluster."""

    on: str
    symbols: tuple[str, ...]
    environments: tuple[str, ...]
    options: RunOptions
    due: bool
    as_before: bool


def tune_on(
    asked: Asked, store: Store, *, quiet: bool
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, str]]]:
    """Tune the symbols in every environment of the cluster: the whole document, and what of it was tuned and failed.

    On an interrupt every run stores that it was interrupted. Raises ``AutotuneError`` with one line.
    """
    from autotuner.report.run_view import run_lines

    try:
        documents, failures, environments = _run_on(asked, store, _passed_on(), quiet=quiet)
    except KeyboardInterrupt:
        raise AutotuneError(
            "interrupted; what was measured is stored, and the same command goes on from there"
        ) from None
    for document in () if quiet else documents:
        options.say(f"In environment {document['environment']}:", *run_lines(document))
    return {"symbols": documents, "failed": failures, "environments": environments}, documents, failures


def _run_on(
    asked: Asked, store: Store, arguments: Sequence[str], *, quiet: bool
) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[dict[str, Any]]]:
    from autotuner.daemon.config import price_arguments
    from autotuner.fleet.campaign import Campaign
    from autotuner.fleet.driver import Ended, drive
    from autotuner.fleet.orders import Schedule

    arguments = (*arguments, *price_arguments(asked.options.prices))
    with (
        _progress(quiet=quiet) as progress,
        connected(
            asked.on,
            asked.environments,
            device=asked.options.device,
            models=asked.options.models,
            store=store.location,
            audience=progress,
        ) as (cluster, fleet),
    ):
        orders = _orders(asked, fleet, store)
        command = (*arguments, *_chosen())
        with Campaign(
            store.location, command, anew=asked.options.fresh or not asked.options.resume
        ) as campaign:
            done = campaign.finished(store, orders)
            if done:
                progress.tell(
                    f"going on with what was begun at {campaign.begun:%Y-%m-%d %H:%M} UTC: {len(done)} of "
                    f"{len(orders)} runs are done; --no-resume begins anew"
                )
            ended = [Ended(order=order, document=document) for order, document in done.items()]
            left = [order for order in orders if order not in done]
            progress.expect(len(left))
            schedule = Schedule(left, proven(orders, store))
            task_of = _tasks(asked, fleet, store, arguments)
            ended += drive(fleet, cluster, schedule, task_of=task_of, audience=progress)
            campaign.over()
    return _documents(ended, fleet), _failures(ended), _environments(fleet)


def _passed_on() -> tuple[str, ...]:
    """The options of this command line that every node's run gets, paths as they are from any folder."""
    context = click.get_current_context()
    passed: list[str] = []
    for option in context.command.params:
        name = str(option.name)
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if not isinstance(option, click.Option) or not given or name in _OF_THE_DRIVER | _OF_PRICES:
            continue
        value = context.params[name]
        if option.is_flag:
            passed.append((option.opts if value else option.secondary_opts)[0])
            continue
        values = value if option.multiple else (value,)
        passed += [f"{option.opts[0]}={_from_anywhere(each)}" for each in values]
    return tuple(passed)


def _chosen() -> tuple[str, ...]:
    """What this command line says of what is to be tuned where: nodes need not know, but it tells commands apart."""
    given = click.get_current_context().params
    return tuple(f"{name}={given[name]}" for name in _CHOOSING)


def _from_anywhere(value: Any) -> str:
    is_path = isinstance(value, Path) or (isinstance(value, str) and "/" in value and Path(value).exists())
    return str(Path(value).absolute()) if is_path else options.AUTO if value is None else str(value)


def _orders(asked: Asked, fleet: Fleet, store: Store) -> list[Order]:
    """One run for each symbol in each environment, as far as it is due there."""
    orders = []
    for node, *_ in fleet.environments.values():
        if asked.due:
            found = each_due(asked.symbols, asked.options, store, node.facts)
            subjects = [(symbol, before) for symbol, before, reason in found if reason]
        elif asked.as_before:
            subjects = list(each_as_before(asked.symbols, asked.options, store, node.facts))
        else:
            subjects = [(symbol, None) for symbol in asked.symbols]
        befores: dict[str, list[TunedAs | None]] = {}
        for symbol, before in subjects:
            befores.setdefault(symbol, []).append(before)
        orders += [order_of(symbol, each, asked.options, node) for symbol, each in befores.items()]
    return orders


def order_of(symbol: str, befores: Sequence[TunedAs | None], run_options: RunOptions, node: Node) -> Order:
    """The run of a symbol on a node like this one: once for each of ``befores``, as what it was tuned."""
    from autotuner.engines.registry import engine_for
    from autotuner.fleet.nodes import called
    from autotuner.fleet.orders import Order

    results = []
    for request in (each for before in befores for each in requests_of(symbol, run_options, before)):
        there = node.facts_for(engine_for(request.workload.model, request.workload.revision).name)
        results.append((request.workload.signature, request.profile.name, there.fingerprint))
    return Order(symbol=symbol, environment=node.environment, place=called(node), results=tuple(results))


def proven(orders: Collection[Order], store: Store) -> set[Group]:
    """Groups in which a duel's proof stands, so that nobody need search first."""
    from autotuner.tuning.takeover import names_a_duel

    standing = {
        (record.workload_signature, record.profile, record.environment_fingerprint)
        for record in store.records.active_promotions()
        if names_a_duel(record)
    }
    return {order.group for order in orders if standing.issuperset(order.results)}


def _tasks(asked: Asked, fleet: Fleet, store: Store, arguments: Sequence[str]) -> Callable[[Order], Task]:
    def task_of(order: Order) -> Task:
        return task(
            ("run", "--symbol", order.symbol, "--json", *arguments),
            environment=order.environment,
            fleet=fleet,
            store=store.location,
            device=asked.options.device,
        )

    return task_of


def _documents(ended: Sequence[Ended], fleet: Fleet) -> list[dict[str, Any]]:
    """What the runs came to, each with its environment; one that found nothing due has no document."""
    found = []
    for each in ended:
        document = each.document or {}
        own = document["symbols"] if "failed" in document else [document] if document else []
        where = {"environment": each.order.environment, "node": each.host}
        found += [one | where for one in own]
    return found


def _failures(ended: Sequence[Ended]) -> list[dict[str, str]]:
    found = []
    for each in ended:
        if each.document is None:
            reason = each.reason.removeprefix("Error: ").removeprefix(f"{each.order.symbol}: ")
            found.append(
                {"symbol": each.order.symbol, "environment": each.order.environment, "reason": reason}
            )
    return found


def _environments(fleet: Fleet) -> list[dict[str, Any]]:
    return [
        {
            "fingerprint": fingerprint,
            "label": nodes[0].label,
            "hardware": nodes[0].facts.hardware,
            "nodes": [each.host for each in nodes],
        }
        for fingerprint, nodes in fleet.environments.items()
    ]


def _progress(*, quiet: bool) -> AbstractContextManager[FleetProgress | PlainFleetProgress]:
    from autotuner.cli.fleet_progress import FleetProgress, PlainFleetProgress
    from autotuner.cli.safe_console import SafeConsole

    if quiet or not sys.stderr.isatty():
        return nullcontext(PlainFleetProgress())
    return FleetProgress(SafeConsole(stderr=True))
