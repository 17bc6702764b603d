"""``load_pipeline``: a pipeline for a symbol, compiled and warm when it returns; torch loads on the first call."""

from __future__ import annotations

import contextlib
import os
import warnings
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from autotuner.engines.registry import engine_for
from autotuner.environment import Environment, current_environment
from autotuner.errors import cause
from autotuner.machine.process import this_process
from autotuner.paths import answer_file, packages_folder, spool_folder, store_location, trials_folder
from autotuner.serving.artifact_loading import LoadArtifacts
from autotuner.serving.lookup import lookup
from autotuner.serving.resolution import SAFE, Resolution
from autotuner.serving.restart_proof import Proof, prove, random_walk
from autotuner.serving.spool import FELL_BACK, Labels, Quarantine, leave_quarantine
from autotuner.serving.telemetry import Telemetry
from autotuner.workload import RequestShape, Workload
from toto_core.settings import RuntimeSettings

if TYPE_CHECKING:
    from autotuner.engines.protocol import Pipeline

_QUIET_CALLS, _MOST_CALLS = 2, 10
_failed: dict[tuple[str, str, str], str] = {}
"""Why a configuration failed in this process, by device, model and settings key."""


def load_pipeline(
    symbol: str,
    *,
    model: str | None = None,
    workload: Workload | None = None,
    profile: str | None = None,
    settings: RuntimeSettings | None = None,
    device: str | None = None,
    db: str | None = None,
    hold_compilation: bool = False,
    telemetry: bool = True,
    verify: bool = False,
) -> Pipeline:
    """The pipeline of ``lookup``'s answer on ``device`` (``cpu`` unless given), compiled and warm.

    Its ``last_run_metadata`` says the ``symbol`` and the ``settings_source``. Settings that cannot be built,
    that fail in the warm-up or that torch runs eagerly are quarantined: this process goes on in eager fp32,
    with one ``RuntimeWarning``, and a note for the tuner is left in the spool. So are settings whose calls fail
    later: the pipeline answers in eager mode from then on (``TotoPipeline.rescued``). What was compiled before is
    used after its checksums are verified, and what is compiled here is kept for the next process. Unless the
    user has set ``TORCHINDUCTOR_CACHE_DIR``, it is set to a private folder of this process. With
    ``hold_compilation``, wanted in trading hours, shapes that the workload does not name run eagerly instead
    of compiling. With ``verify`` compiled settings are used only when they answer a fixed request bit for bit as they
    did when the artifacts were compiled; the metadata's ``restart_proof`` is "same", "kept" where no answer was
    stored and this one is from now on, or "unknown". With ``telemetry`` its calls are counted, and written to the
    spool once a minute in the background. Raises what loading and running in eager fp32 raises: ``CheckpointError``,
    ``DeviceError``, ``RequestError``.
    """
    target = _device(device)
    found = lookup(
        symbol, model=model, workload=workload, profile=profile, settings=settings, db=db, device=target
    )
    engine = engine_for(found.model, None if found.workload is None else found.workload.revision)
    environment = current_environment(target.partition(":")[0], engine.name)
    pipeline = _working_pipeline(found, target, environment, db, verify=verify)
    pipeline.hold_compilation(hold=hold_compilation and pipeline.settings.compiled)
    if pipeline.settings.compiled:
        _quarantine_when_rescued(pipeline, found, environment, db)
    if telemetry:
        _count_calls(pipeline, found, environment, db)
    return pipeline


def _working_pipeline(
    found: Resolution, target: str, environment: Environment, db: str | None, *, verify: bool
) -> Pipeline:
    """The pipeline under the settings found, or in eager fp32 where they do not work here."""
    provenance = {"settings_source": str(found.source), "symbol": found.symbol}
    if found.settings == SAFE:
        return _warm_pipeline(found, SAFE, target, provenance)
    reason = known_reason = _failed.get(_failed_key(found, environment))
    if reason is None:
        working, reason = _attempt(found, target, environment, provenance, verify=verify)
        if working is not None:
            return working
    provenance = {"settings_source": f"{FELL_BACK}{reason}", "symbol": found.symbol}
    pipeline = _warm_pipeline(found, SAFE, target, provenance)
    if known_reason is None:  # only now: where eager fails too, the settings were not at fault
        _quarantine(found, environment, reason, db)
    return pipeline


def _count_calls(pipeline: Pipeline, found: Resolution, environment: Environment, db: str | None) -> None:
    source = pipeline.provenance.get("settings_source")
    about = _labels(found, environment, settings_key=pipeline.settings.key, source=source)
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # no place for a spool: nothing is counted
        pipeline.on_call = Telemetry(about, spool_folder(store_location(db))).observe


def _device(device: str | None) -> str:
    if device != "auto":
        return device or "cpu"
    from toto_core.device import resolve_device

    return resolve_device("auto").type


def _attempt(
    found: Resolution, device: str, environment: Environment, provenance: dict[str, str], *, verify: bool
) -> tuple[Pipeline | None, str]:
    """The pipeline under the settings found, or None and why they do not work here.

    Artifacts that are damaged, or with which it does not work, are wiped and made anew once.
    """
    artifacts = LoadArtifacts.of_settings(environment, found.settings)
    pipeline, reason = _build(found, device, provenance, artifacts)
    if pipeline is None and artifacts.found:
        artifacts = artifacts.start_anew(f"do not work: {reason}")
        pipeline, reason = _build(found, device, provenance, artifacts)
    if pipeline is None:
        return None, reason
    try:
        kept = verify and _prove(pipeline, found, artifacts) == "kept"
    except Exception as error:  # another answer, or none: whatever a compiled call raises, eager has to go on
        pipeline.unload()
        return None, cause(error)
    if kept or pipeline.compile_report.cache_hits < pipeline.compile_report.graphs:
        artifacts.save()
    return pipeline, ""


