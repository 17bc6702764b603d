"""Where torch keeps what it compiles by itself: nowhere that another user can write to."""

from __future__ import annotations

import atexit
import functools
import getpass
import os
import re
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

from toto_core.held_folders import HeldFolder
from toto_core.private_folders import TORCH_CACHE_VARIABLE, why_not_private


def keep_torch_private() -> None:
    """Before torch compiles: let its own caches, which it unpickles, lie where no other user can write.

    Its folder in /tmp has a name that anyone can guess and make first. One that is not private is left alone, with
    one warning, for a temporary one of this process.
    """
    chosen = Path(os.environ.get(TORCH_CACHE_VARIABLE) or _torch_default())
    with suppress(OSError):
        chosen.mkdir(mode=0o700)  # where it is missing: what is ours now stays ours
    fault = why_not_private(chosen)
    if fault:
        os.environ[TORCH_CACHE_VARIABLE] = str(_temporary())
        warnings.warn(
            f"{chosen} {fault}, and torch would load code from it: compiling into a temporary folder instead; chmod "
            f"it to 0700 or name another one in {TORCH_CACHE_VARIABLE}",
            RuntimeWarning,
            stacklevel=2,
        )


def _torch_default() -> Path:
    """As ``torch._inductor.runtime.cache_dir_utils`` names it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid_{os.getuid()}"
    user = re.sub(r'[\\/:*?"<>|]', "_", user)
    return Path(tempfile.gettempdir()) / f"torchinductor_{user}"


@functools.cache
def _temporary() -> Path:
    folder = HeldFolder("autotune-inductor-")
    atexit.register(folder.remove)
    return folder.path
