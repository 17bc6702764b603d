"""A wrapper compiled beside the kernels is there when it is linked, fails as torch says it, and outlives no build."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

import pytest
from torch._inductor import cpp_builder
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import CppCompileError

from toto_core.compiling.beside import wrapper_beside


def compile_command(tmp_path: Path, name: str, source: str) -> str:
    path = tmp_path / f"{name}.cpp"
    path.write_text(source)
    words = [get_cpp_compiler(), str(path), "-fPIC", "-c", "-o", str(tmp_path / f"{name}.o")]
    return shlex.join(words)


def link_command(tmp_path: Path, *names: str) -> str:
    objects = [str(tmp_path / f"{name}.o") for name in names]
    return shlex.join([get_cpp_compiler(), *objects, "-shared", "-o", str(tmp_path / "library.so")])


def call(command: str, tmp_path: Path) -> None:
    """As torch does: from a folder that is gone when the call is over."""
    folder = tmp_path / "for-one-call"
    folder.mkdir()
    cpp_builder.run_compile_cmd(command, cwd=str(folder))
    folder.rmdir()


def test_the_call_that_links_waits_for_the_wrapper(tmp_path: Path) -> None:
    with wrapper_beside():
        call(compile_command(tmp_path, "a.wrapper", "long answer() { return 42; }"), tmp_path)
        assert not (tmp_path / "a.wrapper.o").exists()  # at work still, it has just been started
        call(compile_command(tmp_path, "a.kernel", "long question() { return 6; }"), tmp_path)
        assert (tmp_path / "a.kernel.o").exists()
        call(link_command(tmp_path, "a.wrapper", "a.kernel"), tmp_path)

    symbols = subprocess.run(
        ["nm", "-C", str(tmp_path / "library.so")], capture_output=True, text=True, check=True
    )
    assert "answer()" in symbols.stdout
    assert "question()" in symbols.stdout


def test_a_wrapper_that_does_not_compile_fails_where_it_is_linked_as_torch_says_it(tmp_path: Path) -> None:
    with wrapper_beside():
        call(compile_command(tmp_path, "a.wrapper", "long answer() { return nowhere; }"), tmp_path)
        with pytest.raises(CppCompileError, match="nowhere"):
            call(link_command(tmp_path, "a.wrapper"), tmp_path)


def test_no_compiler_outlives_a_build_that_failed(tmp_path: Path) -> None:
    number = tmp_path / "number"
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {number}.new; mv {number}.new {number}; exec sleep 60\n")
    slow.chmod(0o700)
    command = shlex.join([str(slow), "a.wrapper.cpp", "-c", "-o", str(tmp_path / "a.wrapper.o")])

    def build_and_fail() -> None:
        with wrapper_beside():
            call(command, tmp_path)
            while not number.exists():
                time.sleep(0.01)
            raise ValueError("kernels")

    with pytest.raises(ValueError, match="kernels"):
        build_and_fail()

    assert not Path("/proc", number.read_text().strip()).exists()


def test_torch_calls_its_compiler_as_before_when_the_build_is_over() -> None:
    before = cpp_builder.run_compile_cmd
    with wrapper_beside():
        assert cpp_builder.run_compile_cmd is not before
    assert cpp_builder.run_compile_cmd is before


def test_where_torch_calls_its_compiler_otherwise_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cpp_builder, "run_compile_cmd")
    with wrapper_beside():
        assert not hasattr(cpp_builder, "run_compile_cmd")
