"""What a child process is told to run, and its JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings


@dataclass(frozen=True, kw_only=True)
class ArmJob:
    """One arm: a model in one configuration, fed from one series.

    ``artifacts`` is the folder for what it compiles, ``answer_file`` where that keeps its first answer to a fixed
    request; ``series_file`` a ``.npy`` of float64 closing prices, oldest first; ``last_fifth_start`` where its
    held-out part begins; ``memory_bytes`` bounds what the process may allocate; ``warm_up_seconds`` how long it may
    take to reach a steady state; ``python`` the interpreter that runs it.
    """

    settings: RuntimeSettings
    workload: Workload
    device: str
    artifacts: str
    answer_file: str
    series_file: str
    last_fifth_start: int
    seeds: tuple[int, ...]
    windows: int
    memory_bytes: int
    warm_up_seconds: float
    python: str = sys.executable

    def to_json(self) -> str:
        """One line of JSON."""
        fields = self.__dict__ | {"settings": self.settings.to_dict(), "workload": self.workload.to_dict()}
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ArmJob:
        """The inverse of ``to_json``."""
        fields = json.loads(text)
        fields["settings"] = RuntimeSettings.from_dict(fields["settings"])
        fields["workload"] = Workload.from_dict(fields["workload"])
        return cls(**fields | {"seeds": tuple(fields["seeds"])})
