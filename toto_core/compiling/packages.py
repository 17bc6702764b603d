"""Ahead-of-time packages: one call of one shape compiled into a shared library that needs no compiler to load.

A library is code with the model's weights in it: whoever names a folder for them vouches for what lies there.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toto_core.settings import RuntimeSettings

Run = Callable[[list[Tensor]], list[Tensor]]
"""A loaded package: flat tensors in, flat tensors out; every input must be contiguous."""


class Flat(nn.Module):
    """``call(*arguments)`` as a module from flat tensors to flat tensors; ``decoder`` owns the weights."""

    def __init__(self, decoder: nn.Module, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.decoder = decoder
        self._call = call
        self._arguments = arguments

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Rebuild the arguments, call, and flatten what comes back."""
        result = self._call(*filled(self._arguments, iter(tensors)))
        return tuple(leaf.contiguous() for leaf in leaves(result))


def leaves(tree: Any) -> Iterator[Tensor]:
    """The tensors of nested tuples, in order, without what is None."""
    if isinstance(tree, Tensor):
        yield tree
    elif tree is not None:
        for part in tree:
            yield from leaves(part)


def filled(template: Any, tensors: Iterator[Tensor]) -> Any:
    """Nested tuples like ``template``, its None kept and everything else replaced, in order, by ``tensors``."""
    if template is None:
        return None
    if not isinstance(template, tuple):
        return next(tensors)
    parts = [filled(part, tensors) for part in template]
    return type(template)(*parts) if hasattr(template, "_fields") else tuple(parts)


def package_name(*identity: object) -> str:
    """A file name that is equal for equal identities and differs otherwise."""
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:32] + ".so"


def load(path: Path) -> Run:
    """Map a package into this process. Raises ``RuntimeError`` for a file that is none."""
    runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)
    run: Run = runner.run
    return run


def build(module: Flat, tensors: Sequence[Tensor], settings: RuntimeSettings, path: Path) -> None:
    """Compile ``module`` for exactly these shapes and put the package at ``path``, all of it or nothing.

    Raises whatever torch's compiler raises.
    """
    import torch._inductor  # here, because loading a package needs no compiler, and this takes seconds

    options = dict(torch._inductor.list_mode_options(settings.compile_mode))
    with (
        tempfile.TemporaryDirectory(prefix="building-", dir=path.parent) as folder,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # torch's compiler warns of its own deprecated parts
        exported = torch.export.export(module, tuple(tensors), strict=False)
        library = Path(folder) / path.name
        torch._inductor.aot_compile(
            exported.module(check_guards=False),
            tuple(tensors),
            options={
                **options,
                "freezing": settings.freezing,
                "aot_inductor.output_path": str(library),
                "aot_inductor.precompile_headers": False,  # torch keeps them in a folder anyone can guess
            },
        )
        library.chmod(0o500)
        library.replace(path)
