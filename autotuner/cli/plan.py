"""``autotune plan``: what a run with the same options would do, before it starts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from autotuner.cli import options
from autotuner.cli.due import each_as_before, each_due
from autotuner.cli.fleet_nodes import connected, refuse_contradictions
from autotuner.cli.options import Command
from autotuner.cli.price_options import with_prices
from autotuner.cli.run import all_symbols, named_symbols, run_command, say_passed_over
from autotuner.cli.run_options import RunOptions, peak_bytes, requests_of
from autotuner.errors import AutotuneError
from autotuner.paths import is_file, store_location, store_path
from toto_core.held_folders import held_folder

if TYPE_CHECKING:
    from autotuner.commands.plan import Planned
    from autotuner.commands.plan_rows import Asked, Replays
    from autotuner.environment import Environment
    from autotuner.store import Store

_OF_A_RUN_ALONE = ("exit_code",)


def options_of_run(command: Command) -> Command:
    """Every option of ``run``, whatever it has, but those that say how it ends."""
    made: Any = with_prices(command)
    # As decorators leave them: the last option first.
    made.__click_params__ = getattr(command, "__click_params__", []) + [
        param
        for param in reversed(run_command.params)
        if isinstance(param, click.Option) and param.name not in _OF_A_RUN_ALONE
    ]
    return cast("Command", made)


@click.command()
@options_of_run
@click.option(
    "--read-prices",
    is_flag=True,
    help="Read every price file, also of more than 200 symbols: of those, files touched since they were measured "
    "are taken for new, and those that nothing was measured on are not read.",
)
def plan_command(
    symbols: tuple[str, ...],
    everything: bool,
    symbols_file: Path | None,
    due: bool,
    as_before: bool,
    on: str | None,
    environments: tuple[str, ...],
    as_json: bool,
    db: str | None,
    read_prices: bool,
    **values: Any,
) -> None:
    """Say what `run` with the same options would measure, build, reuse and take, before it starts.

    \b
    autotune plan --all
    autotune plan --all --due --data ./prices
    autotune plan --symbol AMD --symbol BTCUSD --profile accuracy --json
    autotune plan --all --on ray

    Nothing is measured, compiled or written. Other machines that the store knows are named, too; with --on the
    environments of the cluster.
    """
    fields = {field.name for field in dataclasses.fields(RunOptions)}
    run_options = RunOptions(**{name: value for name, value in values.items() if name in fields})
    most = peak_bytes(run_options)  # asked of the container once, not for every symbol
    run_options = dataclasses.replace(run_options, memory_limit_mb=None if most is None else most >> 20)
    refuse_contradictions(on, environments, run_options)
    wanted = named_symbols(symbols, everything, symbols_file)
    left_out = say_passed_over(run_options.prices.path) if everything else ()
    with _store(store_location(db)) as store:
        wanted = wanted or all_symbols(run_options.prices.path, store, due=due)
        wishes = _Wishes(
            symbols=wanted, options=run_options, due=due, as_before=as_before, read_prices=read_prices
        )
        planned = _here(wishes, store) if on is None else _on_cluster(on, environments, wishes, store)
    rows = [row for each in planned if each.is_asked for row in each.rows]
    faults = [f"{row.symbol}: {row.fault}" for row in rows if row.fault]
    if len(rows) == 1 and rows[0].fault:
        raise AutotuneError(rows[0].fault)
    from autotuner.report.plan_view import plan_document, plan_lines

    if as_json:
        passed = {"passed_over": list(left_out)} if everything else {}
        options.print_json(plan_document(planned) | passed)
    else:
        for part in plan_lines(planned):
            options.print_table(part)
    if faults:
        raise AutotuneError("; ".join(faults))


@dataclass(frozen=True, kw_only=True)
class _Wishes:
    """What the options ask for."""

    symbols: tuple[str, ...]
    options: RunOptions
    due: bool
    as_before: bool
    read_prices: bool


def _here(wishes: _Wishes, store: Store) -> tuple[Planned, ...]:
    from autotuner.commands.plan import plan

    replays = _replays(wishes.options)
    return plan(list(_asked(wishes, store)), store, replays=replays, read_prices=wishes.read_prices)


def _on_cluster(on: str, environments: Sequence[str], wishes: _Wishes, store: Store) -> tuple[Planned, ...]:
    """As ``run --on`` would place it; the nodes are only looked at."""
    from autotuner.cli.fleet_progress import PlainFleetProgress
    from autotuner.commands.plan import Nodes
    from autotuner.commands.plan_cluster import plan_on
    from autotuner.fleet.nodes import devices_of
    from autotuner.machine.process import this_host

    with connected(
        on,
        environments,
        device=wishes.options.device,
        models=wishes.options.models,
        store=store.location,
        audience=PlainFleetProgress(),
    ) as (_, fleet):
        found = fleet.environments
    asked = []
    for nodes in found.values():
        first, hosts = nodes[0], tuple(node.host for node in nodes)
        here = set(hosts) == {this_host()} and first.facts == _facts_here(wishes.options)
        told = Nodes(
            label=first.label,
            hosts=hosts,
            devices=devices_of(nodes),
            here=here,
            facts_for=first.facts_for,
        )
        asked.append((told, list(_asked(wishes, store, first.facts))))
    return plan_on(asked, store, read_prices=wishes.read_prices)


def _facts_here(run_options: RunOptions) -> Environment | None:
    from autotuner.environment import current_environment

    try:
        return current_environment(run_options.device)
    except AutotuneError:  # a driver without a card plans for nodes that have some
        return None


def _asked(wishes: _Wishes, store: Store, environment: Environment | None = None) -> Iterator[Asked]:
    """What is to be done in an environment, this machine's unless given."""
    from autotuner.commands.plan_rows import Asked

    symbols, run_options = wishes.symbols, wishes.options
    if wishes.due:
        for symbol, before, reason in each_due(symbols, run_options, store, environment):
            requests = requests_of(symbol, run_options, before) if reason else ()
            yield Asked(symbol=symbol, requests=requests, due=reason)
    elif wishes.as_before:
        for symbol, before in each_as_before(symbols, run_options, store, environment):
            yield Asked(symbol=symbol, requests=requests_of(symbol, run_options, before))
    else:
        alike = requests_of(symbols[0], run_options)
        for symbol in symbols:
            requests = tuple(dataclasses.replace(request, symbol=symbol) for request in alike)
            yield Asked(symbol=symbol, requests=requests)


def _replays(run_options: RunOptions) -> Replays | None:
    table = run_options.replay
    if table is None:
        return None
    from autotuner.commands.replay import replay_plan

    found: Callable[..., Any] = lambda request: replay_plan(request, table)  # noqa: E731 - a table is bound
    return found


@contextlib.contextmanager
def _store(location: str) -> Iterator[Store]:
    """The store there; an empty one that is gone afterwards where a run would make it."""
    from autotuner.store import Store

    if not is_file(location) or store_path(location).exists():
        with Store(location, publish=False) as store:
            yield store
        return
    with held_folder() as folder, Store(str(folder / "autotune.db"), publish=False) as store:
        yield store
