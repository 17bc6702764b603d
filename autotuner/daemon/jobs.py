"""The commands that a tick has run in a place, with what the configuration says of them."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.daemon.config import Config, price_arguments
from autotuner.daemon.places import Job, Place
from autotuner.daemon.plan import Due
from autotuner.store import Promotion

RECHECK_SECONDS = 120.0
"""What a recheck may take: two processes start, and forecast some fifty windows each."""
_SPARE_SECONDS = 60.0
"""A run may take this much longer than it was given before it is stopped: it stores and cleans up."""


def recheck_job(config: Config, promotion: Promotion, place: Place) -> Job:
    """``autotune recheck`` of what a symbol is promoted for."""
    prices = price_arguments(config.prices_of(promotion.symbol))
    options = ["--timeout", str(RECHECK_SECONDS), "--profile", promotion.profile]
    return Job(
        symbol=promotion.symbol,
        place=place,
        arguments=("recheck", promotion.symbol, *_common(config), *options, *prices),
        seconds=RECHECK_SECONDS + _SPARE_SECONDS,
    )


def run_job(config: Config, due: Due, place: Place, why: str) -> Job:
    """``autotune run`` of a symbol that is due."""
    daemon = config.daemon
    canary = ["--canary", str(daemon.canary_share)] if daemon.canary_share else []
    fresh = ["--fresh"] if any(reason.kind != "never tuned" for reason in due.reasons) else []
    arguments = [
        *("--symbol", due.symbol, "--timeout", str(due.seconds), "--because", why),
        *(part for reason in due.reasons for part in ("--trigger", reason.kind)),
        *_common(config),
        *canary,
        *fresh,
        *("--as-before", *price_arguments(config.prices_of(due.symbol))),
        *config.of(due.symbol).arguments(),
    ]
    return Job(
        symbol=due.symbol, place=place, arguments=("run", *arguments), seconds=due.seconds + _SPARE_SECONDS
    )


def _common(config: Config) -> Sequence[str]:
    daemon = config.daemon
    threads = ["--threads", str(daemon.threads)] if daemon.threads else []
    return ["--device", daemon.device, *threads]  # the store is in its environment: ps shows arguments
