"""``LoadArtifacts``: a load's compile artifacts: from disk when intact, made anew when not, kept when new."""

from __future__ import annotations

import atexit
import functools
import os
import tempfile
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

from autotuner.environment import Environment
from autotuner.files import failing_as
from autotuner.paths import inductor_folder
from autotuner.serving.artifacts import CacheRefused, compile_cache, store, wipe, workplace
from autotuner.serving.cache_folders import mark_used
from autotuner.serving.manifest import Damaged, link_verified
from toto_core.compile_config import filled_in
from toto_core.held_folders import HeldFolder
from toto_core.private_folders import TORCH_CACHE_VARIABLE
from toto_core.settings import RuntimeSettings

_set_here: set[str] = set()  # cache folders that this module, not the user, has put into the variable


@dataclass(frozen=True, kw_only=True)
class LoadArtifacts:
    """``folder`` is private to this process: what it takes from disk lies there verified, beside what it makes.

    None for settings that compile nothing. ``found`` says whether anything was taken, ``lasts`` whether what is
    made can be kept, and ``said`` is what the pipeline's metadata should tell.
    """

    environment: Environment
    settings: RuntimeSettings
    folder: Path | None = None
    found: bool = False
    lasts: bool = False
    said: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_settings(cls, environment: Environment, settings: RuntimeSettings) -> LoadArtifacts:
        """Take what is stored for these settings; what is damaged is wiped, with one warning."""
        nothing = cls(environment=environment, settings=settings)
        if not settings.compiled:
            return nothing
        try:
            folder = workplace(environment.fingerprint)
            stored = compile_cache(environment.fingerprint, settings.key)
            with failing_as(CacheRefused, f"compile cache {folder} cannot be filled"):
                found = link_verified(stored, folder) is not None
            mark_used(stored)
        except CacheRefused as error:
            return nothing._aside(error)
        except Damaged as error:
            return nothing.start_anew(str(error))
        _point_torch_at(folder)
        return replace(nothing, folder=folder, found=found, lasts=True)

    def start_anew(self, why: str) -> LoadArtifacts:
        """Wipe what is stored and start from nothing, with one warning."""
        warnings.warn(f"compile artifacts are made anew: {why}", RuntimeWarning, stacklevel=4)
        try:
            wipe(compile_cache(self.environment.fingerprint, self.settings.key))
            folder = workplace(self.environment.fingerprint)
        except CacheRefused as error:
            return self._aside(error)
        return self._into(folder, lasts=True, said=f"made anew: {why}")

    def save(self) -> None:
        """Store what this process compiled, for the next one; where that fails it is said and left."""
        if self.folder is None or not self.lasts:
            return
        try:
            store(self.folder, self.environment.fingerprint, self.settings.key)
        except CacheRefused as error:
            warnings.warn(f"what was compiled is not kept: {error}", RuntimeWarning, stacklevel=4)

    def _aside(self, error: CacheRefused) -> LoadArtifacts:
        try:
            folder = _temporary_folder()
        except OSError as no_room:
            warnings.warn(f"{error}; nor is there another place: {no_room}", RuntimeWarning, stacklevel=5)
            said = {"compile_artifacts": f"none: {error}"}
            return replace(self, folder=None, found=False, lasts=False, said=said)
        warnings.warn(f"{error}; compiling into {folder} instead", RuntimeWarning, stacklevel=5)
        return self._into(folder, lasts=False, said=f"temporary: {error}")

    def _into(self, folder: Path, *, lasts: bool, said: str) -> LoadArtifacts:
        _point_torch_at(folder)
        return replace(self, folder=folder, found=False, lasts=lasts, said={"compile_artifacts": said})


def _point_torch_at(folder: Path) -> None:
    """Let torch's own caches lie in ``folder`` too, unless the user has named a place for them."""
    current = os.environ.get(TORCH_CACHE_VARIABLE)
    is_wish = current is not None and current not in _set_here and not filled_in(TORCH_CACHE_VARIABLE)
    if is_wish and not _is_torch_default(Path(str(current))):
        return
    chosen = str(inductor_folder(folder))
    _set_here.add(chosen)
    os.environ[TORCH_CACHE_VARIABLE] = chosen


def _is_torch_default(folder: Path) -> bool:
    """Whether torch itself has set the variable, to its guessable folder, when it compiled something earlier."""
    return folder.parent == Path(tempfile.gettempdir()) and folder.name.startswith("torchinductor_")


@functools.cache
def _temporary_folder() -> Path:
    folder = HeldFolder("autotune-cache-")  # torch may load from it until the end
    atexit.register(folder.remove)
    return folder.path
