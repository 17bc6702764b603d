"""The training loop: next-patch likelihood at every patch, seeded, stopped on the validation share."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from toto_core.toto1.decode import Decoder
from toto_core.toto1.model import TotoModel
from toto_core.toto1.model_config import ModelConfig
from toto_core.toto1.sampling import Mixture
from toto_core.training.data import TRAIN_END, VALIDATION_END, Prices, training_batch
from toto_core.training.scoring import one_patch_median, score

THREADS = 2
"""Threads the shipped weights were trained with; another count rounds, and so trains, differently."""

MINI = ModelConfig(
    patch_size=32,
    embed_dim=128,
    num_layers=6,
    num_heads=4,
    mlp_hidden_dim=320,
    spacewise_every_n_layers=6,
    k_components=8,
)
"""toto-mini: 1.7 M parameters in the shape of the released model, the last layer space-wise."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and on what to train. ``context`` in time steps, ``learning_rate`` at its peak."""

    steps: int = 2500
    batch: int = 64
    context: int = 512
    real_share: float = 0.35
    learning_rate: float = 2e-3
    seed: int = 20
    check_every: int = 250


def fit(series: Mapping[str, Prices], plan: Plan, report: Callable[[str], None]) -> TotoModel:
    """Train toto-mini and return the weights that did best on the validation share, in evaluation mode."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    model = TotoModel(MINI)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=plan.learning_rate, weight_decay=0.02, betas=(0.9, 0.95)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, plan.steps))
    best, best_ratio = copy.deepcopy(model), math.inf
    started = time.monotonic()
    window = plan.context + MINI.patch_size
    for step in range(1, plan.steps + 1):
        batch = training_batch(series, rng, size=plan.batch, length=window, real_share=plan.real_share)
        loss = next_patch_loss(model, torch.from_numpy(batch).unsqueeze(1))
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % plan.check_every == 0 or step == plan.steps:
            ratio = validation_ratio(model, series, plan.context)
            report(
                f"step {step}: loss {loss.item():.3f}, "
                f"validation MAE / last value {ratio:.4f}, {time.monotonic() - started:.0f} s"
            )
            if ratio < best_ratio:
                best, best_ratio = copy.deepcopy(model), ratio
    return best.eval().requires_grad_(False)


def next_patch_loss(model: TotoModel, series: Tensor) -> Tensor:
    """Mean negative log-likelihood of every next patch. ``series`` is (batch, variate, time) in whole patches."""
    size = model.config.patch_size
    valid = torch.ones_like(series, dtype=torch.bool)
    groups = torch.zeros((*series.shape[:2], series.shape[2] // size), dtype=torch.long)
    output = model(series, valid, groups)
    target = torch.unflatten(series, -1, (-1, size))[:, :, 1:]
    scaled = (target - output.loc[..., :-1, None]) / output.scale[..., :-1, None]
    parameters = Mixture(*(torch.unflatten(p, 2, (-1, size))[:, :, :-1] for p in output.mixture))
    component = torch.distributions.StudentT(*parameters[1:], validate_args=False)
    log_prob: Callable[[Tensor], Tensor] = component.log_prob  # torch leaves it untyped
    log_likelihood = torch.logsumexp(parameters.probs.log() + log_prob(scaled.unsqueeze(-1)), dim=-1)
    return -log_likelihood[:, :, 1:].mean()  # the first patch knows too little of its series to be scored


def validation_ratio(model: TotoModel, series: Mapping[str, Prices], context: int) -> float:
    """Average over the symbols of MAE at horizon 8 over last-value MAE, on the validation share."""
    model.eval()
    median = one_patch_median(Decoder(model))
    scores = [
        score(
            symbol,
            prices,
            median,
            start=int(len(prices) * TRAIN_END),
            stop=int(len(prices) * VALIDATION_END),
            horizon=8,
            context=context,
            windows=128,
            season=5,
        )
        for symbol, prices in series.items()
    ]
    model.train()
    return float(np.mean([s.ratio for s in scores]))


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / 100)
    return warm * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * step / steps)))
