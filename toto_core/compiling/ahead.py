"""Runs the calls of a model as packages compiled ahead of time, one per call and shape, kept on disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from toto_core.compiling.packages import FlatCall, Run, build, flatten, load, package_name, unflatten
from toto_core.compiling.tally import Tally
from toto_core.held_folders import held_folder
from toto_core.private_folders import make_private
from toto_core.settings import RuntimeSettings
from toto_core.version import ENGINE_VERSION

Result = TypeVar("Result", bound=tuple[Any, ...])


@dataclass(frozen=True, kw_only=True)
class PackageStore:
    """Where packages are kept, and of which model, whose weights are part of every package.

    ``folder`` must be private and of one environment, because what lies there is code; None keeps nothing
    beyond the process. ``model`` is the model's digest.
    """

    folder: Path | None = None
    model: str = ""


class AheadOfTime:
    """Runs calls as packages, found in the store or compiled at the first call of every new shape."""

    def __init__(
        self, decoder: nn.Module, settings: RuntimeSettings, store: PackageStore, tally: Tally
    ) -> None:
        self._decoder = decoder
        self._settings = settings
        self._store = store
        self._tally = tally
        self._loaded: dict[tuple[Any, ...], Run | None] = {}
        threads = torch.get_num_threads()
        self._identity = (ENGINE_VERSION, torch.__version__, store.model, settings.key, threads)

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
        tensors: list[Tensor] = [tensor.contiguous() for tensor in flatten(arguments)]
        key = (name, *variant, *(tensor.shape for tensor in tensors))
        if key not in self._loaded:
            if hold:
                self._tally.add_held()
                return call(*arguments)
            self._loaded[key] = self._package(key, FlatCall(self._decoder, call, arguments), tensors)
        package = self._loaded[key]
        if package is None:
            return call(*arguments)
        return cast("Result", unflatten(template, iter(package(tensors))))

    def _package(self, key: tuple[Any, ...], module: FlatCall, tensors: list[Tensor]) -> Run | None:
        name = key[0]
        if self._tally.graphs[name] >= self._settings.recompile_limit:
            self._tally.report = replace(self._tally.report, recompile_limit_hit=True)
            return None
        started = time.perf_counter()
        run, found = self._found_or_built(package_name(self._identity, key), module, tensors)
        self._tally.add_graphs(name, 1, time.perf_counter() - started, found=found)
        return run

    def _found_or_built(self, file: str, module: FlatCall, tensors: list[Tensor]) -> tuple[Run, bool]:
        if self._store.folder is None:
            with held_folder() as folder:
                return build(module, tensors, self._settings, folder / file), False
        path = self._store.folder / file
        if path.is_file():
            try:
                return load(path), True
            except RuntimeError:
                path.unlink()  # no package: compile it again
        make_private(path.parent)
        return build(module, tensors, self._settings, path), False
