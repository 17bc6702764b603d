"""Torch's probes of the compiler: made once a machine, with the answers torch gets by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch._inductor import cpu_vec_isa

from toto_core.compiling import probes
from toto_core.compiling.headers import HEADERS_VARIABLE
from toto_core.compiling.probes import probed_once

PROBING = """
import json, os, sys
from contextlib import nullcontext
from pathlib import Path
from torch._inductor import cpu_vec_isa
from toto_core.compiling.probes import probed_once
folder = sys.argv[1]
with probed_once(Path(folder)) if folder else nullcontext():
    found = [[str(isa), isa.build_arch_flags()] for isa in cpu_vec_isa.valid_vec_isa_list()]
made = sum(1 for _ in Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.so"))
print(json.dumps({"found": found, "made": made}))
"""


class Asked:
    """What torch's own probe was asked, and what it answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, answer: bool = True) -> None:
        self.codes: list[str] = []
        self.answer = answer

        def check(isa: Any, code: str) -> bool:
            self.codes.append(code)
            return self.answer

        monkeypatch.setattr(cpu_vec_isa.VecISA, "check_build", check)


def probe(*codes: str) -> list[bool]:
    return [cpu_vec_isa.VecAVX2().check_build(code) for code in codes]


def test_a_probe_that_passed_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    with probed_once(tmp_path):
        assert probe("one", "one", "other") == [True] * 3
    assert asked.codes == ["one", "other"]
    probe("one")
    assert asked.codes == ["one", "other", "one"]  # outside everything is as torch has it


def test_a_probe_that_failed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, answer=False)
    with probed_once(tmp_path):
        assert probe("one", "one") == [False, False]
        asked.answer = True
        assert probe("one", "one") == [True, True]
    assert asked.codes == ["one"] * 3


def test_another_compiler_or_machine_is_probed_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(monkeypatch)
    with probed_once(tmp_path):
        probe("one")
        monkeypatch.setattr(probes, "_machine", lambda: ("another",))
        probe("one")
    assert asked.codes == ["one", "one"]


def test_without_a_folder_or_a_place_in_it_torch_probes_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(monkeypatch)
    monkeypatch.delenv(HEADERS_VARIABLE, raising=False)
    with probed_once():
        probe("one", "one")
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with probed_once(in_the_way):
        assert probe("one", "one") == [True, True]
    assert asked.codes == ["one"] * 4


@pytest.mark.exhaustive  # the suite shows that what passed is not asked again
def test_the_answers_are_torch_s_own_and_the_second_empty_cache_needs_no_compiler(tmp_path: Path) -> None:
    folder = str(tmp_path / "kept")
    alone, first, second = (
        probing(tmp_path / f"cache-{number}", kept) for number, kept in enumerate(("", folder, folder))
    )

    assert alone["found"] == first["found"] == second["found"]
    assert (alone["made"], second["made"]) == (first["made"], 0)


def probing(cache: Path, folder: str) -> dict[str, Any]:
    kept = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_VEC_ISA_OK"}
    done = subprocess.run(
        [sys.executable, "-c", PROBING, folder],
        env=kept | {"TORCHINDUCTOR_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
