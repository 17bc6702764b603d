"""What stands behind the claim that settings fail in production: how many processes, and calls made uncompiled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from autotuner.serving.spool import FELL_BACK, Note, Quarantine, Window


@dataclass(frozen=True, kw_only=True)
class Failures:
    """Failures of one configuration on one environment: the reasons, oldest first, and who saw them.

    ``processes`` left a note of it, ``eager_calls`` were made uncompiled after the first of these, by the windows
    of calls that processes leave; ``newest`` is when it failed last, None when it never did.
    """

    reasons: tuple[str, ...] = ()
    processes: int = 0
    eager_calls: int = 0
    newest: datetime | None = None

    @property
    def proven(self) -> bool:
        """Whether more than one source says so: one note alone may be a mistake, or anybody's."""
        return self.processes > 1 or (self.processes == 1 and self.eager_calls > 0)

    @property
    def waits_for(self) -> str:
        """What would prove it, in words; empty when it is proven or nothing failed."""
        if self.proven or not self.processes:
            return ""
        return "one process alone says so: taken back once another one does, or its windows show uncompiled calls"


NOTHING_FAILED = Failures()


def failures(notes: Iterable[Note]) -> Failures:
    """The failures among ``notes``, which are about one configuration, or of calls that fell back from it."""
    known = list(notes)
    failed = sorted((each for each in known if isinstance(each, Quarantine)), key=lambda each: each.failed_at)
    if not failed:
        return NOTHING_FAILED
    reasons = tuple(each.reason for each in failed)
    fell_back = {f"{FELL_BACK}{reason}" for reason in reasons}
    later = [each for each in known if isinstance(each, Window) and each.window_end > failed[0].failed_at]
    return Failures(
        reasons=reasons,
        processes=len({each.process or f"process {each.pid}" for each in failed}),
        eager_calls=sum(each.calls if each.source in fell_back else _mostly_eager(each) for each in later),
        newest=failed[-1].failed_at,
    )


def _mostly_eager(window: Window) -> int:
    # A shape that nobody promised may run uncompiled beside compiled ones, and says nothing of a failure.
    return window.eager_calls if 2 * window.eager_calls >= window.calls else 0
