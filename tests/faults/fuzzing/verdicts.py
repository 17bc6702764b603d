"""What every target checks alike: which errors are documented, and how a line that people see must be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from click.testing import Result

from tests.faults.fuzzing.target import Violation

LONGEST = 3_000
"""Characters of a message that a person is still to read."""


def check_line(text: str, what: str = "the message") -> None:
    """Raise ``Violation`` unless ``text`` is one printable line of bounded length."""
    if len(text) > LONGEST:
        raise Violation(f"{what} has {len(text)} characters: {text[:200]!a}")
    if not text.strip() or not text.isprintable():
        raise Violation(f"{what} is not one printable line: {text[:300]!a}")


@contextmanager
def refused_with(*kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds are documented, as long as their message is one line; all others go through."""
    try:
        yield
    except kinds as error:
        try:
            check_line(str(error))
        except Violation as found:
            raise found from error


def check_command(result: Result, *, alone: bool = True) -> bool:
    """Whether a command went well; raises what it let out, and ``Violation`` for a refusal that is not one line.

    What is noted before that, of what was left out, is allowed unless the line must stand ``alone``.
    """
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code not in {0, 1, 2}:
        raise Violation(f"exit code {result.exit_code}: {result.output[:300]!a}")
    lines = result.stderr.split("\n")[:-1]
    for line in lines:
        check_line(line, "a line of stderr")
    if result.exit_code == 0:
        return True
    if not lines or not lines[-1].startswith("Error: ") or (alone and len(lines) != 1):
        raise Violation(f"exit code {result.exit_code} without one line: {result.stderr[:300]!a}")
    return False


def check(holds: bool, what: str) -> None:
    """Raise ``Violation`` unless it holds."""
    if not holds:
        raise Violation(what)
