"""Which run comes next where: who searches first, who waits for a proof, and who is tried again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

MOST_TRIES = 3
"""How often a run is begun whose node, or whose process on it, is lost."""

Group = tuple[str, ...]
"""What symbols must have in common to share a proof: environment, profile, and workload of each model."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A run of one symbol in the environment of that fingerprint, which people know as ``place``.

    ``results`` are workload signature, profile and environment fingerprint of what it leaves in the store, once for
    each model: the fingerprint depends on the model's engine.
    """

    symbol: str
    environment: str
    place: str
    results: tuple[tuple[str, str, str], ...]

    @property
    def group(self) -> Group:
        """Of those that share a proof."""
        return self.environment, *(
            text for signature, profile, _ in self.results for text in (signature, profile)
        )


class Schedule:
    """Orders in their order, each environment by itself.

    Of each group the first order runs alone, because what it proves the others need only check; once it has finished
    all others may run at the same time. ``proven`` are groups for which a proof stands already.
    """

    def __init__(self, orders: Iterable[Order], proven: Collection[Group] = ()) -> None:
        self._queues: dict[str, list[Order]] = defaultdict(list)
        for order in orders:
            self._queues[order.environment].append(order)
        self._open = set(proven)
        self._leaders: dict[Group, Order] = {}
        self._under_way: set[Order] = set()
        self._lost: dict[Order, int] = defaultdict(int)

    @property
    def done(self) -> bool:
        """Whether nothing is left and nothing under way."""
        return not self._under_way and not any(self._queues.values())

    def waiting(self, environment: str) -> int:
        """How many orders of an environment are not begun."""
        return len(self._queues[environment])

    def next(self, environment: str) -> Order | None:
        """The order to begin now on a free device of an environment, None where each waits for a proof."""
        queue = self._queues[environment]
        for at, order in enumerate(queue):
            if order.group not in self._open:
                if order.group in self._leaders:
                    continue
                self._leaders[order.group] = order
            del queue[at]
            self._under_way.add(order)
            return order
        return None

    def ended(self, order: Order, *, finished: bool) -> None:
        """It has ended; one that failed leaves it to the next of its group to search first."""
        self._under_way.discard(order)
        if self._leaders.get(order.group) == order:
            del self._leaders[order.group]
            if finished:
                self._open.add(order.group)

    def lost(self, order: Order) -> bool:
        """Its node or process is gone: whether it is tried again, before all others."""
        self.ended(order, finished=False)
        self._lost[order] += 1
        if self._lost[order] >= MOST_TRIES:
            return False
        self._queues[order.environment].insert(0, order)
        return True

    def given_up(self, environment: str) -> tuple[Order, ...]:
        """Take back every order of an environment that is not begun."""
        return tuple(self._queues.pop(environment, ()))
