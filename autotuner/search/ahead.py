"""Which configurations to compile together with the one that is wanted next."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from autotuner.search.gain_model import Outlook
from toto_core.settings import RuntimeSettings


def built_together(
    wanted: RuntimeSettings,
    following: Iterable[RuntimeSettings],
    outlooks: Sequence[Outlook],
    *,
    slots: int,
    seconds: float,
) -> tuple[RuntimeSettings, ...]:
    """``wanted`` and what ``slots`` processes may build meanwhile, in the order in which they should begin.

    First those that are sure to follow, then the others by expected gain per second, as long as each is expected to
    be done within ``seconds``. As many as there are slots, and then what fits in beside the longest of
    those: nothing is timed until all are done.
    """
    expected = {outlook.settings: outlook for outlook in outlooks if outlook.settings.compiled}
    by_promise = sorted(expected.values(), key=lambda outlook: -outlook.gain_per_second)
    sure = [key for key in following if key in expected]
    queue = dict.fromkeys([*sure, *(outlook.settings for outlook in by_promise if outlook.gain > 0)])
    queue.pop(wanted, None)
    begun = [wanted]
    free = [expected[wanted].seconds if wanted in expected else 0.0]
    longest = free[0]
    for key in queue:
        takes = expected[key].seconds
        starts = free[0] if len(free) == slots else 0.0
        if starts + takes > (longest if starts else seconds):
            continue
        if len(free) == slots:
            heapq.heapreplace(free, starts + takes)
        else:
            heapq.heappush(free, takes)
        longest = max(longest, starts + takes)
        begun.append(key)
    return tuple(begun)
