"""``Figures``: what a promotion rests on: measured, stored, exported and shown in one form, and checked when read."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from autotuner.measurement.outcome import Conditions, Interval, Measured, ShapeTiming
from autotuner.serving import plain_values
from autotuner.serving.canary import Canary
from autotuner.workload import Workload
from toto_core.compile_report import CompileReport
from toto_core.prices.options import PriceOptions, PriceSource

Stage = Literal["search", "duel", "shared"]
"""What was measured: one trial of a search, which only ranks; launches of a duel; one launch that agrees with the
duel of another symbol."""
_PAST_PROMISE = "is past the promised"
"""What the reason of a latency trigger says, by which versions that stored no triggers are understood."""
_LONGEST_LIST = 1_000


class FiguresError(ValueError):
    """Stored or imported figures are none; the message is one line that names the field."""


@dataclass(frozen=True, kw_only=True)
class SharedFrom:
    """Whose duel proved the configuration: ``promotion`` is its line of the ledger, ``ratio`` what it proved."""

    symbol: str
    ratio: Interval
    promotion: int | None = None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is known of a promoted configuration; None for what was not measured.

    ``ratio`` is reference time over its time (above 1 is faster), over ``launches`` launches, and ``launch_ratios``
    that of each by itself, empty in what older versions stored. Times are in milliseconds, weighted over request
    shapes; ``shapes`` are those of each shape. ``drift``, ``quantile_shift`` and the errors are those of
    ``measurement.outcome.Accuracy``. The cold start compiled while at most ``built_beside`` others did, none where
    that is None. ``reproduced`` is how many launches answered a fixed request bit for bit as the process that
    compiled, ``prices`` where the prices lay and how they were read, ``deadline_ms`` the deadline it was chosen to
    keep, ``because`` why it was tuned, in words; ``triggers`` are the kinds of the daemon's reasons; ``canary`` is
    there while only a share of the processes has it.
    """

    stage: Stage | None = None
    launches: int | None = None
    ratio: Interval | None = None
    launch_ratios: tuple[float, ...] = ()
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    sigma_time_ms: float | None = None
    shapes: tuple[ShapeTiming, ...] = ()
    drift: float | None = None
    quantile_shift: float | None = None
    mae: float | None = None
    mae_reference: float | None = None
    sigma_mae: float | None = None
    cold_start_ms: float | None = None
    built_beside: int | None = None
    warm_start_ms: float | None = None
    peak_bytes: int | None = None
    compile_report: CompileReport | None = None
    conditions: Conditions | None = None
    reproduced: int | None = None
    shared_from: SharedFrom | None = None
    prices: PriceSource | None = None
    deadline_ms: float | None = None
    because: str | None = None
    triggers: tuple[str, ...] = ()
    canary: Canary | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is seldom there is left out where it is not."""
        canary = None if self.canary is None else self.canary.to_dict()
        fields = _plain(self) | {"canary": canary}
        return {
            name: value for name, value in fields.items() if value not in (None, ()) or name not in _SELDOM
        }

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict())

    @property
    def won_a_duel(self) -> bool:
        """Whether a duel proved it, its own or another symbol's."""
        return self.stage in ("duel", "shared")

    @property
    def promised_ms(self) -> tuple[float | None, float | None]:
        """Upper ends of the promised p50 and p99: the figures times what the ratio's interval leaves open."""
        if self.ratio is None or self.p50_ms is None or not self.ratio.low > 0:
            return None, None
        left_open = max(1.0, self.ratio.estimate / self.ratio.low)
        return self.p50_ms * left_open, None if self.p99_ms is None else self.p99_ms * left_open


_SELDOM = frozenset(
    {
        "launch_ratios",
        "built_beside",
        "reproduced",
        "shared_from",
        "prices",
        "deadline_ms",
        "because",
        "triggers",
        "canary",
    }
)


def _plain(value: Any) -> Any:
    """``dataclasses.asdict`` of figures in a fraction of its time: they hold numbers, texts, and tuples of such."""
    if isinstance(value, tuple):
        return tuple(_plain(each) for each in value)
    names = getattr(type(value), "__dataclass_fields__", None)
    return value if names is None else {name: _plain(getattr(value, name)) for name in names}


def trial_figures(measured: Measured, workload: Workload) -> Figures:
    """The figures of a search trial, which only rank and promise nothing."""
    return with_trial(
        times(measured.timings, workload.weights), measured, stage="search", launches=1, ratio=measured.ratio
    )


def with_trial(figures: Figures, measured: Measured, **others: Any) -> Figures:
    """``figures`` with what only a trial measures: accuracy, starts, memory, compile report; ``others`` over it."""
    names = ("drift", "quantile_shift", "mae", "mae_reference", "sigma_mae")
    return dataclasses.replace(
        figures,
        **{name: getattr(measured.accuracy, name) for name in names},
        cold_start_ms=measured.cold_start_ms,
        built_beside=measured.built_beside or None,
        warm_start_ms=measured.warm_start_ms if figures.warm_start_ms is None else figures.warm_start_ms,
        peak_bytes=measured.peak_bytes,
        compile_report=measured.report,
        conditions=figures.conditions or measured.conditions,
        **others,
    )


