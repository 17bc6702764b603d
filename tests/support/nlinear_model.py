"""A model of the engine in ``docs/examples/nlinear``, fitted to the first part of a sample symbol's prices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from toto_core.series import find_series

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "nlinear"
LEVELS = np.arange(1, 10) / 10


def installed_example(folder: Path, example: str = EXAMPLE.name) -> dict[str, str]:
    """Let pip install the example's package into ``folder``; the variables with which processes find it there."""
    source, site = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE.with_name(example), source)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, capture_output=True, text=True)
    return {"PYTHONPATH": os.pathsep.join((str(site), *filter(None, [os.environ.get("PYTHONPATH")])))}


def write_nlinear(folder: Path, *, context: int = 64, horizon: int = 16, symbol: str = "AMD") -> Path:
    """Least squares from ``context`` shares of the last price to ``horizon``, and what it was wrong by."""
    close = find_series(symbol, None).close
    close = close[: len(close) * 3 // 5]
    windows = np.lib.stride_tricks.sliding_window_view(close, context + horizon)
    last = windows[:, context - 1 : context]
    past, future = windows[:, :context] / last - 1.0, windows[:, context:] / last - 1.0
    ridge = past.T @ past + 10.0 * np.eye(context)
    weight = np.linalg.solve(ridge, past.T @ future).T
    spread = np.quantile(future - past @ weight.T, LEVELS, axis=0)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"family": "nlinear", "context": context, "horizon": horizon, "license": "MIT"}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {"weight": torch.tensor(weight).float(), "spread": torch.tensor(spread).float()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder
