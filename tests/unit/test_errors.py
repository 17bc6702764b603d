from __future__ import annotations

from autotuner.errors import cause, one_line
from autotuner.measurement.child.main import classify

FAILED = """InvalidCxxCompiler: No working C++ compiler found

Command:
g++ /tmp/x.cpp -I/usr/include
  -o /tmp/x.so

Output:
x.cpp:1: error: std::bad_alloc

Set TORCHDYNAMO_VERBOSE=1 for the internal stack trace
For even more developer context, set TORCH_LOGS="+dynamo"
"""


def test_a_failure_of_torch_is_its_reason_alone_in_one_line() -> None:
    told = "RuntimeError: InvalidCxxCompiler: No working C++ compiler found x.cpp:1: error: std::bad_alloc"
    assert cause(RuntimeError(FAILED)) == told
    assert classify(RuntimeError(FAILED)) == ("out_of_memory", told)


def test_a_failure_without_words_still_says_something() -> None:
    assert cause(RuntimeError(" \n ")) == "RuntimeError: no message"


def test_whatever_is_quoted_stays_one_printable_line_of_bounded_length() -> None:
    assert one_line("a\n\tb\x1b\udcff") == r"a b\x1b\udcff"
    assert one_line("x" * 9000) == "x" * 497 + "..."
