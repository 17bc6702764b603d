"""``RuntimeSettings``: one way to run a Toto model, its canonical form and its JSON; needs no torch."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toto_core.knobs import Knobs, KnobValue, SettingsError, read_knobs

__all__ = [
    "COMMON_FIELDS",
    "COMPILE_MODES",
    "COMPILE_SCOPES",
    "CPU_ALIASES",
    "CUDA_GRAPH_MODES",
    "DEFAULT_RECOMPILE_LIMIT",
    "LONGEST_BUCKET",
    "PRECISIONS",
    "KnobValue",
    "RuntimeSettings",
    "SettingsError",
    "SettingsFacts",
    "canonical",
    "round_up",
]

COMPILE_MODES = ("eager", "default", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")
"""Simplest first: between equals the simpler one stays."""
CUDA_GRAPH_MODES = ("reduce-overhead", "max-autotune")
"""Compile modes in which torch records CUDA graphs."""
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
"""Most exact first, as far as a mantissa goes that also has fp32's range."""
COMPILE_SCOPES = ("full", "layer")
DEFAULT_RECOMPILE_LIMIT = 8
"""torch 2.13's own ``torch._dynamo.config.recompile_limit``."""
LONGEST_BUCKET = 1_000_000


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """One way to run a model; the default is the safe one: eager, fp32.

    compile_mode      one of ``COMPILE_MODES``.
    precision         of matrix products: ``fp32``; ``tf32`` (fp32 whose factors a GPU rounds to 10 bits of mantissa);
                      ``bf16`` or ``fp16`` (the transformer's layers; delicate parts stay fp32).
    recompile_limit   graphs one function may get before torch goes on in eager mode without a word.
    series_per_batch  series in one model call; a shorter batch is padded to it when compiled.
    samples_per_batch sample paths decoded together, None for all at once; bounds memory.
    context_bucket    compiled contexts are padded on the left to a multiple of this many time steps, 0 for
                      whole patches only.
    dynamic           compile for dynamic shapes.
    freezing          compile the weights in as packed constants (a whole graph only).
    compile_scope     ``full`` graph or one repeated ``layer``.
    num_threads       CPU threads of the process, None for torch's own choice within a container's quota.
    knobs             (name, value) of what only this model's engine has, by name; those at their default are absent.

    Raises ``SettingsError`` for a value outside its range.
    """

    compile_mode: str = "eager"
    precision: str = "fp32"
    recompile_limit: int = DEFAULT_RECOMPILE_LIMIT
    series_per_batch: int = 1
    samples_per_batch: int | None = None
    context_bucket: int = 0
    dynamic: bool = False
    freezing: bool = False
    compile_scope: str = "full"
    num_threads: int | None = None
    knobs: Knobs = ()

    def __post_init__(self) -> None:
        if self.knobs != ():
            object.__setattr__(self, "knobs", read_knobs(self.knobs, taken=type(self).__dataclass_fields__))
        _one_of("compile_mode", self.compile_mode, COMPILE_MODES)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("compile_scope", self.compile_scope, COMPILE_SCOPES)
        _whole("recompile_limit", self.recompile_limit, 1, 100_000)
        _whole("series_per_batch", self.series_per_batch, 1, 65_536)
        _whole("samples_per_batch", self.samples_per_batch, 1, 1_000_000, optional=True)
        _whole("context_bucket", self.context_bucket, 0, LONGEST_BUCKET)
        _whole("num_threads", self.num_threads, 1, 4096, optional=True)
        for name in ("dynamic", "freezing"):
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(f"settings: {name} must be true or false, not {getattr(self, name)!r}")

    @property
    def compiled(self) -> bool:
        """Whether these settings ask torch to compile at all."""
        return self.compile_mode != "eager"

    @functools.cached_property
    def key(self) -> str:
        """Readable text that is equal for equal settings and differs otherwise."""
        return " ".join(f"{name}={value}" for name, value in self.flat.items())

    @functools.cached_property
    def label(self) -> str:
        """Short text for people: mode and precision first, then whatever differs from the default."""
        default = RuntimeSettings()
        rest = [
            f"{name}={value}"
            for name, value in self.flat.items()
            if name not in {"compile_mode", "precision"} and value != getattr(default, name, None)
        ]
        return " ".join((self.compile_mode, self.precision, *rest))

    @property
    def complexity(self) -> tuple[int, int, int]:
        """Sorts simpler settings first: by mode, then precision, then how many other fields were changed."""
        return (
            COMPILE_MODES.index(self.compile_mode),
            PRECISIONS.index(self.precision),
            self.label.count("="),
        )

    @property
    def flat(self) -> dict[str, KnobValue]:
        """Every field and every knob by its name."""
        fields = {name: getattr(self, name) for name in COMMON_FIELDS}
        return {**fields, **dict(self.knobs)}

    def value(self, name: str) -> KnobValue:
        """Of a field, or of a knob, None where the knob is at its default."""
        return getattr(self, name) if name in _COMMON else dict(self.knobs).get(name)

    @classmethod
    def of(cls, flat: Mapping[str, Any]) -> RuntimeSettings:
        """The inverse of ``flat``: what is no field is a knob. Raises ``SettingsError``."""
        fields = {name: value for name, value in flat.items() if name in COMMON_FIELDS}
        return cls(**fields, knobs=tuple((name, flat[name]) for name in flat if name not in fields))

    def replace(self, **changes: Any) -> RuntimeSettings:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in declaration order; ``knobs`` by name, only where there are any."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in COMMON_FIELDS}
        return {**fields, "knobs": dict(self.knobs)} if self.knobs else fields

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RuntimeSettings:
        """Read plain values, absent ones as their default. Raises ``SettingsError`` for an unknown field or value."""
        if not isinstance(values, Mapping):
            raise SettingsError("settings: must be one object of fields")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            names = ", ".join(sorted(known))
            raise SettingsError(f"settings: unknown field {unknown[0]!r}; known are {names}")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> RuntimeSettings:
        """The inverse of ``to_json``. Raises ``SettingsError``."""
        try:
            return _from_json(text)
        except TypeError as error:
            raise SettingsError(f"settings: not JSON: {error}") from None


