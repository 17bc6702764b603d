"""What a restart proof compares, and what it leaves alone because it says nothing of the library."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from autotuner.environment import current_environment
from autotuner.serving import pipeline as serving_pipeline
from autotuner.serving.artifact_loading import LoadArtifacts
from autotuner.serving.lookup import lookup
from autotuner.serving.restart_proof import NotReproducible, answer, prove
from autotuner.workload import RequestShape, Workload
from tests.support.tiny_model import save_tiny_model
from toto_core.pipeline import TotoPipeline
from toto_core.settings import RuntimeSettings

SHAPES = (
    RequestShape(context_length=64, prediction_length=4, num_samples=4),
    RequestShape(context_length=32, prediction_length=2, num_samples=None),
)


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    return Workload(model=save_tiny_model(tmp_path / "model"), shapes=SHAPES)


@pytest.fixture
def pipeline(workload: Workload) -> TotoPipeline:
    return TotoPipeline.from_pretrained(workload.model)


def test_the_first_answer_is_kept_and_later_ones_are_compared_with_it(
    pipeline: TotoPipeline, workload: Workload, tmp_path: Path
) -> None:
    kept = tmp_path / "artifacts" / "answers" / "of this workload"
    assert prove(pipeline, workload, kept) == "kept"
    assert prove(pipeline, workload, kept) == "same"
    kept.write_text("another one")
    with pytest.raises(NotReproducible, match="answered otherwise than by the process that compiled"):
        prove(pipeline, workload, kept)


def test_the_order_of_the_shapes_is_no_difference_and_another_request_is(
    pipeline: TotoPipeline, workload: Workload
) -> None:
    reordered = dataclasses.replace(workload, shapes=SHAPES[::-1])
    assert reordered.signature == workload.signature
    assert answer(pipeline, reordered) == answer(pipeline, workload)
    assert answer(pipeline, dataclasses.replace(workload, shapes=SHAPES[:1])) != answer(pipeline, workload)


def test_an_answer_that_cannot_be_kept_or_read_says_nothing_of_the_library(
    pipeline: TotoPipeline, workload: Workload, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    assert prove(pipeline, workload, in_the_way / "answers" / "one") == "unknown"
    folder = tmp_path / "folder"
    folder.mkdir()
    assert prove(pipeline, workload, folder) == "unknown"


@pytest.mark.parametrize(("more_threads", "lasts"), [(1, True), (0, False)])
def test_a_process_with_other_threads_or_without_a_lasting_place_proves_nothing(
    more_threads: int, lasts: bool, pipeline: TotoPipeline, workload: Workload, tmp_path: Path
) -> None:
    threads = torch.get_num_threads() + more_threads
    settings = RuntimeSettings(compile_mode="default", num_threads=threads)
    found = lookup("AMD", workload=workload, settings=settings, db=str(tmp_path / "autotune.db"))
    artifacts = LoadArtifacts(
        environment=current_environment(), settings=settings, folder=tmp_path / "artifacts", lasts=lasts
    )

    assert serving_pipeline._prove(pipeline, found, artifacts) == "unknown"
    assert pipeline.provenance["restart_proof"] == "unknown"
    assert not (tmp_path / "artifacts").exists()
