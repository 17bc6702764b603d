"""Versions of installed packages, found without importing them or ``importlib.metadata``."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path


def installed_version(package: str) -> str | None:
    """The version of a package, None where it is not installed.

    ``importlib.metadata``, which takes longer to import than all of a lookup, is asked only where the first folder of
    ``sys.path`` that has the package does not say it plainly.
    """
    version = _plain_version(package)
    if version is not None:
        return version
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _plain_version(package: str) -> str | None:
    """What the first folder of ``sys.path`` that has the package says; None for what is not that plain."""
    for folder in sys.path:
        if os.path.isfile(folder):  # noqa: PTH113 - an archive, which this does not look into
            return None
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - as quick as it goes
        except OSError:
            continue
        pattern = rf"{package.replace('-', '[-_.]')}(-.*)?\.(dist|egg)-info"
        found = [name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)]
        if found:
            return _version_in(Path(folder, found[0], "METADATA")) if len(found) == 1 else None
    return None


def _version_in(metadata: Path) -> str | None:
    try:
        with metadata.open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("Version: "):
                    return line.removeprefix("Version: ").rstrip("\r\n")
                if line == "\n":  # the end of the headers
                    return None
    except (OSError, UnicodeDecodeError):
        return None
    return None
