"""The model card of toto-mini: what it is, how it was made, and how it does on prices it never saw."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from toto_core.series import PriceSeries
from toto_core.toto1.model_config import ModelConfig
from toto_core.training.fit import Plan
from toto_core.training.held_out import CONTEXT, HORIZONS, SAMPLES, WINDOWS, average_ratio
from toto_core.training.scoring import Score

RECORD_FILE, CARD_FILE = "training.json", "README.md"
_wrapped = partial(textwrap.fill, width=110)


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What a training run was: kept beside the weights, because they do not tell. Raises ``ValueError``."""

    steps: int
    seed: int
    threads: int
    seconds: float
    torch: str

    def __post_init__(self) -> None:
        if self.steps < 1 or self.threads < 1 or self.seconds < 0.0:
            raise ValueError("training record: steps and threads must be at least 1 and seconds at least 0")

    def write(self, folder: Path) -> None:
        """Write the record into a model's folder."""
        (folder / RECORD_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> TrainingRecord | None:
        """The record in a model's folder, None when there is none that can be read."""
        try:
            return cls(**json.loads((folder / RECORD_FILE).read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError):
            return None


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The model as shipped: ``bytes`` of its weights file, ``digest`` of its configuration and weights."""

    config: ModelConfig
    parameters: int
    bytes: int
    digest: str


def card(
    weights: Weights,
    record: TrainingRecord | None,
    series: Mapping[str, PriceSeries],
    scores: Sequence[Score],
) -> str:
    """The card as Markdown."""
    return "\n".join((_what(weights), _data(series), _training(record), _quality(scores), LIMITS))


def _what(weights: Weights) -> str:
    config = weights.config
    return f"""# toto-mini

A small model in the Toto 1.0 architecture that ships inside the package, so that everything can be tried
without a download: probabilistic forecasts of price series, one or several at a time.

| | |
| --- | --- |
| parameters | {weights.parameters:,} |
| `model.safetensors` | {weights.bytes:,} bytes, float32 |
| digest | `{weights.digest}` (SHA-256 over those of `config.json` and `model.safetensors`) |
| patch | {config.patch_size} time steps |
| layers | {config.num_layers} ({", ".join(config.layer_axes)}) |
| width, heads, MLP | {config.embed_dim}, {config.num_heads}, {config.mlp_hidden_dim} |
| output | mixture of {config.k_components} Student-t distributions per time step |
| scaler | causal, per patch |

Load it with `TotoPipeline.from_pretrained("toto-mini")`. The files have the official layout of Toto
checkpoints.
"""


def _data(series: Mapping[str, PriceSeries]) -> str:
    rows = "\n".join(
        f"| {symbol} | {len(one):,} | {_day(one, 0)} … {_day(one, -1)} | {_day(one, one.last_fifth_start())} |"
        for symbol, one in series.items()
    )
    return f"""## Data

| symbol | closing prices | span | last fifth begins |
| --- | --- | --- | --- |
{rows}

Real closing prices from data sets that installable packages carry; `SOURCES.md` in the package's assets names
each package and its licence. A package's licence does not by itself settle rights in the prices inside it.

The first 60 % of each series were trained on, mirrored, reversed and brought to random price levels, beside
synthetic walks (Student-t returns, persistent volatility, some drift, some jumps). The next 20 % decided which
weights to keep. The last 20 % were scored once, below.
"""


def _day(series: PriceSeries, index: int) -> str:
    return str(series.timestamps[index].astype("datetime64[D]"))


def _training(record: TrainingRecord | None) -> str:
    plan = Plan()
    run = "The run left no record."
    if record is not None:
        run = (
            f"{record.steps:,} steps, seed {record.seed}, {record.threads} CPU threads, torch {record.torch}: "
            f"{record.seconds / 60.0:.0f} minutes. A run is seeded; another thread count, torch or kind of CPU "
            "rounds differently, and a change to the training or scoring code may keep other weights."
        )
    how = (
        f"AdamW on the likelihood of every next patch; peak learning rate {plan.learning_rate:g}, warmed up over "
        f"100 steps, then cosine decay; batches of {plan.batch} windows of {plan.context} time steps and one more "
        f"patch, {100.0 * plan.real_share:.0f} % of them real. Every {plan.check_every} steps the error at "
        "horizon 8 on the validation share was compared with that of the last value, and the best weights were "
        "kept. `python -m toto_core.training` trains by this plan."
    )
    return f"## Training\n\n{_wrapped(run)}\n\n{_wrapped(how)}\n"


def _quality(scores: Sequence[Score]) -> str:
    rows = "\n".join(
        f"| {one.symbol} | {one.horizon} | {one.windows} | {one.model:.3f} | {one.last_value:.3f} "
        f"| {one.seasonal:.3f} | {one.ratio:.3f} |"
        for one in scores
    )
    averages = ", ".join(f"{average_ratio(scores, horizon):.3f} at horizon {horizon}" for horizon in HORIZONS)
    how = (
        f"Mean absolute error, in units of the price, of the median of {SAMPLES} samples over all steps from 1 to "
        f"the horizon. Contexts of {CONTEXT} time steps; up to {WINDOWS} windows spread evenly over the last "
        "fifth. The last value repeats the newest price; the seasonal forecast repeats the last week of daily or "
        "the last day of hourly prices."
    )
    summary = (
        f"Average of model / last value: {averages}. For prices like these the last value is nearly the best "
        "median there is; what the model adds is a distribution around it."
    )
    return f"""## Held-out error

{_wrapped(how)}

| symbol | horizon | windows | model | last value | seasonal | model / last value |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

{_wrapped(summary)}
"""


LIMITS = """## Limits

A model for demonstration and tests, not for trading. It saw five series; it has no notion of dates, sessions,
dividends or news. It was not scored on series of other kinds, on several variates at once, or on the calibration
of its quantiles.
"""
