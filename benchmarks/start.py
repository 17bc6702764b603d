"""How soon a fresh process answers its first forecast: compiling for itself, and with stored artifacts."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

from autotuner.environment import available_threads

_FIRST = """
import sys, time, warnings
begun = time.perf_counter()
import numpy as np
from autotuner import load_pipeline
from toto_core.settings import RuntimeSettings
settings = RuntimeSettings.from_json(sys.argv[2])
pipeline = load_pipeline("AMD", model=sys.argv[1], settings=settings)
pipeline.predict(100 + np.sin(np.arange(512) / 5), 8, 256)
assert pipeline.compile_report.really_compiled
print(time.perf_counter() - begun)
"""


def main() -> None:
    """Print, per settings, the seconds of a cold process and of three with artifacts, and the ratio."""
    from toto_core.settings import RuntimeSettings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="toto-mini")
    model = parser.parse_args().model
    plain = RuntimeSettings(compile_mode="default", num_threads=available_threads())
    print(f"{model}: seconds from `import` to the first forecast (context 512, horizon 8, 256 samples)")
    for settings in (plain, plain.replace(freezing=True), plain.replace(compile_scope="layer")):
        with tempfile.TemporaryDirectory(prefix="autotune-start-") as folder:
            cold = _seconds(model, settings.to_json(), folder)
            warm = sorted(_seconds(model, settings.to_json(), folder) for _ in range(3))
        low, middle, high = (cold / seconds for seconds in reversed(warm))
        print(
            f"  {settings.label:44} cold {cold:5.1f}, with artifacts {warm[1]:4.1f}: "
            f"{middle:.1f}x sooner [{low:.1f}, {high:.1f} over three starts]",
            flush=True,
        )


def _seconds(model: str, settings: str, folder: str) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    finished = subprocess.run(
        [sys.executable, "-c", _FIRST, model, settings],
        check=True,
        capture_output=True,
        text=True,
        env=environment | {"AUTOTUNE_CACHE": f"{folder}/cache", "AUTOTUNE_DB": f"{folder}/store.db"},
    )
    return float(finished.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
