"""Keeps what torch's probes of the C++ compiler found: it compiles up to six of them into every empty cache.

A probe asks whether a small program of one vector instruction set compiles and loads. Only its yes is kept.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from toto_core.compiling.headers import HEADERS_VARIABLE, compiler_version
from toto_core.private_folders import make_private


@contextmanager
def probed_once(folder: Path | None = None) -> Iterator[None]:
    """Probes that torch makes meanwhile, in any thread, are answered from ``folder`` where they passed before.

    For the same compiler, torch, CPU and machine. Without a folder (the variable that names the one of parsed
    headers names none either), and on a torch that probes in another way, everything is as torch has it.
    """
    named = folder or os.environ.get(HEADERS_VARIABLE)
    probing = _probing_class() if named else None
    if not named or probing is None:
        yield
        return
    check = probing.check_build

    def check_or_know(isa: Any, code: str) -> bool:
        passed = Path(named) / "probes" / _name(isa, code)
        if passed.exists():
            return True
        found = bool(check(isa, code))
        if found:
            with suppress(OSError):  # no space, no right: it is probed again
                make_private(passed.parent)
                passed.touch(mode=0o600)
        return found

    probing.check_build = check_or_know
    try:
        yield
    finally:
        probing.check_build = check


def _probing_class() -> Any:
    with suppress(ImportError):
        from torch._inductor import cpu_vec_isa  # here, because it takes seconds

        found = getattr(cpu_vec_isa, "VecISA", None)
        return found if hasattr(found, "check_build") else None
    return None


def _name(isa: Any, code: str) -> str:
    """Equal for equal probes on this machine; flags and macros are those the probe is compiled with."""
    probe = str(isa), isa.build_arch_flags(), isa.build_macro(), code
    return hashlib.sha256(repr((probe, _machine())).encode()).hexdigest()[:32]


@functools.cache
def _machine() -> tuple[str, ...]:
    import torch
    from torch._inductor.cpp_builder import get_cpp_compiler

    compiler = str(get_cpp_compiler())
    built = torch.__version__, torch.version.git_version or "", torch.backends.cpu.get_cpu_capability()
    return (*built, compiler, compiler_version(compiler), platform.node(), platform.machine())
