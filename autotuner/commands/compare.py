"""Measures the plain compile modes of one symbol side by side: the hand-made comparison, for real."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autotuner.device_lock import alone
from autotuner.measurement.outcome import Outcome
from autotuner.store import Store, Subject
from autotuner.tuning.measuring import Bench
from toto_core.settings import COMPILE_MODES, RuntimeSettings

PROFILE = "compare"
"""Name under which such runs are stored; no profile of the search has it."""


@dataclass(frozen=True, kw_only=True)
class ModeResult:
    """One compile mode: the settings that were measured for it, the mode it is an alias of, and the outcome."""

    mode: str
    settings: RuntimeSettings
    alias_of: str | None
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All compile modes of one symbol; ``price_level`` is its newest price."""

    symbol: str
    price_level: float
    modes: tuple[ModeResult, ...]


def compare_modes(
    subject: Subject,
    bench: Bench,
    store: Store,
    *,
    device: str,
    price_level: float,
    seconds: float,
    say: Callable[[str], None],
) -> Comparison:
    """Measure every compile mode in fp32 beside eager fp32, reusing what is stored for the same prices.

    Modes that cannot differ on this device are measured once. An interrupt keeps what is measured. Raises
    ``AutotuneError`` or ``StorageError``.
    """
    end = time.monotonic() + seconds
    asked = {mode: bench.space.canonical(RuntimeSettings(compile_mode=mode)) for mode in COMPILE_MODES}
    run_id, _ = store.begin_run(subject, profile=PROFILE, seed=0, study=PROFILE, resume=False)
    known: dict[RuntimeSettings, Outcome] = {
        **store.known(subject, run_id=run_id, stage="search"),
        **store.known(subject, run_id=run_id, stage="compare"),
    }
    done = False
    try:
        with alone(store.records, device, seconds=seconds, say=say):
            runner = bench.make_runner(say)
            try:
                for settings in dict.fromkeys(asked.values()):
                    if settings in known:
                        continue
                    known[settings] = runner.measure(settings, seconds=max(1.0, end - time.monotonic()))
                    store.record(subject, run_id, settings, known[settings], "compare")
            finally:
                runner.close()
        done = True
    finally:
        store.end_run(run_id, "finished" if done else "failed")
    return Comparison(symbol=subject.symbol, price_level=price_level, modes=_by_mode(asked, known))


def _by_mode(
    asked: Mapping[str, RuntimeSettings], known: Mapping[RuntimeSettings, Outcome]
) -> tuple[ModeResult, ...]:
    first: dict[RuntimeSettings, str] = {}
    results = []
    for mode, settings in asked.items():
        alias_of = first.setdefault(settings, settings.compile_mode)
        results.append(
            ModeResult(
                mode=mode,
                settings=settings,
                alias_of=alias_of if alias_of != mode else None,
                outcome=known[settings],
            )
        )
    return tuple(results)
