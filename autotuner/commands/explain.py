"""Why a symbol runs what it runs: what came second, what was ruled out, what matters, what would change it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autotuner.measurement.outcome import Failed, Measured, Outcome
from autotuner.record_mapping import stored_of
from autotuner.search.pareto import pareto_front
from autotuner.search.profiles import PROFILES, Limits, Profile
from autotuner.search.scoring import Ranked, rank
from autotuner.store import Promotion, Store
from autotuner.tuning.document import pay_offs, promotion_document
from toto_core.settings import RuntimeSettings

Document = dict[str, Any]
Outcomes = Mapping[RuntimeSettings, Outcome]


def explain(store: Store, promotion: Promotion, profile: Profile) -> Document:
    """Everything that is known of a promotion, in plain values.

    Raises ``StorageError``, and ``AutotuneError`` when what was measured cannot be read.
    """
    with stored_of(promotion.symbol):
        subject = store.measured_subject(promotion.symbol)
        outcomes = {} if subject is None else store.tried(subject)
        return explanation(promotion, outcomes, profile)


def explanation(promotion: Promotion, outcomes: Outcomes, profile: Profile) -> Document:
    """The promotion's own document with ``certificate``, ``second``, ``ruled_out``, ``importance``, ``changes``.

    ``outcomes`` are search trials: they rank and promise nothing; the promotion's own figures are the duel's.
    """
    workload = promotion.workload
    ranked = rank(outcomes, workload, profile, Limits())
    return {
        **promotion_document(promotion, source="promotion"),
        "certificate": certificate(promotion, outcomes),
        "second": _second(promotion.settings, ranked),
        "ruled_out": [
            {
                "settings": entry.settings.to_dict(),
                "kind": entry.outcome.kind if isinstance(entry.outcome, Failed) else "limit",
                "reasons": list(entry.judged.reasons),
            }
            for entry in ranked
            if not entry.judged.feasible
        ],
        "importance": importance(ranked),
        "pareto": [
            dataclasses.asdict(point) | {"settings": point.settings.to_dict()}
            for point in pareto_front(ranked, workload.weights)
        ],
        "changes": _cheaper_processes(promotion, ranked, profile) + _other_profiles(promotion, outcomes),
    }


def certificate(promotion: Promotion, outcomes: Outcomes) -> str:
    """Whether what is promoted really compiled, in one line, from the compile report stored with it."""
    measured = outcomes.get(promotion.settings)
    trial = measured.report if isinstance(measured, Measured) else None
    report = promotion.figures.compile_report or trial
    if report is None:
        return "no compile report is stored"
    if not promotion.settings.compiled:
        return "runs uncompiled, as asked"
    really = "really compiled" if report.really_compiled else "NOT really compiled"
    return f"{really}: {report.summary}"


def importance(ranked: Sequence[Ranked]) -> dict[str, float]:
    """Share of the variance of log score that each field's values explain alone, largest first.

    The correlation ratio (Fisher 1925) over what was measured: between-group over total sum of squares. Fields
    that never differed are left out, and so is everything when fewer than four configurations have a score.
    """
    scored = [(entry.settings, entry.judged.score) for entry in ranked if entry.judged.score]
    if len(scored) < 4:
        return {}
    logs = np.log([score for _, score in scored])
    total = float(((logs - logs.mean()) ** 2).sum())
    if total == 0:
        return {}
    found = {}
    for name in dict.fromkeys(name for settings, _ in scored for name in settings.flat):
        groups: dict[Any, list[float]] = defaultdict(list)
        for (settings, _), log in zip(scored, logs, strict=True):
            groups[settings.value(name)].append(float(log))
        if len(groups) > 1:
            between = sum(len(group) * (np.mean(group) - logs.mean()) ** 2 for group in groups.values())
            found[name] = round(float(between) / total, 4)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _second(chosen: RuntimeSettings, ranked: Sequence[Ranked]) -> Document | None:
    others = [entry for entry in ranked if entry.judged.feasible and entry.settings != chosen]
    if not others or not isinstance(others[0].outcome, Measured):
        return None
    entry, measured = others[0], others[0].outcome
    return {
        "settings": entry.settings.to_dict(),
        "score": entry.judged.score,
        "ratio": dataclasses.asdict(measured.ratio),
        "start_ms": measured.start_ms,
        "disturbed_blocks": measured.conditions.disturbed_blocks,
    }


def _cheaper_processes(promotion: Promotion, ranked: Sequence[Ranked], profile: Profile) -> list[str]:
    """What would pay first if a process made more calls than the workload says."""
    workload = promotion.workload
    counted = workload.calls_per_process
    waiting = [
        (calls, settings.label)
        for settings, _, calls in pay_offs(ranked, workload, profile)
        if settings != promotion.settings and calls > counted
    ]
    first = sorted(waiting, key=lambda each: each[0])[:1]
    return [
        f"{label} would pay from {n:,.0f} calls of a process on (counted with {counted:,})"
        for n, label in first
    ]


def _other_profiles(promotion: Promotion, outcomes: Outcomes) -> list[str]:
    lines = []
    for name, profile in PROFILES.items():
        if name == promotion.profile:
            continue
        ranked = rank(outcomes, promotion.workload, profile, Limits())
        best = next((entry.settings for entry in ranked if entry.judged.feasible), promotion.settings)
        if best != promotion.settings:
            lines.append(f"profile {name} ranks {best.label} first")
    return lines
