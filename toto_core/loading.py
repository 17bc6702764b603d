"""What loading a pipeline does beside reading the model: threads of the process, and where packages are kept."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch

from toto_core import earlier_cache
from toto_core.compiling.ahead import PackageStore
from toto_core.earlier_keywords import EarlierKeywords
from toto_core.model_files import digest
from toto_core.settings import RuntimeSettings

_threads_set: list[int] = []


def set_threads(count: int | None) -> None:
    """Give this process its CPU threads, once: a later pipeline that wants another count is told so."""
    if count is None or torch.get_num_threads() == count:
        return
    if _threads_set:
        told = (
            f"this process already runs {_threads_set[0]} threads; settings for {count} hold after a restart"
        )
        warnings.warn(told, RuntimeWarning, stacklevel=3)
        return
    torch.set_num_threads(count)
    _threads_set.append(count)


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
