"""A forecast as a fan beside the prices that came, from the document that ``autotune forecast --hindcast`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuner.report.charts import Chart
from autotuner.report.figure_parts import LIMIT, REFERENCE, WINNER, Figure, curve, layout, points

NAME, TITLE = "fan", "The last forecast beside what came"


def fan_chart(document: Mapping[str, Any]) -> Chart:
    """The last prices, the forecast from them with its 50 and 80 % bands, and the prices that came."""
    past, came, bands = document["recent"], document["realised"], document["quantiles"]
    steps = [*range(1, document["horizon"] + 1)]
    before = [*range(1 - len(past), 1)]
    centre = document["median"] or document["mean"]
    data: list[Figure] = []
    for name, low, high, shade in (("10 to 90 %", "0.1", "0.9", 0.15), ("25 to 75 %", "0.25", "0.75", 0.3)):
        if bands:
            data.append(_edge(steps, bands[high], name) | {"showlegend": False})
            data.append(
                _edge(steps, bands[low], name) | {"fill": "tonexty", "fillcolor": f"rgba(0,114,178,{shade})"}
            )
    data.append(curve(before, past, name="prices before", color=REFERENCE))
    data.append(curve(steps, centre, name="forecast", color=WINNER))
    data.append(points(steps, came, name="prices that came", color=LIMIT, symbol="x"))
    figure = layout("steps from the last price that the forecast saw", "price")
    return Chart(
        name=NAME, title=TITLE, says=_says(document, centre, came), figure={"data": data, "layout": figure}
    )


def _says(document: Mapping[str, Any], centre: list[float], came: list[float]) -> str:
    error = sum(abs(one - other) for one, other in zip(centre, came, strict=True)) / len(came)
    bands = document["quantiles"]
    if not bands:
        return f"Forecast as of {document['as_of'][:10]}; mean absolute error {error:.4g}."
    inside = sum(
        low <= price <= high for low, price, high in zip(bands["0.1"], came, bands["0.9"], strict=True)
    )
    return (
        f"Forecast as of {document['as_of'][:10]}; mean absolute error {error:.4g}; {inside} of {len(came)} prices "
        "came within the 80 % band. One forecast says little: the drift above is over many."
    )


def _edge(steps: list[int], values: list[float], name: str) -> Figure:
    line = curve(steps, values, name=name, color="rgba(0,114,178,0)")
    return line | {"hoverinfo": "skip", "legendgroup": name}
