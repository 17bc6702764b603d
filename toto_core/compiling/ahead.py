"""Compiling ahead of time: the calls of a decoder as packages, one per call and shape, kept on disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from toto_core.compiling.packages import Flat, Run, build, filled, leaves, load, package_name
from toto_core.compiling.tally import Tally
from toto_core.settings import RuntimeSettings
from toto_core.toto1.cache import Prefix
from toto_core.toto1.decode import Carry
from toto_core.toto1.forward import First, Newest
from toto_core.toto1.scaling import Stats
from toto_core.version import ENGINE_VERSION

Result = TypeVar("Result", First, Newest)


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Where packages are kept.

    ``folder`` must be private and of one environment, because what lies there is code; None keeps nothing
    beyond the process. ``model`` is the digest of the model, whose weights are part of every package.
    """

    folder: Path | None = None
    model: str = ""


class Ahead:
    """Runs calls as packages: found on the shelf or compiled at the first call of every new shape."""

    def __init__(self, decoder: nn.Module, settings: RuntimeSettings, shelf: Shelf, tally: Tally) -> None:
        self._decoder = decoder
        self._settings = settings
        self._shelf = shelf
        self._tally = tally
        self._loaded: dict[tuple[Any, ...], Run | None] = {}
        self._identity = (
            ENGINE_VERSION,
            torch.__version__,
            shelf.model,
            settings.key,
            torch.get_num_threads(),
        )

    def run(
        self,
        name: str,
        variant: tuple[Any, ...],
        call: Callable[..., Result],
        template: Result,
        arguments: tuple[Any, ...],
        *,
        hold: bool,
    ) -> Result:
        """``call(*arguments)`` as a package, which ``variant`` and the arguments' shapes tell from others.

        ``template`` has the form of the result. On ``hold``, and beyond the recompile limit, an unknown shape
        runs in eager mode. Raises whatever torch's compiler raises.
        """
        tensors: list[Tensor] = [tensor.contiguous() for tensor in leaves(arguments)]
        key = (name, *variant, *(tensor.shape for tensor in tensors))
        if key not in self._loaded and hold:
            self._tally.add_held()
            return call(*arguments)
        if key not in self._loaded:
            self._loaded[key] = self._package(key, Flat(self._decoder, call, arguments), tensors)
        package = self._loaded[key]
        if package is None:
            return call(*arguments)
        result: Result = filled(template, iter(package(tensors)))
        return result

    def _package(self, key: tuple[Any, ...], module: Flat, tensors: list[Tensor]) -> Run | None:
        name = key[0]
        if self._tally.graphs_of(name) >= self._settings.recompile_limit:
            self._tally.reach_limit()
            return None
        started = time.perf_counter()
        run, found = self._found_or_built(package_name(self._identity, key), module, tensors)
        self._tally.add_package(name, time.perf_counter() - started, found=found)
        return run

    def _found_or_built(self, file: str, module: Flat, tensors: list[Tensor]) -> tuple[Run, bool]:
        if self._shelf.folder is None:
            with tempfile.TemporaryDirectory(prefix="toto-") as folder:
                return self._built(Path(folder) / file, module, tensors), False
        path = self._shelf.folder / file
        if path.is_file():
            try:
                return load(path), True
            except RuntimeError:
                path.unlink()  # no package: compile it again
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._built(path, module, tensors), False

    def _built(self, path: Path, module: Flat, tensors: list[Tensor]) -> Run:
        build(module, tensors, self._settings, path)
        return load(path)


def first_template(time_layers: int, *, keep: bool, grouped: bool, bucketed: bool) -> First:
    """The form of what ``forward.first`` returns; its leaves stand for tensors."""
    if not keep:
        return First(_LEAF, None)
    caches = (_LEAF,) * time_layers
    stats = Stats(*(_LEAF,) * len(Stats._fields))
    groups, visible = (_LEAF if given else None for given in (grouped, bucketed))
    return First(_LEAF, Carry(Prefix(caches, caches), stats, _LEAF, groups, visible))


_LEAF: Any = 0
NEWEST_TEMPLATE = Newest(_LEAF, Stats(*(_LEAF,) * len(Stats._fields)))
"""The form of what ``forward.following`` returns."""
