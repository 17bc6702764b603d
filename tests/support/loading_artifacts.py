"""A real compiled model, and loads of it in processes that tell what they run, answer and have mapped."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from tests.support.faulty_system import Fault
from tests.support.forked_commands import Done, Forks, shared_forks

SYMBOL = "AMD"
_loaded: list[object] = []


def load(model: str, mode: str = "default") -> None:
    """Print one line of JSON: mode, forecast, warnings and the digests of the mapped libraries of the cache."""
    from autotuner.serving.pipeline import load_pipeline
    from autotuner.serving.restart_proof import random_walk
    from autotuner.workload import RequestShape, Workload
    from toto_core.settings import RuntimeSettings

    shape = RequestShape(context_length=32, prediction_length=4, num_samples=8)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pipeline = load_pipeline(
            SYMBOL,
            workload=Workload(model=model, shapes=(shape,)),
            settings=RuntimeSettings.from_dict({"compile_mode": mode, "num_threads": 1}),
        )
        found = pipeline.predict(random_walk(1, 1, 32), 4, 8, seed=1)
    _loaded.append(pipeline)  # as in a process that goes on: its telemetry is written when that ends
    document = {
        "mode": pipeline.settings.compile_mode,
        "hits": pipeline.compile_report.cache_hits,
        "median": [float(value) for value in found.median.flatten()],
        "warnings": [str(each.message) for each in said if each.category is RuntimeWarning],
        "mapped": mapped(os.environ["AUTOTUNE_CACHE"]),
        "source": pipeline.provenance.get("settings_source"),
    }
    sys.stdout.write(json.dumps(document) + "\n")


def mapped(cache: str) -> dict[str, str]:
    """Digest by path of every file below ``cache`` that this process has mapped."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if cache in line}
    return {
        path: hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).exists() else "gone"
        for path in paths
    }


@dataclass(frozen=True)
class RealArtifact:
    """A folder with a small model and what was compiled of it; a good answer, and the digests of its files."""

    forks: Forks
    folder: Path
    digests: frozenset[str] = frozenset()
    median: tuple[float, ...] = ()

    def load(
        self, folder: Path, *, mode: str = "default", compiler: bool = False, fault: Fault | None = None
    ) -> Done:
        """A forecast by a process whose cache lies in ``folder``, which has no compiler unless it is given one."""
        variables = {
            "TORCHINDUCTOR_VEC_ISA_OK": "1",
            "AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL": "O0",
            "TMPDIR": str(folder),
        }
        if not compiler:
            variables |= {"PATH": "/nowhere", "CXX": "/nowhere/g++"}
        asked = {
            "call": f"{__name__}:{load.__name__}",
            "arguments": [str(self.folder / "tiny"), mode],
        }
        return self.forks.ask(asked, folder, variables=variables, seconds=300, fault=fault)

    def fault(self, done: Done) -> str:
        """What is wrong with a load, whatever was wrong with the artifact."""
        if done.fault((0,)):
            return done.fault((0,))
        told = json.loads(done.out)
        wrong = [path for path, digest in told["mapped"].items() if digest not in self.digests]
        if wrong:
            return f"mapped what was not stored: {Path(wrong[0]).name}"
        far = max(abs(one - other) for one, other in zip(told["median"], self.median, strict=True))
        if far > 1e-3 * max(map(abs, self.median)):
            return f"another forecast, {far} away"
        if any("\n" in warning for warning in told["warnings"]):
            return "a warning of several lines"
        return ""


@functools.cache
def real_artifact() -> RealArtifact:
    """Built once in this process; it takes half a minute."""
    from tests.support.tiny_model import save_tiny_model

    folder = Path(tempfile.mkdtemp(prefix="autotune-real-artifact-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    save_tiny_model(folder / "tiny")
    real = RealArtifact(shared_forks(heavy=True), folder)
    for compiler in (True, False):
        done = real.load(folder, compiler=compiler)
        if done.code or json.loads(done.out)["mode"] != "default":
            raise AssertionError(done.err or done.out)
    told = json.loads(done.out)
    if not told["hits"]:
        raise AssertionError("what was built is not used")
    files = [path for path in (folder / "cache").rglob("*") if path.is_file()]
    digests = frozenset(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    return RealArtifact(real.forks, folder, digests, tuple(told["median"]))
