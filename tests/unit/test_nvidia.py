"""Which card ``cuda`` means, read from a stand-in for NVML (no GPU here) and from made driver files."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotuner.machine import nvidia
from autotuner.machine.nvidia import NO_GPU, GpuState, gpu_state, visible_gpu

CARDS = ("GPU-aaa", "GPU-bbb")


class NvmlError(Exception):
    """What NVML raises."""


def fake_nvml(*, idle: bool = False) -> Any:
    def by_index(index: int) -> int:
        if index >= len(CARDS):
            raise NvmlError
        return index

    def by_uuid(uuid: str) -> int:
        if uuid not in CARDS:
            raise NvmlError
        return CARDS.index(uuid)

    return SimpleNamespace(
        NVMLError=NvmlError,
        NVML_CLOCK_SM=1,
        nvmlClocksThrottleReasonGpuIdle=1,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=by_index,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetCudaComputeCapability=lambda _: (9, 0),
        nvmlDeviceGetPciInfo=lambda _: SimpleNamespace(pciDeviceId=0x233010DE),
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(total=80 * 2**30),
        nvmlSystemGetCudaDriverVersion=lambda: 13000,
        nvmlSystemGetDriverVersion=lambda: b"580.1",
        nvmlDeviceGetName=lambda card: ("H100", b"H200")[card],
        nvmlDeviceGetUUID=lambda card: CARDS[card],
        nvmlDeviceGetComputeRunningProcesses=lambda card: [SimpleNamespace(pid=7 + card)],
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda _: 1 if idle else 4,
        nvmlDeviceGetClockInfo=lambda *_: 345 if idle else 1980,
    )


@pytest.fixture
def _two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())


@pytest.mark.usefixtures("_two_cards")
@pytest.mark.parametrize(
    ("visible", "uuid"),
    [(None, "GPU-aaa"), ("1,0", "GPU-bbb"), (" 1", "GPU-bbb"), ("GPU-bbb", "GPU-bbb")],
)
def test_the_first_visible_card_is_meant(visible: str | None, uuid: str) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

    assert visible_gpu(environ).uuid == uuid


@pytest.mark.usefixtures("_two_cards")
def test_a_card_is_told_by_more_than_its_name() -> None:
    found = visible_gpu({})

    assert found.model == "H100 / 0x10de:0x2330 / sm_90 / 81920 MiB"
    assert found.driver == "580.1 / CUDA 13.0"
    assert visible_gpu({"CUDA_VISIBLE_DEVICES": "1"}).model.startswith("H200 / ")


@pytest.mark.usefixtures("_two_cards")
@pytest.mark.parametrize("visible", ["", "-1", "9", "GPU-none", "what"])
def test_where_no_card_is_visible_there_is_none(visible: str) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": visible}

    assert (visible_gpu(environ), gpu_state(environ)) == (NO_GPU, None)


@pytest.mark.parametrize(("idle", "clock"), [(False, 1980.0), (True, None)])
def test_the_clock_of_an_idle_card_is_no_clock(
    idle: bool, clock: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(idle=idle))

    assert gpu_state({}) == GpuState(clock_mhz=clock, processes=frozenset({7}))


def test_without_nvml_the_drivers_own_files_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(nvidia, "_PROC", tmp_path)
    assert visible_gpu({}) == NO_GPU
    for address, uuid in (("0000:01:00.0", "GPU-aaa"), ("0000:02:00.0", "GPU-bbb")):
        folder = tmp_path / "gpus" / address
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t H100\nGPU UUID: \t {uuid}\n")
    (tmp_path / "version").write_text("NVRM version: 580.1\nGCC version: 12\n")

    assert visible_gpu({}).uuid == "GPU-aaa"
    assert visible_gpu({"CUDA_VISIBLE_DEVICES": "1"}).uuid == "GPU-bbb"
    assert visible_gpu({"CUDA_VISIBLE_DEVICES": "GPU-bbb"}).uuid == "GPU-bbb"
    assert visible_gpu({"CUDA_VISIBLE_DEVICES": "5"}) == NO_GPU
    assert visible_gpu({}).driver == "NVRM version: 580.1"
    assert gpu_state({}) is None
