"""A build that takes torch's headers parsed is the same build, sooner; where it cannot, nothing is lost."""

from __future__ import annotations

import fcntl
import shlex
import subprocess
from pathlib import Path

import pytest
from torch._inductor import cpp_builder
from torch._inductor.cpp_builder import get_cpp_compiler

from toto_core.compiling.headers import HEADERS_VARIABLE, precompiled, with_header

# a header of torch's compiler that takes a fraction of a second
SOURCE = """
// a comment first, as torch's sources have it
#include <torch/csrc/inductor/aoti_runtime/mini_array_ref.h>
extern "C" long answer() { return 42; }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "headers"


@pytest.fixture
def command(tmp_path: Path) -> str:
    """As torch has it: flags among what to compile and where to."""
    source = tmp_path / "source.cpp"
    source.write_text(SOURCE)
    include = Path(cpp_builder.__file__).parents[1] / "include"
    flags = ["-O1", "-std=c++20", "-fPIC", f"-I{include}", "-c", "-o", str(tmp_path / "source.o")]
    return shlex.join([get_cpp_compiler(), str(source), *flags])


@pytest.fixture(autouse=True)
def _none_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HEADERS_VARIABLE, raising=False)


def compiled(command: str, tmp_path: Path) -> bytes:
    """The object, and no complaint of a parsed header that does not fit."""
    strict = [*shlex.split(command), "-Winvalid-pch", "-Werror"]
    run = subprocess.run(strict, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return (tmp_path / "source.o").read_bytes()


def test_the_object_is_the_same_to_the_byte(command: str, folder: Path, tmp_path: Path) -> None:
    with_it = with_header(command, folder)

    assert "-include" in with_it
    assert len(list(folder.rglob("*.gch"))) == 1
    assert compiled(with_it, tmp_path) == compiled(command, tmp_path)


def test_what_is_parsed_is_found_again_and_not_for_other_flags(command: str, folder: Path) -> None:
    first = with_header(command, folder)

    assert with_header(command, folder) == first
    assert with_header(command.replace("-O1", "-O2"), folder) != first
    assert with_header(command.replace("source.o", "other.o"), folder).split()[2] == first.split()[2]


def test_a_source_that_says_something_before_its_header_is_left_alone(
    command: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "source.cpp").write_text("#define NDEBUG\n" + SOURCE)

    assert with_header(command, folder) == command


def test_a_header_that_another_process_is_at_is_not_waited_for(command: str, folder: Path) -> None:
    with_header(command, folder)
    (made,) = folder.rglob("*.gch")
    made.unlink()

    with made.with_name("lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert with_header(command, folder) == command

    assert with_header(command, folder) != command


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert with_header(command, tmp_path / "file" / "headers") == command


def test_a_header_that_does_not_parse_is_left_to_the_compiler_to_tell(command: str, folder: Path) -> None:
    old = command.replace("-std=c++20", "-std=c++98")

    assert with_header(old, folder) == old
    assert not list(folder.rglob("*.gch"))
    assert not list(folder.rglob("tmp*"))


def test_torch_calls_its_compiler_with_it_and_only_inside(command: str, folder: Path, tmp_path: Path) -> None:
    own = cpp_builder.run_compile_cmd

    with precompiled(folder):
        cpp_builder.run_compile_cmd(command, cwd=str(tmp_path))
    with precompiled():
        assert cpp_builder.run_compile_cmd is own

    assert list(folder.rglob("*.gch"))
    assert (tmp_path / "source.o").exists()
    assert cpp_builder.run_compile_cmd is own
