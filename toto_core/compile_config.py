"""Process-wide default settings from the environment variables of earlier integrations; explicit ones win.

TOTO_DISABLE_COMPILE=1 runs eagerly, TOTO_COMPILE=0 likewise, TOTO_COMPILE_MODE names the mode (REAL_TOTO_COMPILE_MODE
before it), TOTO_COMPILE_BACKEND may only be ``inductor``.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, MutableMapping

from toto_core.lines import one_line
from toto_core.private_folders import why_not_private
from toto_core.settings import COMPILE_MODES, DEFAULT_RECOMPILE_LIMIT, RuntimeSettings

DEFAULT_MODE = "reduce-overhead"
APPLIED_RECOMPILE_LIMIT = 32
"""Graphs that one function may get after ``apply``, where nobody has changed torch's own 8."""
_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_SWITCHES = dict.fromkeys(_ON, True) | dict.fromkeys(_OFF, False)
_USE = {"TOTO_COMPILE": "1", "TOTO_COMPILE_BACKEND": "inductor", "TORCHDYNAMO_CAPTURE_SCALAR_OUTPUTS": "1"}
_applied: list[RuntimeSettings] = []
_filled_in: dict[str, str] = {}


def apply(verbose: bool = False, *, environ: MutableMapping[str, str] | None = None) -> int:
    """Fill in the variables that are not set, make what they say this process's default, and count what was set.

    Set are, in ``environ`` (the process's own unless given), TORCHDYNAMO_CAPTURE_SCALAR_OUTPUTS, TOTO_COMPILE_MODE,
    TOTO_COMPILE (not beside TOTO_DISABLE_COMPILE), TOTO_COMPILE_BACKEND and TORCHINDUCTOR_CACHE_DIR, and a recompile
    limit of 32 for the pipelines loaded from now on, unless the caller has changed torch's own, which is then taken
    over. ``defaults`` gives the settings this comes to; ``verbose`` prints them.
    """
    variables = os.environ if environ is None else environ
    said = {name: value for name, value in _wanted(variables).items() if not variables.get(name, "").strip()}
    variables.update(said)
    if variables is os.environ:
        _filled_in.update(said)
    settings = settings_from_environment(variables)
    set_things = [f"{name}={value}" for name, value in said.items()]
    if settings.compiled and settings.recompile_limit == DEFAULT_RECOMPILE_LIMIT:
        settings = settings.replace(recompile_limit=APPLIED_RECOMPILE_LIMIT)
        if settings not in _applied:
            set_things.append(f"recompile_limit={APPLIED_RECOMPILE_LIMIT}")
    _applied[:] = [settings]
    if verbose:
        told = f"; set {', '.join(set_things)}" if set_things else ""
        print(f"toto compile settings: {settings.label}{told}")  # noqa: T201 - that is what verbose asks for
    return len(set_things)


def applied() -> bool:
    """Whether ``apply`` was called in this process."""
    return bool(_applied)


def filled_in(name: str) -> bool:
    """Whether ``apply`` put a variable's present value there: a default, and nobody's wish."""
    return name in _filled_in and os.environ.get(name) == _filled_in[name]


def get_recommended_settings() -> dict[str, dict[str, str]]:
    """For each use case the variables to set before ``apply``, and under ``notes`` what to expect of them."""
    return {
        "maximum_performance": {
            **_USE,
            "TOTO_COMPILE_MODE": "max-autotune",
            "notes": "longest to compile; whether it is fastest here is what `autotune run` finds out",
        },
        "balanced": {
            **_USE,
            "TOTO_COMPILE_MODE": "reduce-overhead",
            "notes": "CUDA graphs on a GPU; on a CPU the same as default",
        },
        "debugging": {
            **_USE,
            "TOTO_COMPILE_MODE": "default",
            "TORCH_LOGS": "recompiles,graph_breaks",
            "notes": "quickest to compile, and torch says what it does",
        },
        "accuracy_first": {
            "TOTO_COMPILE": "0",
            "notes": "uncompiled fp32, which every other setting is compared with",
        },
    }


def defaults(*, torch_compile: bool | None = None) -> RuntimeSettings:
    """Settings for a pipeline that was given none: what ``apply`` set, or eager unless ``torch_compile``."""
    if torch_compile is False or disabled(os.environ):
        return RuntimeSettings()
    if _applied:
        return _applied[0]
    return settings_from_environment(os.environ) if torch_compile else RuntimeSettings()


def disabled(environ: Mapping[str, str]) -> bool:
    """Whether the kill switch ``TOTO_DISABLE_COMPILE`` is on."""
    return switched(environ.get("TOTO_DISABLE_COMPILE", "")) is True


def switched(text: str) -> bool | None:
    """What the text of a variable means: on, off, or neither, as a blank does."""
    return _SWITCHES.get(text.strip().lower())


def settings_from_environment(environ: Mapping[str, str]) -> RuntimeSettings:
    """The settings the variables stand for; an unknown mode or backend warns and is ignored."""
    # whoever has changed the limit has imported the module; importing it here would take seconds
    found = getattr(sys.modules.get("torch._dynamo.config"), "recompile_limit", None)
    limit = int(found) if isinstance(found, int) else DEFAULT_RECOMPILE_LIMIT
    if disabled(environ) or switched(environ.get("TOTO_COMPILE", "")) is False:
        return RuntimeSettings()
    name, backend = _first(environ, "TOTO_COMPILE_BACKEND", "inductor")
    if backend != "inductor":
        warnings.warn(f"{name}={one_line(backend, 60)} is ignored: only inductor is supported", stacklevel=3)
    name, mode = _first(environ, "TOTO_COMPILE_MODE", DEFAULT_MODE)
    if mode not in COMPILE_MODES:
        known = ", ".join(COMPILE_MODES)
        warnings.warn(f"{name}={one_line(mode, 60)} is ignored: known are {known}", stacklevel=3)
        mode = DEFAULT_MODE
    return RuntimeSettings(compile_mode=mode, recompile_limit=limit)


def _first(environ: Mapping[str, str], name: str, default: str) -> tuple[str, str]:
    """A variable, or the one of the trading process that goes before it, and its value."""
    found = ((each, environ.get(each, "").strip()) for each in (f"REAL_{name}", name))
    return next(((each, value) for each, value in found if value), (name, default))


def _wanted(environ: Mapping[str, str]) -> dict[str, str]:
    """What ``apply`` sets where it is not set."""
    from toto_core.earlier_cache import cache_root

    wanted = {**_USE, "TOTO_COMPILE_MODE": DEFAULT_MODE}
    if environ.get("TOTO_DISABLE_COMPILE", "").strip():
        del wanted["TOTO_COMPILE"]
    root = cache_root(environ)
    # Where others can write they could exchange what torch loads; without the variable it is looked at once more.
    folder = {} if why_not_private(root) else {"TORCHINDUCTOR_CACHE_DIR": str(root / "inductor")}
    return {**wanted, **folder}
