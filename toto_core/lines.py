"""What an error says, on one line that can be printed whatever it quotes."""

from __future__ import annotations

_LONGEST = 2_000


def one_line(text: str, longest: int = _LONGEST) -> str:
    """``text`` on one line of bounded length, safe to print whatever it quotes; a long one lacks its middle."""
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    half = longest // 2
    return line if len(line) <= longest else f"{line[: half - 3]}...{line[half - longest :]}"


class OneLineError(ValueError):
    """Base of errors whose message people read; it is one line, however long or strange what it quotes."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))
