"""``autotune forecast``: what the model says of a symbol's next prices, with the settings stored for it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from autotuner.cli.options import device_option, note, one_symbol, print_json, store_options
from autotuner.cli.price_options import price_options
from autotuner.errors import AutotuneError
from autotuner.record_mapping import moment
from autotuner.workload import LONGEST, RequestShape, Workload
from toto_core.settings import RuntimeSettings

if TYPE_CHECKING:
    from autotuner.engines.protocol import Pipeline
    from autotuner.report.forecast_view import ForecastView
    from autotuner.serving.resolution import Resolution
    from toto_core.series import PriceSeries, PriceSource

_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_SHOWN_PRICES = 40
_TELLING = ("snapshot", "symbol", "promotion", "workload winner")
"""Steps of the search for settings whose failing a person wants to hear of."""


@click.command()
@one_symbol
@click.option(
    "--horizon",
    type=click.IntRange(1, LONGEST),
    help="Time steps to forecast [default: as the symbol was tuned, else 8].",
)
@click.option(
    "--num-samples",
    type=click.IntRange(0, LONGEST),
    help="Sample paths, 0 for the mean path [default: as the symbol was tuned, else 256].",
)
@click.option(
    "--context-length",
    type=click.IntRange(1, LONGEST),
    help="Last prices that the model sees [default: as the symbol was tuned, else 512].",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the noise.")
@price_options
@click.option(
    "--model", help="toto-mini, a folder, or a hub id [default: as the symbol was tuned, else toto-mini]."
)
@device_option
@click.option(
    "--hindcast",
    is_flag=True,
    help="Forecast the last prices from those before them, and lay it beside what came.",
)
@click.option("--eager", is_flag=True, help="Run uncompiled in fp32, whatever is stored.")
@store_options
def forecast_command(
    symbol: str, prices: PriceSource, hindcast: bool, eager: bool, as_json: bool, **options: Any
) -> None:
    """Forecast the next prices of SYMBOL and say with which settings, and why with these.

    Settings hold for the workload they were measured for: another horizon, context or number of samples than
    the symbol was tuned for runs in eager mode unless that workload was tuned as well.

    \b
    autotune forecast AMD
    autotune forecast BTCUSD --horizon 24 --eager --json
    autotune forecast AMD --hindcast
    """
    from toto_core.series import find_series

    asked = {name: options.pop(name) for name in ("model", "device", "db")}
    asked["settings"] = RuntimeSettings() if eager else None
    series = find_series(symbol, prices.path, options=prices.options)
    made = _make(symbol, series, asked, hindcast=hindcast, **options)
    if as_json:
        print_json(made.document())
        return
    from autotuner.cli.safe_console import SafeConsole
    from autotuner.report.forecast_view import drawing
    from autotuner.report.terminal_plot import NARROWEST, forecast_plot

    console, view = SafeConsole(markup=True), made.view()
    ascii_only = console.options.ascii_only
    plotted = console.is_terminal and not ascii_only and console.width >= NARROWEST
    plot = forecast_plot(view, width=console.width) if plotted else None
    console.print(drawing(view, width=console.width, ascii_only=ascii_only, plot=plot))


@dataclass(frozen=True, kw_only=True)
class _Made:
    """A forecast and all that is told about it."""

    found: Resolution
    series: PriceSeries
    shape: RequestShape
    seed: int
    pipeline: Pipeline
    forecast: Any
    ready_ms: float
    ahead: int = 0
    """How many of the prices are later than what was forecast from: those that came."""

    @property
    def metadata(self) -> dict[str, Any]:
        return self.pipeline.last_run_metadata

    @property
    def source(self) -> str:
        """Where the settings come from; the pipeline knows when they did not work here."""
        return str(self.metadata.get("settings_source", self.found.source))

    @property
    def as_of(self) -> str:
        return moment(self.series.timestamps[-1 - self.ahead]).isoformat()

    @property
    def has_spread(self) -> bool:
        """Whether there is more to draw than one path."""
        from autotuner.engines.protocol import has_spread

        return has_spread(self.forecast)

    @property
    def past(self) -> list[float]:
        """The prices that were forecast from."""
        prices: list[float] = self.series.close[: len(self.series) - self.ahead].tolist()
        return prices

    @property
    def realised(self) -> list[float]:
        """The prices that came, none where the forecast is of the future."""
        prices: list[float] = self.series.close[len(self.series) - self.ahead :].tolist()
        return prices

    def document(self) -> dict[str, Any]:
        from autotuner.report.documents import lookup_document
        from autotuner.tuning.document import series_document

        quantiles = {str(q): self._quantile(q) for q in _QUANTILES} if self.has_spread else {}
        return lookup_document(self.found) | {
            "symbol": self.found.symbol,
            "as_of": self.as_of,
            "last_price": self.past[-1],
            "recent": self.past[-_SHOWN_PRICES:],
            "realised": self.realised,
            "horizon": self.shape.prediction_length,
            "context_length": self.shape.context_length,
            "num_samples": self.shape.num_samples,
            "seed": self.seed,
            "model": self.found.model,
            "mean": self._middle,
            "median": quantiles.get("0.5"),
            "quantiles": quantiles,
            "settings": self.pipeline.settings.to_dict(),
            "source": self.source,
            "ready_ms": self.ready_ms,
            "latency_ms": self.metadata["latency_ms"],
            "first_call_ms": self.metadata["cold_start_ms"],
            "metadata": self.metadata,
            "series": series_document(self.series),
        }

    def view(self) -> ForecastView:
        from autotuner.report.forecast_view import ForecastView

        stored = self.found.since if self.source == self.found.source else None
        since = f" since {stored[:10]}" if stored else ""
        first_ms, latency_ms = self.metadata["cold_start_ms"], self.metadata["latency_ms"]
        return ForecastView(
            title=f"{self.found.symbol} as of {self.as_of}, {self.found.model}",
            history=tuple(self.past[-_SHOWN_PRICES:]),
            centre=tuple(self._quantile(0.5) if self.has_spread else self._middle),
            low=tuple(self._quantile(0.1)) if self.has_spread else (),
            high=tuple(self._quantile(0.9)) if self.has_spread else (),
            realised=tuple(self.realised),
            notes=(
                ("settings", self.pipeline.settings.label),
                ("from", f"{self.source}{since}"),
                ("latency", f"{latency_ms:.1f} ms"),
                ("first call", f"{first_ms:,.0f} ms with loading; ready after {self.ready_ms:,.0f} ms"),
                ("prices", self.series.source),
                *(("prices", repair) for repair in self.series.repairs),
                *(("why", reason) for reason in self._why_not_stored()),
            ),
        )

    def _why_not_stored(self) -> list[str]:
        if self.found.source not in {"default", "workload winner", "environment variable"}:
            return []
        return [reason for reason in self.found.reasons if reason.startswith(_TELLING)]

    @property
    def _middle(self) -> list[float]:
        """The mean, or the median of an engine that knows no mean."""
        mean = getattr(self.forecast, "mean", None)
        return _values(self.forecast.median if mean is None else mean)

    def _quantile(self, q: float) -> list[float]:
        return _values(self.forecast.quantile(q))


def _make(
    symbol: str,
    series: PriceSeries,
    asked: dict[str, Any],
    *,
    hindcast: bool,
    seed: int,
    **lengths: int | None,
) -> _Made:
    """Forecast with what the store says of ``asked``, which is what ``lookup`` and ``load_pipeline`` take."""
    from autotuner.serving.lookup import lookup
    from autotuner.serving.pipeline import load_pipeline

    shape, workload = _request(lookup(symbol, **asked), **lengths)
    ahead = shape.prediction_length if hindcast else 0
    if len(series) < shape.context_length + ahead:
        beside = f" and {ahead} to lay it beside" if ahead else ""
        raise AutotuneError(
            f"{symbol}: {series.source} holds {len(series)} prices and the context needs {shape.context_length}"
            f"{beside}; give a longer history or a smaller --context-length"
        )
    with _warnings_as_notes():
        started = time.perf_counter()
        pipeline = load_pipeline(symbol, workload=workload, **asked)
        ready_ms = (time.perf_counter() - started) * 1000.0
        context = series.close[: len(series) - ahead][-shape.context_length :]
        forecast = pipeline.predict(context, shape.prediction_length, shape.num_samples, seed)
    return _Made(
        found=lookup(symbol, workload=workload, **asked),
        series=series,
        shape=shape,
        seed=seed,
        pipeline=pipeline,
        forecast=forecast,
        ready_ms=ready_ms,
        ahead=ahead,
    )


def _request(
    stored: Resolution, *, horizon: int | None, num_samples: int | None, context_length: int | None
) -> tuple[RequestShape, Workload]:
    """The request to make, by default the one the symbol is mostly used for, and the workload it belongs to."""
    shapes = (RequestShape(),) if stored.workload is None else stored.workload.shapes
    usual = max(shapes, key=lambda shape: shape.weight)
    shape = RequestShape(
        context_length=context_length or usual.context_length,
        prediction_length=horizon or usual.prediction_length,
        num_samples=usual.num_samples if num_samples is None else num_samples or None,
    )
    if stored.workload is not None and shape in {dataclasses.replace(each, weight=1.0) for each in shapes}:
        return shape, stored.workload
    return shape, Workload(model=stored.model, shapes=(shape,))


@contextlib.contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Each warning of ours once, on one line: a quarantine or a refused cache; not what torch deprecates."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    ours = (warning.message for warning in caught if issubclass(warning.category, RuntimeWarning))
    for line in dict.fromkeys(" ".join(str(message).split()) for message in ours):
        note(f"warning: {line}")


def _values(tensor: Any) -> list[float]:
    """The (1, 1, step) prices of one series as plain numbers."""
    values: list[float] = tensor[0, 0].tolist()
    return values
