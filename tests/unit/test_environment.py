from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.environment import (
    LABEL_VARIABLE,
    Environment,
    available_threads,
    current_environment,
    environment_label,
    reachable_cpus,
    spare_memory,
    spare_threads,
)
from autotuner.errors import UsageError
from tests.support.containers import limited
from toto_core.container import ROOT_VARIABLE
from toto_core.version import ENGINE_VERSION

HERE = Environment(
    device="cpu",
    hardware="GenuineIntel / 6 / 143",
    isa="abcdef012345",
    driver="",
    torch="2.13.0",
    engine="1",
    threads=2,
)
FIELDS = [field.name for field in dataclasses.fields(Environment)]


def changed(name: str) -> Environment:
    return dataclasses.replace(HERE, **{name: 9 if name == "threads" else "other"})  # type: ignore[arg-type]


def in_another_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_fingerprint_needs_no_torch_and_is_the_same_in_every_process() -> None:
    code = (
        "import json, sys; from autotuner.environment import current_environment; "
        "found = current_environment(); "
        "print(json.dumps([found.fingerprint, sorted({'torch', 'optuna', 'pandas'} & set(sys.modules))]))"
    )

    assert json.loads(in_another_process(code)) == [current_environment().fingerprint, []]


def test_this_machine_is_described_in_full() -> None:
    found = current_environment()

    assert found.device == "cpu"
    assert found.hardware
    assert found.engine == ENGINE_VERSION
    assert found.threads == available_threads() >= 1
    assert found.torch[0].isdigit()
    assert len(found.isa) == 12


def test_a_quota_counts_as_the_number_of_cpus_and_without_one_all_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from autotuner.environment import current_environment; print(current_environment().to_json())"
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    cpus = len(os.sched_getaffinity(0))
    unlimited = Environment.from_dict(json.loads(in_another_process(code)))
    assert unlimited.threads == reachable_cpus() == cpus

    limited(tmp_path, cpus=0.5, memory_bytes=1 << 30)
    assert (available_threads(), spare_threads(), spare_memory()) == (1, 1, int(0.6 * (1 << 30)))
    there = Environment.from_dict(json.loads(in_another_process(code)))
    assert there == dataclasses.replace(unlimited, threads=1)

    limited(tmp_path, cpus=cpus + 1, memory_bytes=1 << 50)
    assert available_threads() == cpus
    assert spare_memory() == min(8 << 30, int(0.6 * psutil.virtual_memory().total))


def test_the_environment_of_a_gpu_is_another_one() -> None:
    gpu = current_environment("cuda")

    assert gpu.device == "cuda"
    assert gpu.fingerprint != current_environment().fingerprint


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_changes_the_fingerprint_and_is_named_as_a_difference(name: str) -> None:
    there = changed(name)

    assert there.fingerprint != HERE.fingerprint
    assert HERE.differences(there) == (f"{name}: {getattr(there, name)} there, {getattr(HERE, name)} here",)


def test_equal_environments_have_no_differences() -> None:
    assert HERE.differences(dataclasses.replace(HERE)) == ()
    assert HERE.fingerprint == dataclasses.replace(HERE).fingerprint
    assert HERE.fingerprint == "89d12c62a89aacca"


PRINTABLE = st.text(st.characters().filter(str.isprintable))


@given(
    st.builds(
        Environment,
        device=PRINTABLE,
        hardware=PRINTABLE,
        isa=PRINTABLE,
        driver=PRINTABLE,
        torch=PRINTABLE,
        engine=PRINTABLE,
        threads=st.integers(1, 10_000),
    )
)
def test_an_environment_survives_json(environment: Environment) -> None:
    again = Environment.from_dict(json.loads(environment.to_json()))

    assert again == environment
    assert again.fingerprint == environment.fingerprint


def test_other_fields_are_refused() -> None:
    with pytest.raises(TypeError):
        Environment.from_dict({"device": "cpu"})
    with pytest.raises(TypeError):
        Environment.from_dict({**dataclasses.asdict(HERE), "colour": "red"})


def test_a_label_makes_two_environments_of_machines_that_look_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = current_environment.__wrapped__()
    monkeypatch.setenv(LABEL_VARIABLE, "rack-2")
    labelled = current_environment.__wrapped__()

    assert labelled.hardware == f"{alike.hardware}, labelled rack-2"
    assert labelled.fingerprint != alike.fingerprint
    assert Environment.from_dict(json.loads(labelled.to_json())) == labelled
    assert alike.differences(labelled) == (f"hardware: {labelled.hardware} there, {alike.hardware} here",)


@pytest.mark.parametrize("label", ["", None])
def test_no_label_leaves_the_fingerprint_as_earlier_versions_have_it(
    label: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LABEL_VARIABLE, raising=False)
    alike = current_environment.__wrapped__()
    if label is not None:
        monkeypatch.setenv(LABEL_VARIABLE, label)
    assert current_environment.__wrapped__() == alike


@pytest.mark.parametrize("label", ["a b", "-a", "a\n", "a" * 64, "ä", "a/"])
def test_a_label_that_is_none_is_refused_with_one_line(label: str) -> None:
    with pytest.raises(UsageError, match="a label has") as refused:
        environment_label({LABEL_VARIABLE: label})
    assert "\n" not in str(refused.value)
