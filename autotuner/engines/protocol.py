"""What an engine is: it knows its models by their files, and loads them under settings; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autotuner.workload import Workload
from toto_core.settings import KnobValue, RuntimeSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from toto_core.compile_report import CompileReport


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """A model as files in ``folder``: the SHA-256 of what decides its forecasts, and the size of its weights.

    ``patch_size`` is the least context in time steps, and what contexts are padded to. ``about`` says in a few words
    how large the model is, ``licence`` names it where the files do.
    """

    folder: Path
    digest: str
    weights_bytes: int
    patch_size: int = 1
    about: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What of an engine decides which settings can differ.

    ``knobs`` are the names of its own settings with their values, the default first; ``ignored`` the fields of
    ``RuntimeSettings`` that change nothing for it; ``one_pass`` says that one graph forecasts a whole horizon;
    ``samples`` that it draws sample paths: the others give quantiles, and ``num_samples`` means nothing to them.
    """

    knobs: Mapping[str, tuple[KnobValue, ...]]
    ignored: tuple[str, ...] = ()
    one_pass: bool = False
    samples: bool = False


class Forecast(Protocol):
    """Prices of one or more series on the CPU; ``quantile`` and ``median`` are (batch, variate, time).

    It has ``samples`` (batch, variate, time, sample), or ``quantiles`` (level, batch, variate, time), or is one path,
    its ``mean``.
    """

    @property
    def median(self) -> Tensor:
        """The middle of the forecast."""
        ...

    def quantile(self, q: float | Tensor) -> Tensor:
        """Quantile ``q``, with a leading dimension for several."""
        ...


class Pipeline(Protocol):
    """A loaded model: arrays in, a forecast out. ``TotoPipeline`` says what each attribute means."""

    settings: RuntimeSettings
    device: torch.device
    last_run_metadata: dict[str, Any]
    provenance: dict[str, str]
    on_call: Callable[[float, tuple[int, int, int], CompileReport, int | None], None] | None
    on_rescue: Callable[[str], None] | None
    rescues: bool
    patch_size: int
    cold_start_ms: float | None

    @property
    def compile_report(self) -> CompileReport:
        """What compiling did so far."""
        ...

    @property
    def rescued(self) -> str | None:
        """Why a compiled call had to be answered in eager mode; None while none had to."""
        ...

    @property
    def peak_bytes(self) -> int:
        """Most bytes used so far."""
        ...

    def predict(
        self, context: Any, prediction_length: int = ..., num_samples: int | None = ..., seed: int = ...
    ) -> Any:
        """A ``Forecast`` of ``prediction_length`` steps after ``context``, (batch, variate, time) or less."""
        ...

    def predict_many(
        self,
        contexts: Mapping[str, Any],
        prediction_length: int = ...,
        num_samples: int | None = ...,
        seed: int = ...,
    ) -> Any:
        """A ``Forecast`` for each of several series, by name."""
        ...

    def hold_compilation(self, *, hold: bool = ...) -> None:
        """Compile nothing from now on, until told otherwise."""
        ...

    def unload(self) -> None:
        """Free the model."""
        ...


class Engine(Protocol):
    """A family of models. ``claims`` and ``identity`` read files and never run code of the model's.

    ``models`` says in a few words which they are.
    """

    name: str
    models: str

    def claims(self, folder: Path) -> bool:
        """Whether the model in ``folder`` is of this family, by its ``config.json``; must not raise."""
        ...

    def identity(self, model: str, revision: str | None = None) -> ModelIdentity:
        """The model's files, checked. Raises ``CheckpointError`` with one line."""
        ...

    def traits(self, workload: Workload) -> Traits:
        """Which settings it has for ``workload``."""
        ...

    def load(
        self,
        model: str,
        *,
        revision: str | None,
        settings: RuntimeSettings,
        device: str,
        artifacts: Path | None,
        measured: bool = False,
    ) -> Pipeline:
        """The model under ``settings``; ``artifacts`` is a private folder for what is compiled, None for none.

        A pipeline that is ``measured`` fails where it would otherwise make a request smaller. Raises
        ``CheckpointError`` and ``DeviceError``, each with one line, and whatever torch raises.
        """
        ...

    def exact(self, model: str, *, revision: str | None, device: str) -> Pipeline | None:
        """The model uncompiled in float64, to judge rounding by; None where the engine has no such thing."""
        ...


def numbers(forecast: Any) -> Tensor:
    """Everything a forecast consists of: its samples, its quantiles, or its only path."""
    for name in ("samples", "quantiles", "mean"):
        found: Tensor | None = getattr(forecast, name, None)
        if found is not None:
            return found
    middle: Tensor = forecast.median
    return middle


def has_spread(forecast: Any) -> bool:
    """Whether a forecast says how sure it is: it has samples or quantiles, and is not one path alone."""
    return any(getattr(forecast, name, None) is not None for name in ("samples", "quantiles"))


def first_quantiles(forecast: Any, levels: tuple[float, ...]) -> list[list[float]]:
    """Quantiles [level][step] of the first series and variate; of a forecast that is one path, that path."""
    import torch

    samples: Tensor | None = getattr(forecast, "samples", None)
    found: list[list[float]]
    if samples is not None:  # only of the first series: those of all can be more than torch sorts
        first = samples[0, 0]
        found = torch.quantile(first, torch.tensor(levels, dtype=first.dtype), dim=-1).tolist()
        return found
    if not has_spread(forecast):
        return [forecast.mean[0, 0].tolist() for _ in levels]
    found = [forecast.quantile(level)[0, 0].tolist() for level in levels]
    return found
