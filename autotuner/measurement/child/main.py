"""Entry point of a child process: builds one pipeline, then serves timed calls, one request line at a time.

Reads JSON lines on standard input (the job first), answers JSON lines on the given file descriptor.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from autotuner.errors import cause
from autotuner.measurement.child.guard import die_with_parent, limit_memory
from autotuner.measurement.child.job import ArmJob
from autotuner.serving.restart_proof import NotReproducible

Answer = Callable[[Mapping[str, Any]], None]
_NO_MEMORY = re.compile(
    "can('t|not) allocate memory|not enough memory|std::bad_alloc|out of memory", re.IGNORECASE
)


def main(arguments: list[str]) -> None:
    """Serve until standard input ends; ``arguments`` are the answer and the lifeline file descriptors."""
    answers, lifeline = (int(argument) for argument in arguments)
    die_with_parent(lifeline)
    job = ArmJob.from_json(sys.stdin.readline())
    with os.fdopen(answers, "w", buffering=1) as pipe:

        def answer(fields: Mapping[str, Any]) -> None:
            pipe.write(json.dumps(fields, separators=(",", ":")) + "\n")

        try:
            if job.device == "cpu":  # a GPU's driver maps far more than it holds; the parent looks at that
                limit_memory(job.memory_bytes)
            serve(job, answer)
        except Exception as error:  # whatever a model or a compiler raises is this trial's outcome
            kind, detail = classify(error)
            answer({"event": "failed", "kind": kind, "detail": detail})


def serve(job: ArmJob, answer: Answer) -> None:
    """Start the arm, say so, then answer ``block``, ``forecasts``, ``exact`` and ``report`` requests."""
    from autotuner.measurement.child.arm import Arm

    arm = Arm(job)
    started = {name: getattr(arm, name) for name in ("start_ms", "was_warm", "reproduced", "threads")}
    answer({"event": "started", **started, "report": arm.report()})
    if not arm.warm_up():
        detail = f"no steady state within {job.warm_up_seconds:.0f} s"
        answer({"event": "failed", "kind": "unstable", "detail": detail})
        return
    answer({"event": "ready", "report": arm.report(), "peak_bytes": arm.peak_bytes()})
    for line in sys.stdin:
        request = json.loads(line)
        if request["ask"] == "block":
            answer({"event": "block", "ms": arm.block(request["shape"], request["calls"])})
        elif request["ask"] == "forecasts":
            answer({"event": "forecasts", "shapes": arm.forecasts()})
        elif request["ask"] == "exact":
            answer({"event": "exact", "shapes": arm.exact_forecasts()})
        else:
            answer({"event": "report", "report": arm.report(), "peak_bytes": arm.peak_bytes()})


def classify(error: BaseException) -> tuple[str, str]:
    """The failure kind of an exception and its cause in one line."""
    detail = cause(error)
    if isinstance(error, NotReproducible):
        return "not_reproducible", detail
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or _NO_MEMORY.search(detail)
    ):
        return "out_of_memory", detail
    chain = [error]
    while (following := chain[-1].__cause__ or chain[-1].__context__) and following not in chain:
        chain.append(following)
    if any(type(e).__module__.startswith(("torch._dynamo", "torch._inductor")) for e in chain):
        return "compile_error", detail
    return "crashed", detail


if __name__ == "__main__":
    main(sys.argv[1:])
