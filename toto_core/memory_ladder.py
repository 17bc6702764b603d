"""Running out of memory: the request in smaller portions, then with fewer samples, remembered for the process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from toto_core.device import ran_out_of_memory
from toto_core.requests import ForecastRequest, RequestError

Result = TypeVar("Result")


class Sizes(NamedTuple):
    """The most that fitted once more had not; None for what never had to be made smaller."""

    num_samples: int | None = None
    samples_per_batch: int | None = None


_fitted: dict[Hashable, Sizes] = {}
"""By what decides how much memory a sample takes."""


class ForecastMemoryError(RuntimeError):
    """There is no memory for the forecast in any size that was allowed; the message names the last sizes."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """How far a request may shrink when memory runs out.

    retries                how often it is tried again; 0 for never.
    min_samples_per_batch  sample paths decoded together are halved down to this; it changes no number.
    min_num_samples        then the samples are halved down to this; those that remain are the same numbers.

    Raises ``RequestError`` for a number outside its range.
    """

    retries: int = 2
    min_samples_per_batch: int = 32
    min_num_samples: int = 256

    def __post_init__(self) -> None:
        for name, low in (("retries", 0), ("min_samples_per_batch", 1), ("min_num_samples", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                told = "max_oom_retries" if name == "retries" else name
                raise RequestError(f"{told} must be a whole number of at least {low}, not {value!r}")

    def step(self, request: ForecastRequest) -> ForecastRequest | None:
        """The next smaller request, None at the bottom.

        The first patch of a forecast is never split into portions, so one of a single patch goes on with fewer
        samples at once.
        """
        if request.num_samples is None:
            return None
        if request.patches > 1 and request.together > self.min_samples_per_batch:
            return request.with_smaller_batches(max(self.min_samples_per_batch, request.together // 2))
        if request.num_samples > self.min_num_samples:
            return request.with_fewer(max(self.min_num_samples, request.num_samples // 2))
        return None

    def start(self, request: ForecastRequest, most: Sizes) -> ForecastRequest:
        """``request``, no larger than what fitted in this process, but never below what the caller allows."""
        if request.num_samples is None:
            return request
        if most.num_samples is not None:
            request = request.with_fewer(max(most.num_samples, self.min_num_samples))
        if most.samples_per_batch is not None:
            request = request.with_smaller_batches(max(most.samples_per_batch, self.min_samples_per_batch))
        return request


def fitting(
    work: Callable[[ForecastRequest], Result],
    request: ForecastRequest,
    ladder: Ladder,
    *,
    about: Hashable,
    free: Callable[[], None],
) -> tuple[Result, ForecastRequest, int]:
    """``work(request)`` in the largest size that fits: what it gave, the request that fitted, how often it had not.

    ``about`` is what decides the memory of a sample: the next call about the same starts where this one ended.
    ``free`` gives back what can be given back between tries. Raises ``ForecastMemoryError``.
    """
    current = ladder.start(request, _fitted.get(about, Sizes()))
    for tries in range(ladder.retries + 1):
        try:
            result = work(current)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            cause = error.with_traceback(None)  # its frames hold the tensors that did not fit
        else:
            if tries:
                _fitted[about] = _sizes(request, current, _fitted.get(about, Sizes()))
                _say(request, current)
            return result, current, tries
        free()
        smaller = ladder.step(current) if tries < ladder.retries else None
        if smaller is None:
            break
        current = smaller
    raise ForecastMemoryError(_no_memory(request, current)) from cause


def forget() -> None:
    """Forget every size that did not fit, as a new process does."""
    _fitted.clear()


def _sizes(asked: ForecastRequest, used: ForecastRequest, before: Sizes) -> Sizes:
    return Sizes(
        used.num_samples if used.num_samples != asked.num_samples else before.num_samples,
        used.together if used.together != asked.together else before.samples_per_batch,
    )


def _say(asked: ForecastRequest, used: ForecastRequest) -> None:
    warnings.warn(
        f"out of memory: this process goes on with num_samples={used.num_samples} (asked {asked.num_samples}) and "
        f"samples_per_batch={used.together} (asked {asked.together})",
        RuntimeWarning,
        stacklevel=5,
    )


def _no_memory(asked: ForecastRequest, last: ForecastRequest) -> str:
    if asked.num_samples is None:
        return "out of memory for the mean path, which cannot be made smaller: give a shorter context"
    return (
        f"out of memory even with num_samples={last.num_samples} and samples_per_batch={last.together} (asked "
        f"{asked.num_samples} and {asked.together}): give a shorter context, or allow smaller sizes with "
        "max_oom_retries, min_samples_per_batch and min_num_samples"
    )
