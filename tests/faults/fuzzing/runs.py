"""Targets in turns for a time: what was put through, and each different finding with an input that shows it."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.fuzzing.target import NAMES, Target, Violation, put_through, target

FOLDER = Path(".autotune") / "fuzz"
"""Where inputs that show something are kept; git ignores it."""
_TURN_SECONDS = 3.0
_MOST_POOLED = 400
_OURS = ("/autotuner/", "/toto_core/", "/storage/")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What an input brought out: ``where`` is the innermost line of the product's, or of the target's."""

    target: str
    what: str
    where: str
    data: bytes

    @property
    def name(self) -> str:
        """One for all inputs that bring out the same."""
        kind = self.what.partition(":")[0]
        return f"{self.target}-{hashlib.sha256(f'{kind} {self.where}'.encode()).hexdigest()[:10]}"


@dataclass
class Tally:
    """What one target was given."""

    inputs: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    findings: dict[str, Finding] = field(default_factory=dict)
    again: int = 0


def tried(name: str, chosen: Target, data: bytes, *, bounded: bool = True) -> Finding | None:
    """Put one input through a target; what it brought out, None for nothing."""
    try:
        put_through(chosen, data, bounded=bounded)
    except Exception as error:
        return Finding(target=name, what=_said(error), where=_where(error), data=data)
    return None


def run(
    names: Sequence[str], seconds: float, said: Callable[[str], None], *, seed: int | None = None
) -> dict[str, Tally]:
    """Targets in turns, each with seeds, then mutations of seeds and of what was mutated, until the time is over.

    Ctrl-C is the end of the time.
    """
    chance = random.Random(seed)
    tallies = {name: Tally() for name in names or NAMES}
    end = time.monotonic() + seconds
    with contextlib.suppress(KeyboardInterrupt):
        pools = {name: _begin(name, tallies[name], said) for name in tallies}
        while time.monotonic() < end:
            for name, tally in tallies.items():
                _turn(name, tally, pools[name], end=end, chance=chance, said=said)
    return tallies


def _turn(
    name: str,
    tally: Tally,
    pool: list[bytes],
    *,
    end: float,
    chance: random.Random,
    said: Callable[[str], None],
) -> None:
    chosen, began, worked = target(name), time.monotonic(), time.process_time()
    until = min(end, began + _TURN_SECONDS)
    while time.monotonic() < until:
        data = chosen.mutated(chance.choice(pool), chance)
        count(tally, tried(name, chosen, data), said)
        tally.inputs += 1
        if len(pool) < _MOST_POOLED and chance.random() < 0.02:
            pool.append(data)
    tally.seconds += time.monotonic() - began
    tally.processor_seconds += time.process_time() - worked


def _begin(name: str, tally: Tally, said: Callable[[str], None]) -> list[bytes]:
    """The seeds, put through as they are, and what earlier runs found, which is to hold now."""
    chosen = target(name)
    seeds = list(chosen.seeds())
    earlier = [path.read_bytes() for path in sorted(FOLDER.glob(f"{name}-*.input"))]
    for data in (*seeds, *earlier):
        count(tally, tried(name, chosen, data, bounded=False), said)
        tally.inputs += 1
    return seeds


def count(tally: Tally, finding: Finding | None, said: Callable[[str], None]) -> None:
    """Add what an input brought out, if anything; the first of each kind is kept and said."""
    if finding is None:
        return
    if finding.name in tally.findings:
        tally.again += 1
        return
    tally.findings[finding.name] = finding
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{finding.name}.input").write_bytes(finding.data)
    said(f"FOUND {finding.name} at {finding.where}: {finding.what[:400]}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(ascii(str(error))[1:-1].split())}"


def _where(error: BaseException) -> str:
    if isinstance(error, Violation) and error.__cause__ is not None:
        return _where(error.__cause__)  # the line that made a message
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "verdicts.py" not in frame.filename
    ]
    ours = [
        frame
        for frame in frames
        if any(part in frame.filename for part in _OURS) and "/tests/" not in frame.filename
    ]
    last = (ours or frames)[-1]
    return f"{'/'.join(Path(last.filename).parts[-3:])}:{last.lineno} in {last.name}"
