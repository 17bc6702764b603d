"""Lets tests compile sooner in their own process, not in the children that measure, and not fail for being slow."""

from __future__ import annotations

import os

from hypothesis import settings

# How long an example takes tells what else the machine does; tests that promise a time measure it themselves.
settings.register_profile("whatever_the_machine_does", parent=settings.default, deadline=None)
settings.load_profile("whatever_the_machine_does")

os.environ.setdefault("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")
os.environ.setdefault(
    "TORCHINDUCTOR_VEC_ISA_OK", "1"
)  # else torch compiles six probes into every empty cache
