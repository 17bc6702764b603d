"""Process-wide default settings from the environment variables of earlier integrations; explicit ones win.

TOTO_DISABLE_COMPILE=1 runs eagerly, TOTO_COMPILE=0 likewise, TOTO_COMPILE_MODE names the mode,
TOTO_COMPILE_BACKEND may only be ``inductor``.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping

from toto_core.settings import COMPILE_MODES, DEFAULT_RECOMPILE_LIMIT, RuntimeSettings

DEFAULT_MODE = "reduce-overhead"
_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_SWITCHES = dict.fromkeys(_ON, True) | dict.fromkeys(_OFF, False)
_applied: list[RuntimeSettings] = []


def apply(*, verbose: bool = False, environ: Mapping[str, str] | None = None) -> RuntimeSettings:
    """Read the variables, make them this process's defaults, and return the settings they stand for.

    ``torch._dynamo.config.recompile_limit`` is taken over when the caller has changed it.
    """
    settings = settings_from_environment(os.environ if environ is None else environ)
    _applied[:] = [settings]
    if verbose:
        print(f"toto compile settings: {settings.label}")  # noqa: T201 - that is what verbose asks for
    return settings


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
        return RuntimeSettings(recompile_limit=limit)
    backend = environ.get("TOTO_COMPILE_BACKEND", "").strip() or "inductor"
    if backend != "inductor":
        warnings.warn(f"TOTO_COMPILE_BACKEND={backend} is ignored: only inductor is supported", stacklevel=3)
    mode = environ.get("TOTO_COMPILE_MODE", "").strip() or DEFAULT_MODE
    if mode not in COMPILE_MODES:
        known = ", ".join(COMPILE_MODES)
        warnings.warn(f"TOTO_COMPILE_MODE={mode} is ignored: known are {known}", stacklevel=3)
        mode = DEFAULT_MODE
    return RuntimeSettings(compile_mode=mode, recompile_limit=limit)
