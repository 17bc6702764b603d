"""What a search begins with: the configurations tried before any other, and what needs no trial."""

from __future__ import annotations

from collections.abc import Iterable, Set

from autotuner.search.profiles import Profile
from autotuner.search.space import SearchSpace, likely_winners
from toto_core.settings import RuntimeSettings


def first_trials(
    space: SearchSpace, champion: RuntimeSettings | None, elsewhere: Iterable[RuntimeSettings]
) -> list[RuntimeSettings]:
    """What a run tries first: reference, bf16 eager, the champion, what won ``elsewhere``, the likely winners."""
    first = [space.reference, space.reference.replace(precision="bf16")]
    first += [champion] if champion else []
    first += elsewhere
    first += likely_winners(space)
    return [settings for settings in first if space.canonical(settings) in space]


def queued(
    space: SearchSpace, profile: Profile, first: Iterable[RuntimeSettings]
) -> tuple[RuntimeSettings, ...]:
    """The keys of ``first`` in their order; of a profile that does not search the reference alone."""
    return tuple(map(space.canonical, first if profile.searches else (space.reference,)))


def reused(
    space: SearchSpace,
    profile: Profile,
    queue: Iterable[RuntimeSettings],
    known: Set[RuntimeSettings],
) -> int:
    """How many keys that a search may try are answered from what is ``known``."""
    wanted = {*(space.keys if profile.searches else ()), *queue}
    return len(wanted & known)
