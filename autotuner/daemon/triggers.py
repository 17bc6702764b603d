"""Why a symbol should be tuned again: pure decisions with their reason."""

from __future__ import annotations

from datetime import datetime, timedelta

from autotuner.identity import Environment
from autotuner.persistence import Promotion

MAXIMUM_AGE = timedelta(days=7)


def reason_to_tune(
    promotion: Promotion | None,
    *,
    environment: Environment,
    now: datetime,
    maximum_age: timedelta = MAXIMUM_AGE,
) -> str | None:
    """Why a symbol is due, in a few words, or None when it is not.

    ``promotion`` is what the symbol was last promoted for, None when it never was.
    """
    if promotion is None:
        return "never tuned"
    differences = environment.differences(promotion.environment)
    if differences:
        return f"the environment changed ({'; '.join(differences)})"
    age = now - promotion.promoted_at
    if age >= maximum_age:
        return f"last promoted {age.days} days ago"
    return None