def times(timings: Sequence[ShapeTiming], weights: Sequence[float]) -> Figures:
    """Latencies weighted over request shapes, and each shape's own."""

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        return sum(weight * value for weight, value in zip(weights, known, strict=True))

    return Figures(
        p50_ms=mean([t.p50_ms for t in timings]),
        p95_ms=mean([t.p95_ms for t in timings]),
        p99_ms=mean([t.p99_ms for t in timings]),
        sigma_time_ms=mean([t.sigma_ms for t in timings]),
        shapes=tuple(timings),
    )


def figures_from_json(text: str) -> Figures:
    """The inverse of ``Figures.to_json``. Raises ``FiguresError``, as ``parse_figures`` does."""
    try:
        value = json.loads(text)
    except (RecursionError, ValueError) as error:  # also a number of more digits than Python converts
        raise FiguresError(f"the figures are not JSON: {error}") from None
    return parse_figures(value)


def parse_figures(value: object) -> Figures:
    """Figures from plain values, those of older versions included; unknown fields are left out.

    Raises ``FiguresError`` for a known field of another kind, and for a number that is not finite.
    """
    try:
        figures: Figures = _read(Figures, value, "figures")
    except plain_values.WrongValue as error:
        raise FiguresError(str(error)) from None
    if figures.because and not figures.triggers and _PAST_PROMISE in figures.because:
        return dataclasses.replace(figures, triggers=("latency",))
    return figures


def _read(kind: Any, value: object, where: str) -> Any:
    readers, defaults, required = _readers(kind)
    found = dict(defaults)
    for name, part in plain_values.fields(value, where).items():
        read = readers.get(name)
        if part is None or read is None:
            continue
        # Most fields are such numbers, and a store holds thousands of figures: for these nothing is called.
        plain = (read is _NUMBER and type(part) is float and part - part == 0) or (
            read is _WHOLE and type(part) is int and 0 <= part <= _LARGEST
        )
        found[name] = part if plain else read(part, f"{where}.{name}")
    missing = required - found.keys()
    if missing:
        raise FiguresError(f"{where}: without {', '.join(sorted(missing))}")
    if hasattr(kind, "__post_init__"):
        return _checked(kind, found, where)
    made = object.__new__(kind)  # past the __init__, which takes as long as all of the above
    vars(made).update(found)
    return made


def _checked(kind: Any, found: Mapping[str, Any], where: str) -> Any:
    try:
        return kind(**found)
    except (TypeError, ValueError) as error:  # beyond what its type allows
        raise FiguresError(f"{where}: {error}") from None


_NUMBER, _WHOLE, _LARGEST = plain_values.number, plain_values.whole, plain_values.LARGEST


@functools.cache
def _readers(
    kind: Any,
) -> tuple[Mapping[str, Callable[[object, str], Any]], Mapping[str, Any], frozenset[str]]:
    """How to read each field, what those hold that are not given, and which must be."""
    fields = dataclasses.fields(kind)
    readers = {field.name: _READERS[str(field.type).removesuffix(" | None")] for field in fields}
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    return readers, defaults, frozenset(readers) - frozenset(defaults)


def _stage(value: object, where: str) -> str:
    if value in get_args(Stage):
        return str(value)
    raise FiguresError(f"{where}: must be one of {', '.join(get_args(Stage))}")


def _tuple_of(read: Callable[[object, str], Any]) -> Callable[[object, str], tuple[Any, ...]]:
    return lambda value, where: tuple(
        read(each, f"{where}[{place}]")
        for place, each in enumerate(plain_values.items(value, where, _LONGEST_LIST))
    )


def _of(kind: Any) -> Callable[[object, str], Any]:
    return lambda value, where: _read(kind, value, where)


def _canary(value: object, where: str) -> Canary:
    try:
        return Canary.from_dict(value)
    except ValueError as error:
        raise FiguresError(f"{where}: {error}") from None


_READERS: dict[str, Callable[[object, str], Any]] = {
    "float": plain_values.number,
    "int": plain_values.whole,
    "bool": plain_values.truth,
    "str": plain_values.text,
    "Stage": _stage,
    "Interval": _of(Interval),
    "Conditions": _of(Conditions),
    "CompileReport": _of(CompileReport),
    "SharedFrom": _of(SharedFrom),
    "Canary": _canary,
    "PriceOptions": _of(PriceOptions),
    "PriceSource": _of(PriceSource),
    "tuple[float, ...]": _tuple_of(plain_values.number),
    "tuple[str, ...]": _tuple_of(plain_values.text),
    "tuple[ShapeTiming, ...]": _tuple_of(_of(ShapeTiming)),
}
