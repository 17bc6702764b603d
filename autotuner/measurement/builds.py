"""Compiles configurations side by side in child processes, before any of them is timed."""

from __future__ import annotations

import json
import math
import selectors
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from autotuner.environment import available_threads, spare_memory
from autotuner.measurement.child.handle import POLL_SECONDS, Child, ChildError
from autotuner.measurement.outcome import ColdStart, Failed
from autotuner.paths import holds_artifacts
from toto_core.settings import RuntimeSettings

_BYTES_OF_A_BUILD = 2 << 30
"""What a child that compiles may hold beside the model, its compiler included: 0.9 GiB was seen for toto-mini."""

Built = ColdStart | Failed
"""The cold start that compiled it, or how that failed."""


def build_slots(device: str) -> int:
    """How many builds may run at a time: one a CPU, as far as memory goes; one on a GPU, whose memory they share."""
    if device != "cpu":
        return 1
    return max(1, min(available_threads(), spare_memory() // _BYTES_OF_A_BUILD))


def build_missing(
    folders: Mapping[RuntimeSettings, Path],
    begin: Callable[[RuntimeSettings], Child],
    *,
    slots: int,
    seconds: float,
    say: Callable[[str], None],
) -> Mapping[RuntimeSettings, Built]:
    """Build what is not whole in its folder of artifacts; ``begin`` starts a child that does, in an empty one.

    What an earlier run has built is found again, with the cold start it had.
    """
    before = {settings: built_before(folder) for settings, folder in folders.items()}
    found = {settings: start for settings, start in before.items() if start is not None}
    missing = [settings for settings in folders if settings not in found]
    if missing:
        say(f"compiling {', '.join(settings.label for settings in missing)}")
    made = build_all(missing, begin, slots=slots, deadline=time.monotonic() + seconds, say=say)
    for settings, built in made.items():
        if not isinstance(built, Failed):
            note_built(folders[settings], built)
    return found | made


def build_all(
    wanted: Sequence[RuntimeSettings],
    begin: Callable[[RuntimeSettings], Child],
    *,
    slots: int,
    deadline: float,
    say: Callable[[str], None] = lambda _: None,
) -> dict[RuntimeSettings, Built]:
    """Let ``begin`` start a child for each of ``wanted``, ``slots`` at a time, and end it when it has answered once.

    What is not done by ``deadline`` (of the monotonic clock) is left out, but for the first, which then has timed
    out. No child is left.
    """
    built: dict[RuntimeSettings, Built] = {}
    beside: Counter[RuntimeSettings] = Counter()
    waiting = list(reversed(wanted))
    with ExitStack() as children, selectors.DefaultSelector() as answers:
        while (waiting or answers.get_map()) and (left := deadline - time.monotonic()) > 0:
            while waiting and len(answers.get_map()) < slots:
                settings = waiting.pop()
                child = children.enter_context(closing(begin(settings)))
                child.give_way()
                answers.register(child, selectors.EVENT_READ, (settings, child))
            at_work = [key.data[0] for key in answers.get_map().values()]
            for settings in at_work:
                beside[settings] = max(beside[settings], len(at_work) - 1)
            ready = {key.fd for key, _ in answers.select(min(POLL_SECONDS, left))}
            for key in list(answers.get_map().values()):
                settings, child = key.data
                result = _answered(child, deadline, beside=beside[settings], ready=key.fd in ready)
                if result is not None:
                    answers.unregister(key.fd)
                    child.close()
                    built[settings] = result
                    still = [key.data[0].label for key in answers.get_map().values()]
                    say(_told(settings, result, still + [each.label for each in reversed(waiting)]))
        if wanted and wanted[0] in {key.data[0] for key in answers.get_map().values()}:
            built[wanted[0]] = Failed(kind="timeout", detail="not built in time")
    return built


def _told(settings: RuntimeSettings, built: Built, left: Sequence[str]) -> str:
    came = f"failed: {built}" if isinstance(built, Failed) else f"in {built.ms / 1000.0:.1f} s"
    return f"compiled {settings.label} {came}{'; still ' if left else ''}{', '.join(left)}"


def _answered(child: Child, deadline: float, *, beside: int, ready: bool) -> Built | None:
    """What came of the child, None while it is at work."""
    try:
        if ready:
            child.wait_started(deadline)
            return ColdStart(ms=child.start_ms, beside=beside)
        child.check_limits()
    except ChildError as error:
        return error.failed
    return None


def note_built(artifacts: Path, start: ColdStart) -> None:
    """Keep beside a folder of artifacts that it is whole, for a run that goes on after a kill."""
    _note(artifacts).write_text(json.dumps({"start_ms": start.ms, "beside": start.beside}), encoding="utf-8")


def built_before(artifacts: Path) -> ColdStart | None:
    """The start that ``note_built`` kept, None where the artifacts are not whole."""
    try:
        note = json.loads(_note(artifacts).read_text(encoding="utf-8"))
        start = ColdStart(ms=float(note["start_ms"]), beside=int(note["beside"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return start if 0 < start.ms < math.inf and holds_artifacts(artifacts) else None


def forget_built(artifacts: Path) -> None:
    """Say that what lies in a folder of artifacts may not be whole."""
    _note(artifacts).unlink(missing_ok=True)


def _note(artifacts: Path) -> Path:
    return artifacts.with_name(f"{artifacts.name}.built")
