from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from autotuner.report.forecast_view import ForecastView, drawing
from autotuner.report.terminal_plot import HEIGHT, NARROWEST, forecast_plot

VIEW = ForecastView(
    title="AMD",
    history=tuple(100.0 + (step % 7) for step in range(60)),
    centre=(103.0, 104.0, 105.0, 106.0),
    low=(101.0, 101.0, 100.0, 99.0),
    high=(105.0, 107.0, 110.0, 113.0),
)


@pytest.mark.parametrize("width", [NARROWEST, 100, 200])
def test_the_plot_is_as_wide_as_asked_for(width: int) -> None:
    lines = forecast_plot(VIEW, width=width).plain.splitlines()
    assert len(lines) == HEIGHT
    assert max(len(line.rstrip()) for line in lines) == width


def test_what_came_is_drawn_where_it_is_known() -> None:
    came = replace(VIEW, realised=(102.0, 105.0, 104.0, 108.0))
    assert "came" not in forecast_plot(VIEW, width=100).plain
    assert "came" in forecast_plot(came, width=100).plain


def test_past_band_and_forecast_are_named_and_differ_without_colours() -> None:
    text = forecast_plot(VIEW, width=100).plain
    assert all(word in text for word in ("prices", "10 %", "90 %", "forecast"))
    assert "•" in text
    assert any("\u2800" < character <= "\u28ff" for character in text)


def test_a_forecast_without_a_band_or_with_one_flat_price_is_drawn() -> None:
    flat = ForecastView(title="AMD", history=(5.0,) * 20, centre=(5.0,) * 3)
    assert "forecast" in forecast_plot(flat, width=80).plain


def test_the_plot_takes_the_place_of_the_line_of_prices() -> None:
    console = Console(width=100, color_system=None)
    with console.capture() as with_plot:
        console.print(drawing(VIEW, width=100, ascii_only=False, plot=forecast_plot(VIEW, width=100)))
    with console.capture() as without:
        console.print(drawing(VIEW, width=100, ascii_only=False))
    assert "last 60 prices," in without.get()
    assert "last 60 prices," not in with_plot.get()
    assert "┌" in with_plot.get()
