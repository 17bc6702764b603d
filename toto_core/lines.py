"""Text that can be printed whatever it quotes, and what an error says on one line of it."""

from __future__ import annotations

_LONGEST = 2_000


def escaped(text: str) -> str:
    """``text`` with characters that could steer a terminal or turn its order written out, such as ``\\x1b``.

    Only line ends stay: ``one_line`` is for a text that may hold some of its own.
    """
    if text.replace("\n", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def one_line(text: str, longest: int = _LONGEST) -> str:
    """``text`` on one line of bounded length, safe to print whatever it quotes; a long one lacks its middle."""
    line = escaped(" ".join(text.split()))
    half = longest // 2
    return line if len(line) <= longest else f"{line[: half - 3]}...{line[half - longest :]}"


class OneLineError(ValueError):
    """Base of errors whose message people read; it is one line, however long or strange what it quotes."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))