def _prove(pipeline: Pipeline, found: Resolution, artifacts: LoadArtifacts) -> Proof | None:
    """Whether it answers as its artifacts did when they were compiled; None where nothing compiled is used.

    Unknown where what is made cannot last, and where the process computes with another number of threads than the
    settings say: those are other libraries.
    """
    if artifacts.folder is None:
        return None
    import torch

    workload = found.workload or Workload()
    revision = _revision(found, workload)
    proof: Proof = "unknown"
    threads = found.settings.num_threads or torch.get_num_threads()
    if artifacts.lasts and torch.get_num_threads() == threads:
        weights = engine_for(found.model, revision).identity(found.model, revision).digest
        trials = trials_folder(artifacts.environment.fingerprint, workload.signature, weights).name
        pipeline.rescues = False  # an eager answer proves nothing
        proof = prove(pipeline, workload, answer_file(artifacts.folder, trials))
        pipeline.rescues = True
    pipeline.provenance = pipeline.provenance | {"restart_proof": proof}
    return proof


def _build(
    found: Resolution, device: str, provenance: dict[str, str], artifacts: LoadArtifacts
) -> tuple[Pipeline | None, str]:
    from toto_core.device import DeviceError
    from toto_core.model_files import CheckpointError

    try:
        pipeline = _warm_pipeline(
            found, found.settings, device, provenance | artifacts.said, artifacts.folder
        )
    except (CheckpointError, DeviceError):
        raise  # no settings would help
    except Exception as error:  # whatever a compiler raises: eager has to go on
        return None, cause(error)
    report = pipeline.compile_report
    if found.settings.compiled and not report.really_compiled:
        pipeline.unload()
        return None, f"ran eagerly although asked to compile: {report.summary}"
    return pipeline, ""


def _warm_pipeline(
    found: Resolution,
    settings: RuntimeSettings,
    device: str,
    provenance: dict[str, str],
    artifacts: Path | None = None,
) -> Pipeline:
    workload = found.workload or Workload()
    revision = _revision(found, workload)
    pipeline = engine_for(found.model, revision).load(
        found.model,
        device=device,
        settings=settings,
        revision=revision,
        artifacts=None if artifacts is None else packages_folder(artifacts),
    )
    pipeline.provenance = provenance
    pipeline.rescues = False  # what fails in the warm-up is quarantined by who asked for it
    for shape in workload.shapes:
        _warm_up(pipeline, shape, series=workload.series_per_call)
    pipeline.rescues = True
    return pipeline


def _revision(found: Resolution, workload: Workload) -> str | None:
    return workload.revision if workload.model == found.model else None


def _warm_up(pipeline: Pipeline, shape: RequestShape, *, series: int) -> None:
    """Call until two calls in a row compile nothing, at least twice and at most ten times."""
    context, quiet = random_walk(series, shape.variates, shape.context_length), 0
    for _ in range(_MOST_CALLS):
        compiled = _compiled_here(pipeline)
        pipeline.predict(context, shape.prediction_length, shape.num_samples)
        quiet = quiet + 1 if _compiled_here(pipeline) == compiled else 0
        if quiet == _QUIET_CALLS:
            return


def _compiled_here(pipeline: Pipeline) -> int:
    report = pipeline.compile_report
    return report.graphs - report.cache_hits


def _quarantine_when_rescued(
    pipeline: Pipeline, found: Resolution, environment: Environment, db: str | None
) -> None:
    about = weakref.ref(pipeline)  # a pipeline that is dropped must not be held by its own hook

    def quarantine(reason: str) -> None:
        rescued = about()
        if rescued is not None:
            rescued.provenance = rescued.provenance | {"settings_source": f"rescued: {reason}"}
        _note_failure(found, environment, reason, db)

    pipeline.on_rescue = quarantine


def _quarantine(found: Resolution, environment: Environment, reason: str, db: str | None) -> None:
    unnoted = _note_failure(found, environment, reason, db)
    warnings.warn(
        f"{found.symbol}: settings {found.settings.label} are quarantined, this process runs eager fp32: "
        f"{reason}{unnoted}",
        RuntimeWarning,
        stacklevel=4,
    )


def _note_failure(found: Resolution, environment: Environment, reason: str, db: str | None) -> str:
    """Remember that the settings failed, here and for the tuner; what to add where no note of it could be left."""
    _failed[_failed_key(found, environment)] = reason
    note = Quarantine(
        **vars(_labels(found, environment, settings_key=found.settings_key, source=found.source)),
        reason=reason,
        failed_at=datetime.now(UTC),
        settings=found.settings,
        workload=found.workload,
        environment=environment,
        pid=os.getpid(),
        process=this_process(),
    )
    try:
        leave_quarantine(spool_folder(store_location(db)), note)
    except (OSError, RuntimeError, ValueError) as error:
        return f"; no note of it could be left for the tuner ({error})"
    return ""


def _failed_key(found: Resolution, environment: Environment) -> tuple[str, str, str]:
    return environment.device, found.model, found.settings_key


def _labels(found: Resolution, environment: Environment, *, settings_key: str, source: str | None) -> Labels:
    """Whose calls those of ``found``'s pipeline are, as notes say it; ``source`` is where its settings come from."""
    return Labels(
        symbol=found.symbol,
        settings_key=settings_key,
        environment_fingerprint=environment.fingerprint,
        profile=found.profile,
        model=found.model,
        workload_signature=None if found.workload is None else found.workload.signature,
        source=source,
    )
