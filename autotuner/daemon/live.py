"""What production's notes say of a configuration: how long calls took, and which requests are not the workload's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autotuner.daemon.triggers import LiveWindow
from autotuner.serving.note_values import Shape
from autotuner.serving.spool import Note, Window
from autotuner.store import Promotion
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

FOREIGN_SHARE = 0.2
"""Share of calls with another shape than the workload's from which on the mix has shifted."""
_FEWEST_CALLS = 100


def notes_of(notes: Sequence[Note], promotion: Promotion, settings: RuntimeSettings) -> list[Note]:
    """The notes about ``settings`` on the environment of ``promotion``, in the order given."""
    wanted = settings.key, promotion.environment.fingerprint
    return [note for note in notes if (note.settings_key, note.environment_fingerprint) == wanted]


def live_windows(notes: Sequence[Note]) -> list[LiveWindow]:
    """What the windows among ``notes`` say of calls, where there were any."""
    return [
        LiveWindow(
            calls=note.calls,
            p50_ms=note.quantile_ms(0.5),
            p99_ms=note.quantile_ms(0.99),
            recompiles=note.recompiles,
            limit_hits=note.limit_hits,
            eager_calls=note.eager_calls,
        )
        for note in notes
        if isinstance(note, Window) and note.calls
    ]


def shifted(notes: Sequence[Note], workload: Workload) -> str | None:
    """Which requests production makes that the workload does not name, None when they are few."""
    known = {(s.context_length, s.prediction_length, s.num_samples or 0) for s in workload.shapes}
    counts: Counter[Shape] = Counter()
    for note in notes:
        if isinstance(note, Window):
            counts.update(note.shapes)
    total = counts.total()
    foreign = Counter({shape: calls for shape, calls in counts.items() if shape not in known})
    if total < _FEWEST_CALLS or foreign.total() < FOREIGN_SHARE * total:
        return None
    name = "/".join(map(str, foreign.most_common(1)[0][0]))
    return f"{foreign.total() / total:.0%} of calls are of other shapes, most of them {name}"
