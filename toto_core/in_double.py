"""``in_double``: whatever asks for float32 meanwhile gets float64; what rounding alone does is found with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _InDouble(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Whatever asks for float32 gets float64, so that the engine's own casts do not round."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        asked = dict(kwargs or {})
        if asked.get("dtype") is torch.float32:
            asked["dtype"] = torch.float64
        return func(*args, **asked)


in_double: Callable[[], AbstractContextManager[Any]] = _InDouble  # torch leaves its constructor untyped
