"""What stands in for options that an older torch.compile lacks; run here on whichever torch is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from toto_core import torch_versions
from toto_core.torch_versions import (
    compile_alone,
    compile_takes_a_limit,
    limiting,
    without_autotune_tables,
    without_line_tables,
)


@pytest.fixture(params=["as installed", "without the options"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile as it is, and as 2.12 and older have it."""
    torch._dynamo.reset()
    if request.param == "without the options":
        monkeypatch.setattr(torch_versions, "compile_takes_a_limit", lambda: False)
    yield
    torch._dynamo.reset()


def double(x: Tensor) -> Tensor:
    return x + x


def compiled(limit: int) -> Callable[[int], Tensor]:
    """Calls ``double`` on so many numbers; every length is a shape of its own."""
    call = compile_alone(double, limit=limit, backend="eager", dynamic=False)

    def run(length: int) -> Tensor:
        with limiting(limit):
            result: Tensor = call(torch.ones(length))
        return result

    return run


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@pytest.mark.usefixtures("_either")
def test_a_limit_holds_for_every_function_by_itself() -> None:
    one, other = compiled(limit=2), compiled(limit=12)
    before = graphs()

    for length in range(2, 12):
        assert torch.equal(one(length), torch.full((length,), 2.0))
    assert graphs() - before == 2
    for length in range(2, 12):
        other(length)
    assert graphs() - before == 2 + 10


@pytest.mark.usefixtures("_either")
def test_a_function_compiled_twice_compiles_twice() -> None:
    before = graphs()
    for _ in range(2):
        compiled(limit=8)(3)

    assert graphs() - before == 2


@pytest.mark.usefixtures("_either")
def test_the_limit_of_others_is_left_alone() -> None:
    before = torch._dynamo.config.recompile_limit
    compiled(limit=3)(3)

    assert torch._dynamo.config.recompile_limit == before


def test_the_options_are_found_where_torch_has_them() -> None:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])

    assert compile_takes_a_limit() is (version >= (2, 13))


def test_a_build_is_given_only_options_that_this_torch_has() -> None:
    import torch._inductor

    assert set(without_line_tables()) <= set(torch._inductor.list_options())


def test_tables_of_candidates_are_silenced_while_max_autotune_compiles_and_never_else() -> None:
    from torch._inductor import select_algorithm

    assert select_algorithm.PRINT_AUTOTUNE is True
    with without_autotune_tables("max-autotune"):
        assert select_algorithm.PRINT_AUTOTUNE is False
    with without_autotune_tables("default"):
        assert select_algorithm.PRINT_AUTOTUNE is True
    with pytest.raises(RuntimeError), without_autotune_tables("max-autotune-no-cudagraphs"):
        raise RuntimeError
    assert select_algorithm.PRINT_AUTOTUNE is True