@functools.lru_cache(maxsize=1024)  # of thousands of symbols many run the same
def _from_json(text: str) -> RuntimeSettings:
    try:
        values = json.loads(text, object_pairs_hook=_each_once)
    except (RecursionError, ValueError) as error:
        raise SettingsError(f"settings: not JSON: {error}") from None
    return RuntimeSettings.from_dict(values)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name = next(name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place]))
        raise ValueError(f"{name!r} stands there twice")
    return fields


COMMON_FIELDS = tuple(field.name for field in dataclasses.fields(RuntimeSettings) if field.name != "knobs")
"""What settings of every engine have."""
_COMMON = frozenset(COMMON_FIELDS)
CPU_ALIASES: Mapping[str, str] = {
    "reduce-overhead": "default",
    "max-autotune-no-cudagraphs": "max-autotune",
}
"""Modes that are another one on a CPU, which has no CUDA graphs."""


@dataclass(frozen=True, kw_only=True)
class SettingsFacts:
    """What of a device and a workload decides which settings can differ at all.

    ``shapes`` are the distinct (context length, prediction length) pairs in time steps; ``most_samples`` is 0
    for the deterministic mean path; ``threads`` the CPU threads a process would use by itself; ``fp16_units`` whether
    the device multiplies fp16 matrices in hardware, as every GPU does. ``most_together`` is the largest
    ``samples_per_batch`` for which production had memory, None where it never ran out. Of an engine: ``knobs`` are
    the names of its own with their values, the default first; ``ignored`` the common fields that change nothing for
    it; and ``one_pass`` says that a graph forecasts a whole horizon, not a patch of it.
    """

    device: str
    threads: int
    patch_size: int
    shapes: tuple[tuple[int, int], ...]
    most_samples: int
    series_per_call: int = 1
    fp16_units: bool = False
    most_together: int | None = None
    knobs: tuple[tuple[str, tuple[KnobValue, ...]], ...] = ()
    ignored: tuple[str, ...] = ()
    one_pass: bool = False

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions worth trying here: a CPU has no tf32, and fp16 only where it has units for it."""
        if self.device != "cpu":
            return PRECISIONS
        return ("fp32", "bf16", "fp16") if self.fp16_units else ("fp32", "bf16")

    def graphs_needed(self, context_bucket: int) -> int:
        """How many static graphs the prefill needs for all shapes, with contexts padded to a bucket."""
        most = max(p for _, p in self.shapes) if self.one_pass else self.patch_size
        return len({(self.padded(c, context_bucket), min(p, most)) for c, p in self.shapes})

    def padded(self, context: int, context_bucket: int) -> int:
        """Length in time steps that a context of ``context`` steps is padded to."""
        whole = round_up(context, self.patch_size)
        return whole if context_bucket == 0 else round_up(whole, round_up(context_bucket, self.patch_size))


def canonical(settings: RuntimeSettings, facts: SettingsFacts) -> RuntimeSettings:
    """The representative of all settings that cannot differ from ``settings`` under ``facts``.

    On a CPU there are no CUDA graphs, so reduce-overhead is default and max-autotune-no-cudagraphs is
    max-autotune, and no tf32, which is fp32. Eager mode has no graph to bucket, freeze or recompile. One graph
    for the repeated layer cannot hold the weights of any. More samples together than there was memory for are as
    many as there was. What an engine ignores, or does not know, is left at its default. Idempotent.
    """
    if facts.ignored:
        settings = settings.replace(**{name: getattr(RuntimeSettings, name) for name in facts.ignored})
    if settings.knobs:
        settings = settings.replace(knobs=_own(settings, dict(facts.knobs)))
    if facts.device == "cpu":
        mode = CPU_ALIASES.get(settings.compile_mode, settings.compile_mode)
        threads = settings.num_threads or facts.threads
        precision = "fp32" if settings.precision == "tf32" else settings.precision
        settings = settings.replace(compile_mode=mode, precision=precision, num_threads=threads)
    else:
        settings = settings.replace(num_threads=None)
    settings = settings.replace(series_per_batch=min(settings.series_per_batch, facts.series_per_call))
    one_patch = max(prediction for _, prediction in facts.shapes) <= facts.patch_size
    settings = settings.replace(samples_per_batch=_together(settings.samples_per_batch, facts, one_patch))
    if not settings.compiled:
        return settings.replace(
            recompile_limit=DEFAULT_RECOMPILE_LIMIT,
            context_bucket=0,
            dynamic=False,
            freezing=False,
            compile_scope="full",
        )
    if settings.compile_scope == "layer":
        settings = settings.replace(freezing=False)
    return _canonical_shapes(settings, facts)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


def _own(settings: RuntimeSettings, known: Mapping[str, tuple[KnobValue, ...]]) -> Knobs:
    """The knobs that the engine knows and that are not at their default."""
    return tuple((name, value) for name, value in settings.knobs if value in known.get(name, ())[1:])


def _together(asked: int | None, facts: SettingsFacts, one_patch: bool) -> int | None:
    if one_patch:
        return None
    together = min(asked or facts.most_samples, facts.most_together or facts.most_samples)
    return None if together >= facts.most_samples else together


def _canonical_shapes(settings: RuntimeSettings, facts: SettingsFacts) -> RuntimeSettings:
    if facts.graphs_needed(0) == 1:
        return settings.replace(context_bucket=0, dynamic=False, recompile_limit=DEFAULT_RECOMPILE_LIMIT)
    bucket = min(round_up(settings.context_bucket, facts.patch_size), LONGEST_BUCKET)
    if all(facts.padded(c, bucket) == facts.padded(c, 0) for c, _ in facts.shapes):
        bucket = 0
    needed = facts.graphs_needed(bucket)
    limit = settings.recompile_limit
    if limit >= needed:
        limit = max(DEFAULT_RECOMPILE_LIMIT, needed)
    dynamic = settings.dynamic and needed > 1
    return settings.replace(context_bucket=bucket, recompile_limit=limit, dynamic=dynamic)


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingsError(f"settings: {name} must be one of {', '.join(allowed)}, not {value!r}")


def _whole(name: str, value: Any, low: int, high: int, *, optional: bool = False) -> None:
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingsError(f"settings: {name} must be a whole number from {low} to {high}, not {value!r}")
