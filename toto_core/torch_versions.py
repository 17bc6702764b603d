"""What differs between the torch releases this engine runs on; no other module asks torch for its version."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def compile_alone(function: Callable[..., Any], *, limit: int, **options: Any) -> Callable[..., Any]:
    """``torch.compile(function, **options)`` with a recompile limit and a cache of graphs of its own.

    Where torch.compile takes neither (2.12 and older), a copy of the function's code object stands in for the cache,
    because Dynamo keeps its graphs by code object, and ``limiting`` for the limit.
    """
    torch_compile: Callable[..., Callable[..., Any]] = (
        torch.compile
    )  # its overloads leave out the newer options
    if compile_takes_a_limit():
        return torch_compile(function, recompile_limit=limit, isolate_recompiles=True, **options)
    return torch_compile(_copied(function), **options)


@contextmanager
def limiting(limit: int) -> Iterator[None]:
    """Calls that may compile, of a function that ``compile_alone`` made with this limit."""
    if compile_takes_a_limit():
        yield
        return
    import torch._dynamo.config as dynamo_config

    with dynamo_config.patch(recompile_limit=limit):
        yield


@functools.cache
def compile_takes_a_limit() -> bool:
    """Whether torch.compile knows ``recompile_limit`` and ``isolate_recompiles``, as 2.13 does."""
    return {"recompile_limit", "isolate_recompiles"} <= set(inspect.signature(torch.compile).parameters)


def without_line_tables() -> dict[str, bool]:
    """Options of a build without the lines that torch 2.13 keeps for profilers: the same code, built sooner."""
    from torch._inductor import config  # here, because it takes seconds

    known = hasattr(config.aot_inductor, "enable_line_tables")
    return {"aot_inductor.enable_line_tables": False} if known else {}


@contextmanager
def without_autotune_tables(compile_mode: str) -> Iterator[None]:
    """Compile without the tables of candidates that torch prints in the modes of max-autotune.

    Both switches are private names of torch; where a release has none, the tables are printed.
    """
    if not compile_mode.startswith("max-autotune"):
        yield
        return
    from torch._inductor import config, select_algorithm  # here, because it takes seconds

    told = "max_autotune_report_choices_stats"
    with contextlib.ExitStack() as around:
        if hasattr(config, told):
            around.enter_context(config.patch({told: False}))
        if hasattr(select_algorithm, "PRINT_AUTOTUNE"):
            around.callback(setattr, select_algorithm, "PRINT_AUTOTUNE", select_algorithm.PRINT_AUTOTUNE)
            select_algorithm.PRINT_AUTOTUNE = False
        yield


def package_runner(path: Path, device: str) -> Callable[[list[Tensor]], list[Tensor]]:
    """Map a library compiled ahead of time into this process: a function from tensors to tensors.

    The runner itself is a private name of torch; where a release has none, the documented loader does the same
    and imports the compiler. Raises ``RuntimeError`` for a file that is no such library.
    """
    runners = getattr(torch._C, "_aoti", None)
    runner = getattr(runners, f"AOTIModelContainerRunner{device.capitalize()}", None)
    if runner is None:
        return documented_loader(path, device)
    arguments = (str(path), 1) if device == "cpu" else (str(path), 1, device)
    run: Callable[[list[Tensor]], list[Tensor]] = runner(*arguments).run
    return run


def documented_loader(path: Path, device: str) -> Callable[[list[Tensor]], list[Tensor]]:
    """``torch._export.aot_load`` as a function from tensors to tensors."""
    from torch._export import aot_load

    call: Callable[..., Any] = aot_load(str(path), device)

    def run(tensors: list[Tensor]) -> list[Tensor]:
        return list(call(*tensors))

    return run


def _copied(function: Callable[..., Any]) -> Callable[..., Any]:
    original: Any = function
    copied = types.FunctionType(
        original.__code__.replace(),
        original.__globals__,
        original.__name__,
        original.__defaults__,
        original.__closure__,
    )
    copied.__kwdefaults__ = original.__kwdefaults__
    return copied
