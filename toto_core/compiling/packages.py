"""Packages: one call of one shape, compiled ahead of time into a shared library that loads without a compiler.

A library is code with the model's weights in it: whoever names a folder for them vouches for what lies there.
"""

from __future__ import annotations

import gc
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from toto_core.compiling.beside import wrapper_beside
from toto_core.compiling.headers import precompiled
from toto_core.compiling.probes import probed_once
from toto_core.compiling.torch_cache import keep_torch_private
from toto_core.held_folders import held_folder
from toto_core.settings import RuntimeSettings
from toto_core.torch_versions import package_runner, without_autotune_tables, without_line_tables

Run = Callable[[list[Tensor]], list[Tensor]]
"""A loaded package: a list of tensors in, a list of tensors out; every input must be contiguous."""


class FlatCall(nn.Module):
    """``call(*arguments)`` as a module from a list of tensors to another; ``decoder`` owns the weights."""

    def __init__(self, decoder: nn.Module, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.decoder = decoder
        self._call = call
        self._arguments = arguments

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Rebuild the arguments, call, and flatten what comes back."""
        result = self._call(*unflatten(self._arguments, iter(tensors)))
        return tuple(leaf.contiguous() for leaf in flatten(result))


# torch's own pytree does the same and takes four times as long, some 40 us more in every cached step
def flatten(tree: Any) -> Iterator[Tensor]:
    """The tensors of nested tuples, in order, without what is None."""
    if isinstance(tree, Tensor):
        yield tree
    elif tree is not None:
        for part in tree:
            yield from flatten(part)


def unflatten(template: Any, tensors: Iterator[Tensor]) -> Any:
    """Nested tuples like ``template``, its None kept and everything else replaced, in order, by ``tensors``."""
    if template is None:
        return None
    if not isinstance(template, tuple):
        return next(tensors)
    parts = [unflatten(part, tensors) for part in template]
    return type(template)(*parts) if hasattr(template, "_fields") else tuple(parts)


def package_name(*identity: object) -> str:
    """A file name that is equal for equal identities and differs otherwise."""
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:32] + ".so"


def load(path: Path) -> Run:
    """Map a package into this process. Raises ``RuntimeError`` for a file that is not a package."""
    return package_runner(path, "cpu")


def build(module: FlatCall, tensors: Sequence[Tensor], settings: RuntimeSettings, path: Path) -> Run:
    """Compile ``module`` for exactly these shapes into a package at ``path``, all of it or nothing, and load it.

    Raises whatever torch's compiler raises.
    """
    with (
        uncollected(),
        held_folder("building-", path.parent) as folder,
        wrapper_beside(),
        precompiled(),
        probed_once(),
        without_autotune_tables(settings.compile_mode),
        warnings.catch_warnings(),
    ):
        keep_torch_private()
        import torch._inductor  # here, because loading a package needs no compiler, and this takes seconds

        warnings.simplefilter("ignore")  # torch's compiler warns of its own deprecated parts
        exported = torch.export.export(module, tuple(tensors), strict=False)
        library = folder / path.name
        torch._inductor.aot_compile(
            exported.module(check_guards=False),
            tuple(tensors),
            options={
                **torch._inductor.list_mode_options(settings.compile_mode),
                "freezing": settings.freezing,
                "aot_inductor.output_path": str(library),
                "aot_inductor.precompile_headers": False,  # torch keeps them in a folder anyone can guess
                **without_line_tables(),
            },
        )
        library.chmod(0o500)
        library.replace(path)
    return load(path)


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage meanwhile: a sixth of the compiler's Python, for objects that stay."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
