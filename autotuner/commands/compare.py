"""Measures every plain compile mode of a symbol beside eager fp32: what one would otherwise compare by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from autotuner.device_lock import Say
from autotuner.measurement.outcome import Outcome
from autotuner.search.profiles import profile
from autotuner.store import Store
from autotuner.tuning.measuring import Prepared, measuring, plan_measuring, prepare
from autotuner.workload import Workload
from storage.records import RunStatus
from toto_core.prices.options import PriceSource
from toto_core.series import PriceSeries
from toto_core.settings import COMPILE_MODES, RuntimeSettings

PROFILE = "compare"
"""Name under which such runs are stored; no profile of the search has it."""


@dataclass(frozen=True, kw_only=True)
class ModeResult:
    """One compile mode: the configuration measured for it, the mode that is the same here, and the outcome."""

    mode: str
    settings: RuntimeSettings
    alias_of: str | None
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All compile modes of one symbol on its prices."""

    series: PriceSeries
    modes: tuple[ModeResult, ...]

    @property
    def symbol(self) -> str:
        """Whose prices they are."""
        return self.series.symbol

    @property
    def price_level(self) -> float:
        """The newest price, without its sign."""
        return abs(float(self.series.close[-1]))


def compare(
    symbols: Iterable[str],
    workload: Workload,
    store: Store,
    *,
    prices: PriceSource,
    device: str,
    seconds: float,
    say: Callable[[str, str], None],
) -> list[Comparison]:
    """Measure every compile mode in fp32 beside eager fp32, reusing what is stored for the same prices.

    Each symbol has ``seconds``; ``say`` hears what goes on with one, its name first. Modes that cannot differ
    on this device are measured once. An interrupt keeps what is measured. Raises ``AutotuneError``,
    ``SeriesError``, ``CheckpointError`` or ``StorageError``, each with one line.
    """
    comparisons = []
    for symbol in dict.fromkeys(symbols):
        prepared = prepare(symbol, workload, prices=prices, device=device)
        for repair in prepared.series.repairs:
            say(symbol, f"{prepared.series.source}: {repair}")
        store.remember(prepared.subject, prepared.series)
        comparisons.append(_compared(prepared, store, seconds=seconds, say=partial(say, symbol)))
    return comparisons


def _compared(prepared: Prepared, store: Store, *, seconds: float, say: Say) -> Comparison:
    end, subject = time.monotonic() + seconds, prepared.subject
    plan = plan_measuring(prepared, profile=profile("production"))
    asked = {mode: plan.space.canonical(RuntimeSettings(compile_mode=mode)) for mode in COMPILE_MODES}
    run_id, _ = store.begin_run(subject, profile=PROFILE, seed=0, study=PROFILE, resume=False)
    known: dict[RuntimeSettings, Outcome] = {
        **store.known(subject, run_id=run_id, stage="search"),
        **store.known(subject, run_id=run_id, stage="compare"),
    }
    status: RunStatus = "failed"
    try:
        with measuring(plan, store, seconds=seconds, say=say) as under_way:
            for settings in dict.fromkeys(asked.values()):
                if settings in known:
                    continue
                left = max(1.0, end - time.monotonic())
                known[settings] = under_way.runner.measure(settings, seconds=left)
                store.record(subject, run_id, settings, known[settings], "compare")
        status = "finished"
    finally:
        store.end_run(run_id, status)
    modes = tuple(
        ModeResult(
            mode=mode,
            settings=settings,
            alias_of=None if settings.compile_mode == mode else settings.compile_mode,
            outcome=known[settings],
        )
        for mode, settings in asked.items()
    )
    return Comparison(series=prepared.series, modes=modes)
