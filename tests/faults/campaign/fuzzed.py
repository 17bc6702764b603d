"""Mutated notes, bundles, snapshots and rows: no traceback, no tick lost, and looking up stays quick."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.faults.campaign.table import Row, Size
from tests.faults.fuzzing import runs, stores
from tests.faults.fuzzing.target import Target, target
from tests.faults.fuzzing.targets import bundles, notes, snapshots
from tests.faults.fuzzing.targets import rows as edited_rows

SEED = 18
_FEW_COMMANDS = (("list",), ("show", "AMD"), ("explain", "AMD"), ("history", "--json"))


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """Of one kind of input: how many, how many are put in together, and what puts them in.

    The latter gives the longest that a look-up took afterwards, in seconds.
    """

    name: str
    what: str
    long: int
    short: int
    together: int
    put_in: Callable[[Sequence[bytes]], float]


def _each(put_in: Callable[[bytes], float]) -> Callable[[Sequence[bytes]], float]:
    return lambda inputs: max(put_in(data) for data in inputs)


_KINDS = (
    _Kind(
        name="notes",
        what="notes in the spool",
        long=50_000,
        short=500,
        together=100,
        put_in=lambda inputs: notes.taken_in(stores.fresh("notes"), inputs),
    ),
    _Kind(name="bundles", what="bundles", long=8_000, short=60, together=1, put_in=_each(bundles.put_in)),
    _Kind(
        name="snapshots", what="snapshots", long=38_000, short=390, together=1, put_in=_each(snapshots.put_in)
    ),
    _Kind(
        name="rows",
        what="rows of a store",
        long=4_000,
        short=50,
        together=5,
        put_in=lambda inputs: edited_rows.edited(stores.fresh("rows"), list(inputs), _FEW_COMMANDS),
    ),
)


def _row(kind: _Kind, size: Size) -> Row:
    """Put through as many mutations as the size asks for; the row says what the first that failed was."""
    chosen: Target = target(kind.name)
    chance, seeds = random.Random(f"{SEED} {kind.name} {size}"), chosen.seeds()
    wanted = kind.long if size == "long" else kind.short
    kind.put_in(seeds[: kind.together])  # imports what it needs before a look-up is timed
    began, held, worst, broken = time.monotonic(), 0, 0.0, ""
    for begin in range(0, wanted, kind.together):
        some = [
            chosen.mutated(chance.choice(seeds), chance) for _ in range(min(kind.together, wanted - begin))
        ]
        try:
            worst = max(worst, kind.put_in(some))
            held += len(some)
        except Exception as error:
            broken = broken or f"{type(error).__name__}: {' '.join(ascii(str(error)).split())[:200]}"
            _keep(kind.name, some)
    return Row(
        fault=f"mutated {kind.what}",
        times=wanted,
        held=held,
        broken=broken,
        measured=f"longest look-up {1000 * worst:.1f} ms of processor time",
        seconds=time.monotonic() - began,
    )


def _keep(name: str, inputs: Sequence[bytes]) -> None:
    """Each where the runner of fuzzing puts it through again."""
    runs.FOLDER.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (runs.FOLDER / f"{name}-{hashlib.sha256(data).hexdigest()[:10]}.input").write_bytes(data)


def rows(size: Size) -> Iterator[Row]:
    """One for each kind."""
    for kind in _KINDS:
        yield _row(kind, size)
