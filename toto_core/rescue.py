"""Compiled calls as long as they work: one that fails is answered in eager mode, and so is every later one.

A call that hangs is not rescued: nothing in the process could end it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from toto_core.compile_report import CompileReport
from toto_core.compiling.ahead import PackageStore
from toto_core.compiling.calls import Calls
from toto_core.compiling.running import RunningCalls
from toto_core.device import ran_out_of_memory
from toto_core.requests import RequestError
from toto_core.settings import RuntimeSettings

C = TypeVar("C", bound=RunningCalls)
Compute = Callable[[C], Tensor]
"""Makes a whole forecast with the calls it is given, anew from what was asked."""
Count = Callable[[Tensor], int]
"""How many prices of a forecast were not finite."""
_LOST = ("CUDA error", "cudaError", "CUDNN_STATUS", "CUBLAS_STATUS")


class DeviceLostError(RuntimeError):
    """The GPU answers this process with errors only, in eager mode too, until the process is started anew."""


class RescuedCalls(Generic[C]):
    """The calls of one decoder under some settings; ``rescued`` says why they are eager since, None while not.

    ``make`` makes calls of a decoder, and ``count`` says how many prices of a forecast were not finite; unless
    given they are those of Toto 1.0. Eager mode keeps the settings' precision, because it runs the same weights.
    """

    def __init__(
        self,
        decoder: nn.Module,
        settings: RuntimeSettings,
        packages: PackageStore | None = None,
        *,
        make: Callable[..., C] = Calls,  # type: ignore[assignment] # the default is that of C = Calls
        count: Count | None = None,
    ) -> None:
        self.calls: C = make(decoder, settings, packages)
        self.count: Count = count or replaced
        self.rescued: str | None = None
        self._make = make
        self._decoder = decoder
        self._compiled_report: CompileReport | None = None
        self._usual = 0

    @property
    def report(self) -> CompileReport:
        """What compiling did; after a rescue what it had done, with the calls that ran eagerly since."""
        return self.calls.report if self._compiled_report is None else self._compiled_report

    def run(self, compute: Compute[C]) -> tuple[Tensor, int]:
        """What ``compute`` gives with compiled calls, with eager ones where these fail or give fewer finite prices.

        The prices, and how many of them were not finite.

        Raises what eager mode raises, ``DeviceLostError`` for a GPU that is lost; memory that ran out and requests
        that cannot be forecast are not tried again.
        """
        if self.rescued is not None:
            return self.counted(self._in_eager(compute))
        if not self.calls.settings.compiled:
            return self.counted(compute(self.calls))
        try:
            paths = compute(self.calls)
        except Exception as error:
            if isinstance(error, RequestError) or ran_out_of_memory(error):
                raise
            return self.counted(self._rescue(_told(error), compute, error))
        found = self.count(paths)
        return (paths, found) if found <= self._usual else self._compared(compute, paths, found)

    def counted(self, paths: Tensor) -> tuple[Tensor, int]:
        """``paths``, and how many of them were not finite."""
        return paths, self.count(paths)

    def _compared(self, compute: Compute[C], paths: Tensor, found: int) -> tuple[Tensor, int]:
        """``paths``, of which ``found`` prices were not finite, unless eager mode gives fewer such."""
        eager = self._eager()
        plain = compute(eager)
        usual = self.count(plain)
        if usual < found:
            self._switch(
                eager, f"{found:,} of {paths.numel():,} prices were not finite, {usual:,} in eager mode"
            )
            return plain, usual
        self._usual = usual  # the model itself gives them: up to so many are not looked at again
        return paths, found

    def _rescue(self, why: str, compute: Compute[C], error: Exception) -> Tensor:
        eager = self._eager()
        try:
            paths = compute(eager)
        except Exception as second:  # the settings are not at fault, or nothing in this process helps
            if not any(sign in str(second) for sign in _LOST):
                raise second from error
            lost = f"the GPU is lost to this process, in eager mode too ({_told(second)})"
            raise DeviceLostError(f"{lost}: only starting it anew helps") from second
        self._switch(eager, why)
        return paths

    def _in_eager(self, compute: Compute[C]) -> Tensor:
        if self._compiled_report is not None:
            report = self._compiled_report
            self._compiled_report = dataclasses.replace(report, eager_calls=report.eager_calls + 1)
        return compute(self.calls)

    def _switch(self, eager: C, why: str) -> None:
        report = self.calls.report
        self._compiled_report = dataclasses.replace(report, eager_calls=report.eager_calls + 1)
        self.calls, self.rescued = eager, why

    def _eager(self) -> C:
        return self._make(self._decoder, self.calls.settings.replace(compile_mode="eager"), None)


def replaced(paths: Tensor) -> int:
    """How many prices were not finite: the engine makes them 0, which no sample is otherwise.

    A library that is broken gives NaN all the same; a sum tells of any at once.
    """
    prices = paths.numpy().ravel()
    zeros = prices.size - int(np.count_nonzero(prices))
    if math.isfinite(
        prices.dot(prices)
    ):  # quicker than a sum, and enough: prices whose squares overflow are counted
        return zeros
    return zeros + prices.size - int(np.count_nonzero(np.isfinite(prices)))


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0][:300]}"
