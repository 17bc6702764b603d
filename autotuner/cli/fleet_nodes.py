"""The nodes of the cluster that ``--on`` names, as ``run`` and ``plan`` find them."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from autotuner.cli.options import Command
from autotuner.daemon.cluster_address import refuse_address, refuse_environments, refuse_without_ray
from autotuner.errors import UsageError
from autotuner.paths import DATABASE_VARIABLE, is_file, store_path

if TYPE_CHECKING:
    from autotuner.cli.run_options import RunOptions
    from autotuner.fleet.cluster import Cluster
    from autotuner.fleet.nodes import Fleet, Teller
    from autotuner.fleet.station import Task


def on_options(tunes: str) -> tuple[Callable[[Command], Command], Callable[[Command], Command]]:
    """``--on`` and ``--environment``."""
    return (
        click.option(
            "--on",
            metavar="ray[://HOST[:PORT]]",
            help=f"{tunes} on the nodes of a Ray cluster, in each of its environments: ray is the cluster of this "
            "machine (RAY_ADDRESS), ray://HOST another one.",
        ),
        click.option(
            "--environment",
            "environments",
            multiple=True,
            metavar="NAME",
            help="With --on: only nodes of this environment, by label or fingerprint; may be given again.",
        ),
    )


def refuse_without_cluster(on: str | None, environments: Sequence[str]) -> None:
    """Raise ``UsageError`` for what is no address of a cluster, and for environments of none."""
    if on is not None:
        refuse_address(on)
        refuse_environments(environments)
    elif environments:
        raise UsageError("--environment chooses between the nodes of a cluster: name one with --on")


def refuse_contradictions(on: str | None, environments: Sequence[str], run_options: RunOptions) -> None:
    """Raise ``UsageError`` for options that make no sense with a cluster, or without one.

    ``AutotuneError`` where Ray is not installed.
    """
    refuse_without_cluster(on, environments)
    if on is None:
        return
    refuse_without_ray()
    if run_options.replay:
        raise UsageError("--replay measures nothing: leave out --on")


@contextlib.contextmanager
def connected(
    on: str,
    environments: Sequence[str],
    *,
    device: str,
    models: Sequence[str],
    store: str,
    audience: Teller,
) -> Iterator[tuple[Cluster, Fleet]]:
    """A cluster, and those of its nodes that such runs can be put on; ``audience`` hears of each.

    ``environments`` are fingerprints and labels, none for all of the cluster; ``models`` those that are named, whose
    engines each node is asked for; ``store`` is the store's location.
    Raises ``AutotuneError`` when no node can be used.
    """
    from autotuner.fleet.cluster import Cluster
    from autotuner.fleet.nodes import Fleet, Wanted

    wanted = Wanted(
        device=device,
        engines=_engines(models),
        store=_file_of(store),
        environments=tuple(environments) or None,
    )
    with Cluster(on) as cluster:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has put its own there
        fleet = Fleet(cluster, wanted, audience)
        fleet.settle()
        yield cluster, fleet


def task(
    arguments: Sequence[str],
    *,
    environment: str,
    fleet: Fleet,
    store: str,
    device: str,
    seconds: float = math.inf,
) -> Task:
    """A command for a node of an environment; ``store`` is the store's location."""
    from autotuner.fleet.station import Task

    return Task(
        arguments=tuple(arguments),
        variables={DATABASE_VARIABLE: _from_anywhere(store)},
        device=device,
        engine=fleet.engine,
        fingerprint=environment,
        seconds=seconds,
    )


def _from_anywhere(store: str) -> str:
    """A store's location as it is from any folder."""
    return str(store_path(store).absolute()) if is_file(store) else store


def _file_of(store: str) -> str | None:
    """The path of a store that is a file, None of one that a run has yet to make."""
    return _from_anywhere(store) if is_file(store) and store_path(store).exists() else None


def _engines(models: Sequence[str]) -> tuple[str, ...]:
    """The engines that may be needed: that of Toto 1.0, which stands for a node, and those of the models named."""
    from autotuner.engines.registry import engine_for
    from autotuner.machine.engine_versions import TOTO1

    return tuple(dict.fromkeys((TOTO1, *(engine_for(model, None).name for model in models))))
