"""Entry point of a daemon's child that speaks to its cluster: jobs in as JSON lines, what becomes of them out."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from autotuner.errors import AutotuneError, one_line

if TYPE_CHECKING:
    from autotuner.fleet.cluster import Cluster
    from autotuner.fleet.driver import Ended
    from autotuner.fleet.nodes import Fleet, Node
    from autotuner.fleet.orders import Order
    from autotuner.fleet.station import Task
    from autotuner.store import Store


def main(arguments: list[str]) -> None:
    """Serve until standard input ends.

    ``arguments`` are the lifeline's descriptor and ``daemon.cluster.Owned`` as JSON; the store's address is a
    variable.
    """
    from autotuner.measurement.child.guard import die_with_parent
    from storage.errors import StorageError
    from storage.patience import RUN_SECONDS, patience

    die_with_parent(int(arguments[0]))
    answers = _own_output()
    try:
        with patience(RUN_SECONDS, _say, opening=True):
            _serve(json.loads(arguments[1]), answers)
    except KeyboardInterrupt:
        _say("Error: stopped")
        sys.exit(1)
    except (AutotuneError, StorageError) as error:
        _say(f"Error: {error}")
        sys.exit(1)


def _own_output() -> TextIO:
    """Standard output for answers alone: what libraries print there, native code too, goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _serve(owned: dict[str, Any], answers: TextIO) -> None:
    from autotuner.cli.fleet_nodes import connected
    from autotuner.paths import store_location
    from autotuner.store import Store

    talk = _Talk(answers)
    location = store_location(None)
    with (
        Store(location, publish=False) as store,
        connected(
            owned["on"],
            owned["environments"],
            device=owned["device"],
            models=list(filter(_is_found, owned["models"])),
            store=location,
            audience=talk,
        ) as (cluster, fleet),
    ):
        talk.answer(places=_places(fleet))
        for line in sys.stdin:
            jobs = [Job(**each) for each in json.loads(line)]
            _work(jobs, cluster, fleet, store, talk, device=owned["device"])
            talk.answer(done=True)


def _is_found(model: str) -> bool:
    """Whether a model is there: one that is not fails its own runs and holds up no others."""
    from autotuner.engines.registry import engine_for
    from toto_core.model_folder import CheckpointError

    try:
        engine_for(model, None)
    except (AutotuneError, CheckpointError):
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class Job:
    """One of a batch, as the daemon asks for it."""

    environment: str
    seconds: float
    arguments: list[str]


@dataclass
class _Talk:
    """What the daemon hears; ``jobs`` are the numbers of the orders."""

    answers: TextIO
    jobs: dict[Order, int] = field(default_factory=dict)

    def answer(self, **event: Any) -> None:
        self.answers.write(f"{json.dumps(event)}\n")
        self.answers.flush()

    def tell(self, line: str) -> None:
        """Something about nodes."""
        _say(line)

    def begun(self, order: Order, host: str) -> None:
        """A run is put on a node."""
        self.answer(job=self.jobs[order], host=host)

    def said(self, order: Order, host: str, line: str) -> None:
        """A line of a run."""

    def ended(self, ended: Ended) -> None:
        """An order has ended."""
        self.refuse(self.jobs[ended.order], ended.reason, ended.document)

    def refuse(self, job: int, cause: str, document: dict[str, Any] | None = None) -> None:
        """How a job ended."""
        self.answer(job=job, document=document, cause=cause.removeprefix("Error: "))


def _work(
    jobs: Sequence[Job], cluster: Cluster, fleet: Fleet, store: Store, talk: _Talk, *, device: str
) -> None:
    from autotuner.cli.fleet import proven
    from autotuner.fleet.driver import drive
    from autotuner.fleet.orders import Schedule

    orders = list(_orders(jobs, fleet, store, talk))

    def task_of(order: Order) -> Task:
        return _task(jobs[talk.jobs[order]], fleet, store, device)

    for _ in drive(fleet, cluster, Schedule(orders, proven(orders, store)), task_of=task_of, audience=talk):
        pass  # each was told of as it ended


def _orders(jobs: Sequence[Job], fleet: Fleet, store: Store, talk: _Talk) -> Iterator[Order]:
    from toto_core.model_folder import CheckpointError

    talk.jobs.clear()
    environments = fleet.environments
    for number, job in enumerate(jobs):
        try:
            if job.environment not in environments:
                raise AutotuneError("its environment has no node any more")
            order = _order(job, environments[job.environment][0], store)
        except (AutotuneError, CheckpointError, ValueError) as error:
            talk.refuse(number, one_line(str(error)))
            continue
        talk.jobs[order] = number
        yield order


def _order(job: Job, node: Node, store: Store) -> Order:
    from autotuner.cli.fleet import order_of
    from autotuner.fleet.nodes import called
    from autotuner.fleet.orders import Order

    command, *arguments = job.arguments
    if command == "recheck":  # nobody waits for it
        return Order(
            symbol=arguments[0],
            environment=node.environment,
            place=called(node),
            results=(("recheck", arguments[0], node.environment),),
        )
    symbol, run_options, as_before = _parsed(arguments)
    (before,) = _before(symbol, run_options, store, node) if as_before else (None,)
    return order_of(symbol, (before,), run_options, node)


def _parsed(arguments: list[str]) -> tuple[str, Any, bool]:
    """A command line of ``run`` as that reads it: symbol, options, and whether they are to be as before."""
    import click

    from autotuner.cli.run import run_command
    from autotuner.cli.run_options import RunOptions
    from toto_core.prices.options import PriceSource

    fields = {each.name for each in dataclasses.fields(RunOptions)} - {"prices"}
    try:
        with run_command.make_context("run", list(arguments)) as context:
            given = dict(context.params)
    except click.ClickException as error:
        raise AutotuneError(error.format_message()) from None
    run_options = RunOptions(
        **{name: value for name, value in given.items() if name in fields}, prices=PriceSource()
    )
    (symbol,) = given["symbols"]
    return symbol, run_options, given["as_before"]


def _before(symbol: str, run_options: Any, store: Store, node: Node) -> tuple[Any]:
    from autotuner.cli.due import each_as_before
    from autotuner.record_mapping import stored_of

    with stored_of(symbol):  # what is wrong with one holds up no other
        ((_, before),) = each_as_before((symbol,), run_options, store, node.facts)
    return (before,)


def _task(job: Job, fleet: Fleet, store: Store, device: str) -> Task:
    from autotuner.cli.fleet_nodes import task

    command, *arguments = job.arguments
    return task(
        (command, "--json", *arguments),
        environment=job.environment,
        fleet=fleet,
        store=store.location,
        device=device,
        seconds=job.seconds,
    )


def _places(fleet: Fleet) -> list[dict[str, Any]]:
    """The environments, each with a name of its own, as labels may be given twice, and with those of its engines."""
    from autotuner.fleet.nodes import called

    groups = list(fleet.environments.values())
    counts = Counter(called(nodes[0]) for nodes in groups)
    found = []
    for nodes in groups:
        node, name = nodes[0], called(nodes[0])
        engines = dict.fromkeys(each for node in nodes for each in node.environments.values())
        found.append(
            {
                "name": name if counts[name] == 1 else f"{name} {node.environment}",
                "facts": dataclasses.asdict(node.facts),
                "engines": [dataclasses.asdict(each) for each in engines],
            }
        )
    return found


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
