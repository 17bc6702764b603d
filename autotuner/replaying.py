"""A bench that answers from a table of recorded measurements: the whole of a run without measuring anything."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

from autotuner.bench import Bench
from autotuner.measurement.recorded import seed_table
from autotuner.measurement.replay import Noise, ReplayRunner
from autotuner.search.objective import seed_profile
from autotuner.search.space import SearchSpace
from autotuner.session import TuneRequest


def replay_bench(request: TuneRequest, table: Path) -> tuple[TuneRequest, Bench]:
    """The request under a profile for unpaired tables, and a bench over ``table``'s rows of its symbol.

    Raises ``AutotuneError`` when the table cannot be read or has no row of the symbol.
    """
    recorded = seed_table(table, request.symbol)
    runner = ReplayRunner(recorded, Noise.none())
    ticks = itertools.count()
    bench = Bench(
        space=SearchSpace.of(recorded.entries),
        make_runner=lambda _: runner,
        clock=lambda: next(ticks) * 1e-3,  # a replay takes no time, so only its budget of trials ends it
        exclusive=False,
    )
    return dataclasses.replace(request, profile=seed_profile(request.profile)), bench
