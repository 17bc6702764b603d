"""Where a pipeline keeps what is compiled for it: its caller's folder, or what earlier code's cache policy says."""

from __future__ import annotations

import os
from pathlib import Path

from toto_core import earlier_cache
from toto_core.compiling.ahead import PackageStore
from toto_core.earlier_keywords import EarlierKeywords
from toto_core.model_files import digest
from toto_core.settings import RuntimeSettings


def packages_of(
    keywords: EarlierKeywords, folder: Path, settings: RuntimeSettings, artifacts: Path | None
) -> PackageStore | None:
    """Where packages are kept: in ``artifacts``, or where the cache policy of earlier code says; None for nowhere.

    Raises ``CacheUnavailableError``.
    """
    policy = keywords.cache_policy and keywords.cache_policy.lower()
    wanted = settings.compiled or policy == "only"
    if policy == "never" or not wanted or (policy is None and artifacts is None):
        return None
    model = digest(folder)
    kept = artifacts
    if policy is not None and artifacts is None:
        place = earlier_cache.packages_of(model, settings, os.environ)
        kept = earlier_cache.opened(place, policy=policy, refresh=bool(keywords.force_refresh))
    return PackageStore(folder=kept, model=model)
