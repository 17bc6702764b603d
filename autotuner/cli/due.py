"""Which of a command's symbols are due, and what each was tuned for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from autotuner.cli import options
from autotuner.cli.run_options import RunOptions, TunedAs

if TYPE_CHECKING:
    from autotuner.environment import Environment
    from autotuner.store import Promotion, Store


def due_now(
    symbols: Sequence[str], run_options: RunOptions, store: Store
) -> list[tuple[str, TunedAs | None]]:
    """What is due of the symbols, each as it was tuned before: once for every profile and workload."""
    found: list[tuple[str, TunedAs | None]] = []
    for symbol, before, reason in each_due(symbols, run_options, store):
        options.note(f"{symbol}: {'due: ' + reason if reason else 'not due'}")
        if reason:
            found.append((symbol, before))
    return found


def each_due(
    symbols: Sequence[str], run_options: RunOptions, store: Store, environment: Environment | None = None
) -> Iterator[tuple[str, TunedAs | None, str | None]]:
    """Each symbol as it was tuned, and why it is due, None where it is not.

    That is in ``environment``, unless given this machine's.
    """
    from autotuner.daemon.due import Overdue
    from autotuner.environment import current_environment

    overdue = Overdue(store)
    environment, now = environment or current_environment(run_options.device), datetime.now(UTC)
    for symbol in symbols:
        for promotion in overdue.tuned_for(symbol, run_options.profile, environment) or (None,):
            reason = overdue.why(promotion, environment=environment, now=now)
            yield symbol, tuned_as(store, promotion) if reason else None, reason


def each_as_before(
    symbols: Sequence[str], run_options: RunOptions, store: Store, environment: Environment | None = None
) -> Iterator[tuple[str, TunedAs | None]]:
    """Each symbol as it was last tuned in ``environment``, this machine's unless given, or else anywhere."""
    from autotuner.environment import current_environment

    like = store.fingerprints_like(environment or current_environment(run_options.device))
    for symbol in symbols:
        yield symbol, tuned_as(store, store.active_in(symbol, run_options.profile, like))


def tuned_as(store: Store, promotion: Promotion | None) -> TunedAs | None:
    """What a promotion was tuned for, and on which prices."""
    if promotion is None:
        return None
    source = store.price_source(promotion)
    return TunedAs(profile=promotion.profile, workload=promotion.workload, prices=source)
