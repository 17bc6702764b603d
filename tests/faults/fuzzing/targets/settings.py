"""Settings as JSON: of rows, bundles, notes and snapshots."""

from __future__ import annotations

from autotuner.workload import Workload
from tests.faults.fuzzing import json_mutation
from tests.faults.fuzzing.verdicts import check, check_line, refused_with
from toto_core.settings import RuntimeSettings, SettingsError, canonical

SECONDS = 1.0  # a collection of what this process has imported takes a part of that
mutated = json_mutation.document


def seeds() -> tuple[bytes, ...]:
    chosen = (
        RuntimeSettings(),
        RuntimeSettings(compile_mode="max-autotune", precision="bf16", freezing=True, num_threads=2),
        RuntimeSettings(compile_mode="default", samples_per_batch=64, context_bucket=128, dynamic=True),
        RuntimeSettings(
            compile_mode="default", knobs=(("decode_block_size", 32), ("masked_attention", True))
        ),
    )
    return tuple(each.to_json().encode() for each in chosen)


def one(data: bytes) -> None:
    with refused_with(SettingsError):
        settings = RuntimeSettings.from_json(data.decode("utf-8", "surrogateescape"))
        check(RuntimeSettings.from_json(settings.to_json()) == settings, "settings come back as they were")
        check(RuntimeSettings.of(settings.flat) == settings, "settings come back from flat values")
        for text in (settings.key, settings.label):
            check_line(text, "its name")
        facts = Workload().facts(device="cpu", threads=2, patch_size=32)
        least = canonical(settings, facts)
        check(canonical(least, facts) == least, "the canonical form is its own")
