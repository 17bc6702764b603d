"""Lists the configurations a search may try for a workload; combinations that come to the same are one."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotuner.workload import Workload
from toto_core.settings import (
    COMPILE_MODES,
    COMPILE_SCOPES,
    DEFAULT_RECOMPILE_LIMIT,
    KnobValue,
    RuntimeSettings,
    SettingsFacts,
    canonical,
    round_up,
)

Value = KnobValue
Candidates = Mapping[tuple[Value, ...], tuple[Value, ...]]
"""For each combination of canonical values of some fields a raw one that comes to it, itself where that is one."""

_EAGER_FIELDS = ("precision", "series_per_batch", "samples_per_batch", "num_threads")
"""What makes a difference in eager mode, too."""
_COMPILED_BASE = RuntimeSettings(compile_mode="default")
_GROUPS: tuple[tuple[str, ...], ...] = (
    ("compile_mode",),
    ("precision",),
    ("freezing", "compile_scope"),  # weights can be frozen into a whole graph only
    ("recompile_limit", "context_bucket", "dynamic"),  # which of these matter depends on the other two
    ("series_per_batch",),
    ("samples_per_batch",),
    ("num_threads",),
)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Candidate values per field, and the distinct canonical configurations (``keys``) they come to.

    ``knobs`` are fields that depend on each other, with the ``Candidates`` of their values in that order. ``facts``
    is None for a space made of given configurations, each of which is its own canonical form.
    """

    choices: Mapping[str, tuple[Value, ...]]
    keys: tuple[RuntimeSettings, ...]
    knobs: Mapping[tuple[str, ...], Candidates]
    facts: SettingsFacts | None = None

    @classmethod
    def of(cls, keys: Iterable[RuntimeSettings]) -> SearchSpace:
        """The space of exactly these configurations. Raises ``ValueError`` when there are none."""
        given = tuple(dict.fromkeys(keys))
        if not given:
            raise ValueError("a search space needs at least one configuration")
        names = dict.fromkeys(name for key in given for name in key.flat)
        choices = {name: tuple(dict.fromkeys(key.value(name) for key in given)) for name in names}
        knobs: dict[tuple[str, ...], Candidates] = {
            (name,): {(value,): (value,) for value in values} for name, values in choices.items()
        }
        return cls(choices=choices, keys=given, knobs=knobs)

    @property
    def raw_size(self) -> int:
        """Number of combinations of candidate values, aliases included."""
        return math.prod(len(values) for values in self.choices.values())

    @property
    def reference(self) -> RuntimeSettings:
        """Canonical form of uncompiled fp32; in a space of given configurations the first such one."""
        if self.facts is None:
            return next((k for k in self.keys if not k.compiled and k.precision == "fp32"), RuntimeSettings())
        return self.canonical(RuntimeSettings())

    @functools.cached_property
    def sampled(self) -> Mapping[str, tuple[Value, ...]]:
        """The fields that can differ at all, each with raw values worth proposing."""
        columns = {
            name: tuple(dict.fromkeys(raw[i] for raw in candidates.values()))
            for names, candidates in self.knobs.items()
            for i, name in enumerate(names)
        }
        return {name: columns[name] for name in self.choices if len(columns[name]) > 1}

    @functools.cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits that are equal for equal spaces."""
        explicit = self.keys if self.facts is None else ()
        text = repr((sorted(self.sampled.items()), self.facts, sorted(key.key for key in explicit)))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def __contains__(self, settings: RuntimeSettings) -> bool:
        return settings in self._members

    def canonical(self, settings: RuntimeSettings) -> RuntimeSettings:
        """The key that ``settings`` come to; ``settings`` themselves in a space of given configurations."""
        return settings if self.facts is None else canonical(settings, self.facts)

    def key_of(self, values: Mapping[str, Value]) -> RuntimeSettings | None:
        """The key of raw values of the sampled fields, None when it is none of ``keys``."""
        fixed = {name: values[0] for name, values in self.choices.items() if name not in self.sampled}
        key = self.canonical(RuntimeSettings.of({**fixed, **values}))
        return key if key in self else None

    def values_of(self, key: RuntimeSettings) -> dict[str, Value]:
        """Raw values of the sampled fields that come to ``key``; the inverse of ``key_of``."""
        raw: dict[str, Value] = {}
        for names, candidates in self.knobs.items():
            chosen = candidates.get(tuple(key.value(name) for name in names))
            # Any will do where the key ignores these fields.
            raw.update(zip(names, chosen or next(iter(candidates.values())), strict=True))
        return {name: raw[name] for name in self.sampled}

    def describe(self) -> str:
        """One line for people."""
        if self.facts is None:
            return f"{len(self.keys):,} given configurations"
        return (
            f"{self.raw_size:,} combinations, {len(self.keys):,} distinct keys on {self.facts.device} "
            f"for this workload"
        )

    @functools.cached_property
    def _members(self) -> frozenset[RuntimeSettings]:
        return frozenset(self.keys)


def search_space(workload: Workload, facts: SettingsFacts) -> SearchSpace:
    """Everything worth trying for ``workload`` under ``facts``."""
    choices: dict[str, tuple[Value, ...]] = {
        "compile_mode": COMPILE_MODES,
        "precision": facts.precisions,
        "recompile_limit": (2, DEFAULT_RECOMPILE_LIMIT, 64),
        "series_per_batch": _powers_up_to(workload.series_per_call),
        "samples_per_batch": _samples(workload, facts),
        "context_bucket": _buckets(workload, facts),
        "dynamic": (False, True),
        "freezing": (False, True),
        "compile_scope": COMPILE_SCOPES,
        "num_threads": _powers_up_to(facts.threads) if facts.device == "cpu" else (None,),
    }
    choices |= dict(facts.knobs)
    groups = (*_GROUPS, *((name,) for name, _ in facts.knobs))
    knobs = {names: _candidates(names, choices, facts) for names in groups}
    return SearchSpace(choices=choices, keys=_keys(knobs, facts), knobs=knobs, facts=facts)


def likely_winners(space: SearchSpace) -> tuple[RuntimeSettings, ...]:
    """Keys worth trying before anything is known: the cheapest compile mode with packed weights.

    Matrix products dominate on a CPU, and freezing is how inductor packs weights: that alone bought most of
    what compiling buys in the measurements this design rests on. Then packed ones in bf16, and plain weights,
    which are faster for a model that fits into the processor's caches. More would keep the search from
    going where these point (benchmarks/search.py). On a GPU launching the kernels takes longer than running them,
    and CUDA graphs launch all of a call at once.
    """
    if space.facts is not None and space.facts.device != "cpu":
        graphs = RuntimeSettings(compile_mode="reduce-overhead")
        best = graphs.replace(compile_mode="max-autotune", precision="bf16")
        wanted = (graphs.replace(precision="bf16"), graphs, best)
        return tuple(dict.fromkeys(key for key in map(space.canonical, wanted) if key in space))
    packed = RuntimeSettings(compile_mode="default", freezing=True)
    wanted = (packed, packed.replace(precision="bf16"), packed.replace(freezing=False))
    return tuple(dict.fromkeys(key for key in map(space.canonical, wanted) if key in space))


def _candidates(
    names: Sequence[str], choices: Mapping[str, Sequence[Value]], facts: SettingsFacts
) -> Candidates:
    candidates: dict[tuple[Value, ...], tuple[Value, ...]] = {}
    for raw in itertools.product(*(choices[name] for name in names)):
        changed = _COMPILED_BASE.flat | dict(zip(names, raw, strict=True))
        key = canonical(RuntimeSettings.of(changed), facts)
        values = tuple(key.value(name) for name in names)
        candidates[values] = raw if raw == values else candidates.get(values, raw)
    return candidates


def _keys(knobs: Mapping[tuple[str, ...], Candidates], facts: SettingsFacts) -> tuple[RuntimeSettings, ...]:
    """Every combination of canonical values; eager mode, which ignores most of them, once per distinct rest.

    Canonicalising the raw product gives the same keys, but takes seconds where this takes milliseconds.
    """
    names = list(itertools.chain.from_iterable(knobs))
    keys: dict[RuntimeSettings, None] = {}
    eager_rests = set()
    for combination in itertools.product(*knobs.values()):
        values: dict[str, Any] = dict(zip(names, itertools.chain.from_iterable(combination), strict=True))
        if values["compile_mode"] != "eager":
            keys[_settings(values, facts)] = None
            continue
        rest = tuple(values[n] for n in (*_EAGER_FIELDS, *dict(facts.knobs)))
        if rest not in eager_rests:
            eager_rests.add(rest)
            keys[canonical(_settings(values, facts), facts)] = None
    return tuple(keys)


def _settings(values: Mapping[str, Any], facts: SettingsFacts) -> RuntimeSettings:
    """Canonical values as settings: a knob at its default is None among them, and absent in settings."""
    absent = {name for name, _ in facts.knobs if values[name] is None}
    return RuntimeSettings.of({name: value for name, value in values.items() if name not in absent})


def _powers_up_to(most: int) -> tuple[int, ...]:
    powers = (2**exponent for exponent in range(most.bit_length()))
    return tuple(dict.fromkeys((*powers, most)))


def _samples(workload: Workload, facts: SettingsFacts) -> tuple[int | None, ...]:
    """All at once, a quarter, a sixteenth; only decoding beyond one patch can be split."""
    if workload.longest_prediction <= facts.patch_size:
        return (None,)
    parts = (round(facts.most_samples / share) for share in (4, 16))
    return (None, *dict.fromkeys(part for part in parts if 1 <= part < facts.most_samples))


def _buckets(workload: Workload, facts: SettingsFacts) -> tuple[int, ...]:
    """No bucket, the longest padded context, and between several contexts a power of two of patches."""
    padded = sorted({facts.padded(shape.context_length, 0) for shape in workload.shapes})
    shortest, longest = padded[0], padded[-1]
    if shortest == longest:
        return (0, longest)
    middle = facts.patch_size * 2 ** round(math.log2(math.sqrt(shortest * longest) / facts.patch_size))
    return tuple(dict.fromkeys((0, round_up(middle, facts.patch_size), longest)))
