"""What torch says of tf32 while it compiles for a GPU, played here: no GPU is needed to hear it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny_model import save_tiny_model
from toto_core.compiling import running
from toto_core.pipeline import TotoPipeline
from toto_core.settings import RuntimeSettings

JUST_IN_TIME = RuntimeSettings(compile_mode="default", dynamic=True)
PRICES = 100 + np.sin(np.arange(64) / 5)
OF_TF32 = "TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled."


def compiler_that_warns(message: str) -> Callable[..., Callable[..., Any]]:
    """Stands in for torch.compile: the function itself, which warns as torch's does when it compiles."""

    def compile_alone(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            warnings.warn(message, stacklevel=2)
            return function(*arguments, **options)

        return call

    return compile_alone


def forecast(message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "compile_alone", compiler_that_warns(message))
    pipeline = TotoPipeline.from_pretrained(save_tiny_model(tmp_path), settings=JUST_IN_TIME)
    pipeline.rescues = False
    pipeline.predict(PRICES, 4, 8)


def test_a_process_where_warnings_are_errors_compiles_fp32_for_a_card_with_tf32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecast(OF_TF32, tmp_path, monkeypatch)


def test_what_else_a_compiler_warns_of_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserWarning, match="something else"):
        forecast("something else", tmp_path, monkeypatch)
