"""What calls written for the earlier integration say by keyword and variable, in this engine's own words; pure.

A keyword that is not given asks for nothing, whatever its default was there: a call without any is what it is today.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toto_core import compile_config
from toto_core.memory_ladder import Ladder
from toto_core.model_files import EMBEDDED
from toto_core.settings import RuntimeSettings, SettingsError

CACHE_POLICIES = ("prefer", "never", "only")
EARLIER_MODEL = "Datadog/Toto-Open-Base-1.0"
"""What a call that names no model loaded there."""
_IGNORED_BY_PREDICT = ("temperature", "top_k", "top_p", "time_interval_seconds")
_LADDER = {
    "max_oom_retries": "retries",
    "min_samples_per_batch": "min_samples_per_batch",
    "min_num_samples": "min_num_samples",
}
_PRECISIONS = {
    "float32": "fp32",
    "float": "fp32",
    "fp32": "fp32",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "fp16": "fp16",
}
_DTYPES = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}


class Unasked(int):
    """A number that nobody asked for: a default, which a variable of the earlier integration may replace."""


SAMPLES = Unasked(256)
"""Samples of a forecast whose caller does not say how many; the earlier integration's 4,096 was never measured."""


@dataclass(frozen=True, kw_only=True)
class EarlierKeywords:
    """Keywords of the earlier ``from_pretrained``, None for what a call does not say.

    Raises ``ValueError`` for a cache policy or a number of steps that is none.
    """

    torch_dtype: Any = None
    torch_compile: bool | None = None
    compile_model: bool | None = None
    compile_mode: str | None = None
    compile_backend: str | None = None
    amp_dtype: Any = None
    amp_autocast: bool | None = None
    cache_policy: str | None = None
    warmup_sequence: int | None = None
    force_refresh: bool | None = None
    cache_manager: Any = None
    max_oom_retries: int | None = None
    min_samples_per_batch: int | None = None
    min_num_samples: int | None = None

    def __post_init__(self) -> None:
        if self.cache_policy is not None and str(self.cache_policy).lower() not in CACHE_POLICIES:
            known = ", ".join(CACHE_POLICIES)
            raise ValueError(f"cache_policy must be one of {known}, not {self.cache_policy!r}")
        steps = self.warmup_sequence
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 0):
            raise ValueError(f"warmup_sequence must be a number of time steps, 0 for none, not {steps!r}")

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> EarlierKeywords:
        """The keywords of a call. Raises ``TypeError`` for one that neither integration knows."""
        _refuse_unknown("from_pretrained", given, {field.name for field in dataclasses.fields(cls)})
        return cls(**given)

    @property
    def said(self) -> bool:
        """Whether the call uses any, and so is earlier code."""
        return any(value is not None for value in vars(self).values())

    @property
    def compiled(self) -> bool | None:
        """Whether the call asks for compilation, forbids it, or, None, says nothing of it."""
        switches = (self.torch_compile, self.compile_model)
        if any(switches):
            return True
        if False in switches:
            return False
        return True if self.compile_mode else None

    @property
    def ladder(self) -> Ladder:
        """What to do when memory runs out."""
        return changed(Ladder(), vars(self))

    def precision(self, device: str) -> str | None:
        """The precision the call asks for on ``cpu`` or ``cuda``, None where it does not say.

        Autocast decides on CUDA and counts nowhere else; float16 on a CPU is what this engine does not offer and
        is told apart by ``notes``. Raises ``ValueError`` for any other type.
        """
        asked = self._asked_precision(device)
        return "fp32" if asked == "fp16" and device == "cpu" else asked

    def notes(self, device: str) -> tuple[str, ...]:
        """What the call asks for and does not get, one line each."""
        found = []
        if self._asked_precision(device) == "fp16" and device == "cpu":
            found.append("float16 is not offered on a CPU: running float32, which is no less exact")
        if self.compile_backend not in {None, "inductor"}:
            found.append(f"compile_backend={self.compile_backend} is ignored: only inductor is supported")
        if self.cache_manager is not None:
            found.append("cache_manager is ignored: what is compiled is kept in the cache folder of autotune")
        return tuple(found)

    def _asked_precision(self, device: str) -> str | None:
        if device == "cuda" and self.amp_autocast is not False:
            autocast = self.amp_dtype or ("float16" if self.amp_autocast else None)
            return _precision("amp_dtype", autocast) or _precision("torch_dtype", self.torch_dtype)
        return _precision("torch_dtype", self.torch_dtype)


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What a call of ``from_pretrained`` comes to.

    ``num_samples`` is of forecasts whose caller does not say how many; ``notes`` are to be told, one warning each.
    """

    model: str
    settings: RuntimeSettings
    num_samples: int = SAMPLES
    notes: tuple[str, ...] = ()


def resolve(
    model: str | None,
    keywords: EarlierKeywords,
    *,
    settings: RuntimeSettings | None,
    device: str,
    earlier: bool,
    environ: Mapping[str, str],
) -> Loading:
    """The model and the settings of a call on ``cpu`` or ``cuda``.

    ``earlier`` says that the call is earlier code: only then, and never beside explicit ``settings``, the variables
    of the earlier integration count. Raises ``ValueError`` (``SettingsError`` is one) for what contradicts itself.
    """
    variables = environ if earlier and settings is None else {}
    name, told_name = _model(model, variables)
    if settings is not None:
        _refuse_contradiction(keywords, settings, device)
        return Loading(model=name, settings=settings, notes=(*keywords.notes(device), *told_name))
    chosen_dtype = keywords.torch_dtype or _first(variables, "TOTO_DTYPE", "TOTO_TORCH_DTYPE")
    keywords = dataclasses.replace(keywords, torch_dtype=chosen_dtype)
    asked = keywords.compiled
    if asked is None and compile_config.switched(variables.get("TOTO_COMPILE", "")):
        asked = True
    chosen = compile_config.defaults(torch_compile=asked)
    if chosen.compiled and keywords.compile_mode:
        chosen = chosen.replace(compile_mode=keywords.compile_mode)
    chosen = chosen.replace(precision=keywords.precision(device) or chosen.precision)
    together, told_together = _number(variables, "TOTO_SAMPLES_PER_BATCH")
    samples, told_samples = _number(variables, "TOTO_NUM_SAMPLES")
    return Loading(
        model=name,
        settings=chosen.replace(samples_per_batch=together or chosen.samples_per_batch),
        num_samples=samples or SAMPLES,
        notes=(*keywords.notes(device), *told_together, *told_samples, *told_name),
    )


def predict_ladder(given: Mapping[str, Any], ladder: Ladder) -> Ladder:
    """What a call of ``predict`` asks for when memory runs out; what has no meaning here is accepted and ignored.

    Raises ``TypeError`` for a keyword that neither integration knows, and ``RequestError``.
    """
    _refuse_unknown("predict", given, {*_IGNORED_BY_PREDICT, *_LADDER})
    return changed(ladder, given)


def changed(ladder: Ladder, given: Mapping[str, Any]) -> Ladder:
    """``ladder`` with what keywords say of it. Raises ``RequestError``."""
    said = {ours: given[theirs] for theirs, ours in _LADDER.items() if given.get(theirs) is not None}
    return dataclasses.replace(ladder, **said) if said else ladder


def dtype_name(precision: str) -> str:
    """What earlier metadata called a precision: the type of the weights that are multiplied."""
    return _DTYPES.get(precision, "torch.float32")


def _refuse_contradiction(keywords: EarlierKeywords, settings: RuntimeSettings, device: str) -> None:
    mode = keywords.compile_mode if keywords.compiled else None
    wanted = {
        "compile": (keywords.compiled, settings.compiled),
        "compile_mode": (mode, settings.compile_mode),
        "precision": (keywords.precision(device), settings.precision),
    }
    for name, (asked, given) in wanted.items():
        if asked is not None and asked != given:
            raise SettingsError(
                f"settings: the keywords ask for {name}={asked} and the settings say {given}; give one of the two"
            )


def _refuse_unknown(function: str, given: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise TypeError(f"{function}() got an unexpected keyword argument {unknown[0]!r}")


def _precision(name: str, dtype: Any) -> str | None:
    if dtype is None or dtype == "auto":
        return None
    found = _PRECISIONS.get(str(dtype).removeprefix("torch.").strip().lower())
    if found is None:
        raise ValueError(f"{name} must be float32, bfloat16 or float16, not {dtype}")
    return found


def _model(model: str | None, variables: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    named = model or _first(variables, "TOTO_CHECKPOINT_PATH", "TOTO_MODEL_ID")
    if named:
        return named, ()
    told = (
        f"no model was named: loading {EMBEDDED}, a small one for demonstration; name {EARLIER_MODEL}, which was the "
        "default of the earlier integration, or set TOTO_MODEL_ID"
    )
    return EMBEDDED, (told,)


def _first(variables: Mapping[str, str], *names: str) -> str | None:
    return next((text for name in names if (text := variables.get(name, "").strip())), None)


def _number(variables: Mapping[str, str], name: str) -> tuple[int | None, tuple[str, ...]]:
    text = variables.get(name, "").strip()
    if not text:
        return None, ()
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 1_000_000:
        return int(text), ()
    return None, (f"{name}={text} is ignored: it is not a whole number from 1 to 1000000",)
