"""``python -m toto_core.training``: trains toto-mini on the embedded series, or scores it, and writes its card."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from toto_core.model_files import WEIGHTS_FILE, CheckpointError, digest, locate
from toto_core.pipeline import TotoPipeline
from toto_core.series import PriceSeries, available_symbols, find_series
from toto_core.settings import RuntimeSettings
from toto_core.toto1 import checkpoint
from toto_core.training.card import CARD_FILE, TrainingRecord, Weights, card
from toto_core.training.fit import THREADS, Plan, fit
from toto_core.training.held_out import average_ratio, held_out_scores

_say = partial(print, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or score; 0 when the card was written, 1 when there is no model to score."""
    given = _parser().parse_args(arguments)
    torch.set_num_threads(THREADS)
    series = {symbol: find_series(symbol, None) for symbol in available_symbols(None)}
    try:
        if given.score is None:
            train(given.out, Plan(steps=given.steps, seed=given.seed), series)
        write_card(given.score or given.out, series)
    except CheckpointError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def train(folder: Path, plan: Plan, series: Mapping[str, PriceSeries]) -> None:
    """Train toto-mini on ``series`` and write weights, configuration and training record into ``folder``."""
    started = time.monotonic()
    model = fit({symbol: one.close for symbol, one in series.items()}, plan, _say)
    seconds = round(time.monotonic() - started, 1)
    checkpoint.save(model, folder)
    threads, version = torch.get_num_threads(), torch.__version__.split("+")[0]
    record = TrainingRecord(steps=plan.steps, seed=plan.seed, threads=threads, seconds=seconds, torch=version)
    record.write(folder)
    _say(f"weights written to {folder}")


def write_card(folder: Path, series: Mapping[str, PriceSeries]) -> None:
    """Score the model in ``folder`` on the last fifth of ``series``, write its card. Raises ``CheckpointError``."""
    # absolute, so that a folder called toto-mini is not taken for the embedded model
    whole = folder.resolve()
    model = checkpoint.load(locate(str(whole)))
    weights = Weights(
        config=model.config,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        bytes=(whole / WEIGHTS_FILE).stat().st_size,
        digest=digest(whole),
    )
    pipeline = TotoPipeline.from_pretrained(str(whole), settings=RuntimeSettings(series_per_batch=25))
    scores = held_out_scores(pipeline, series.values())
    for one in scores:
        _say(f"{one.symbol} horizon {one.horizon}: MAE / last value {one.ratio:.4f}")
    _say(f"average at horizon 8: {average_ratio(scores, 8):.4f}")
    text = card(weights, TrainingRecord.read(folder), series, scores)
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
    _say(f"card written to {folder / CARD_FILE}")


def _parser() -> argparse.ArgumentParser:
    plan = Plan()
    parser = argparse.ArgumentParser("python -m toto_core.training", description="Train or score toto-mini.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("toto-mini"), help="where the model goes"
    )
    where.add_argument("--score", type=Path, metavar="DIR", help="train nothing: score the model in DIR")
    parser.add_argument("--steps", type=int, metavar="N", default=plan.steps, help="training steps")
    parser.add_argument(
        "--seed", type=int, metavar="N", default=plan.seed, help="seed of weights and windows"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
