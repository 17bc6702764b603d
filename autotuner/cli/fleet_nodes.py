"""The nodes of the cluster that ``--on`` names, as ``run`` and ``plan`` find them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from autotuner.errors import UsageError
from autotuner.paths import is_file, store_path

if TYPE_CHECKING:
    from autotuner.cli.run_options import RunOptions
    from autotuner.fleet.cluster import Cluster
    from autotuner.fleet.nodes import Fleet, Teller


def refuse_contradictions(on: str | None, environments: Sequence[str], run_options: RunOptions) -> None:
    """Raise ``UsageError`` for options that make no sense with a cluster, or without one."""
    if on is None:
        if environments:
            raise UsageError("--environment chooses between the nodes of a cluster: name one with --on")
        return
    from autotuner.fleet.cluster import refuse_address

    refuse_address(on)
    if run_options.replay:
        raise UsageError("--replay measures nothing: leave out --on")


@contextlib.contextmanager
def connected(
    on: str, environments: Sequence[str], run_options: RunOptions, store: str, audience: Teller
) -> Iterator[tuple[Cluster, Fleet]]:
    """A cluster, and those of its nodes that such runs can be put on; ``audience`` hears of each.

    ``environments`` are fingerprints and labels, none for all of the cluster; ``store`` is the store's location.
    Raises ``AutotuneError`` when no node can be used.
    """
    from autotuner.fleet.cluster import Cluster
    from autotuner.fleet.nodes import Fleet, Wanted

    wanted = Wanted(
        device=run_options.device,
        engines=_engines(run_options.models),
        store=_file_of(store),
        environments=tuple(environments) or None,
    )
    with Cluster(on) as cluster:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has put its own there
        fleet = Fleet(cluster, wanted, audience)
        fleet.settle()
        yield cluster, fleet


def place_from_anywhere(store: str) -> str:
    """A store's location as it is from any folder."""
    return str(store_path(store).absolute()) if is_file(store) else store


def _file_of(store: str) -> str | None:
    """The path of a store that is a file, None of one that a run has yet to make."""
    return place_from_anywhere(store) if is_file(store) and store_path(store).exists() else None


def _engines(models: Sequence[str]) -> tuple[str, ...]:
    """The engines that may be needed: that of Toto 1.0, which stands for a node, and those of the models named."""
    from autotuner.engine_versions import TOTO1
    from autotuner.engines.registry import engine_for

    return tuple(dict.fromkeys((TOTO1, *(engine_for(model, None).name for model in models))))
