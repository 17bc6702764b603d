"""Makes what tests compile in their own process compile sooner; the children that measure get none of it."""

from __future__ import annotations

import os

os.environ.setdefault("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")
os.environ.setdefault(
    "TORCHINDUCTOR_VEC_ISA_OK", "1"
)  # else torch compiles six probes into every empty cache
