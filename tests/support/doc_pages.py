"""Takes README and the pages of ``docs/`` apart into their code blocks.

The convention, which holds for every page:

- Every code block is fenced, at the left margin, and names its language. Nothing else is indented by four spaces or
  more, so that no block escapes.
- ``python``, ``console`` and ``sh`` blocks are run. In ``console`` what begins with ``$`` is a command; the lines
  below it show what such a command prints. ``toml`` and ``json`` are read. ``text`` shows output or a file and holds
  no command.
- ``title="NAME"`` behind the language is the name of the file that the block is.
- ``<!-- not run: REASON -->`` directly above a fence says that a block cannot be run here, and why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("console", "csv", "json", "python", "sh", "text", "toml")
RUN = ("console", "python", "sh")

_FENCE = re.compile(r"(?P<margin>\s*)(?P<ticks>`{3,}|~{3,})\s*(?P<language>[\w-]*)(?P<rest>.*)")
_TITLE = re.compile(r'title="([^"]+)"')
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_INLINE = re.compile(r"`(autotune [^`]+)`")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block; ``line`` counts from 1, ``not_run`` is the reason above it, None where there is none."""

    page: Path
    line: int
    language: str
    text: str
    title: str | None = None
    not_run: str | None = None

    @property
    def where(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a block, and what the page shows of its output; ``line`` counts from 1."""

    line: int
    text: str
    shown: tuple[str, ...]

    @property
    def error(self) -> str | None:
        """The refusal that the page shows, in one line; None where the command succeeds."""
        begin = next((at for at, line in enumerate(self.shown) if line.startswith("Error: ")), None)
        return None if begin is None else " ".join(" ".join(self.shown[begin:]).split())


def pages() -> list[Path]:
    """README and every page of ``docs/``, in order."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page. Raises ``ValueError`` for a fence that is never closed."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    above, at = "", 0
    while at < len(lines):
        fence = _FENCE.fullmatch(lines[at])
        if fence is None:
            above = lines[at].strip() or above
            at += 1
            continue
        end = next((n for n in range(at + 1, len(lines)) if lines[n].strip() == fence["ticks"]), None)
        if end is None:
            raise ValueError(f"{page}:{at + 1}: the block is never closed")
        title, reason = _TITLE.search(fence["rest"]), _NOT_RUN.fullmatch(above)
        found.append(
            Block(
                page=page,
                line=at + 1,
                language=fence["language"],
                text="".join(f"{line}\n" for line in lines[at + 1 : end]),
                title=title[1] if title else None,
                not_run=reason[1] if reason else None,
            )
        )
        above, at = "", end + 1
    return found


def commands(block: Block) -> Iterator[Command]:
    """The commands of a ``console`` block; a backslash goes on with one in the next line."""
    lines = block.text.splitlines()
    at = 0
    while at < len(lines):
        begin = at
        if not lines[at].startswith("$ "):
            raise ValueError(f"{block.where}: a console block begins with a command, not with {lines[at]!r}")
        text = lines[at][2:]
        while text.endswith("\\"):
            at += 1
            text = f"{text[:-1]} {lines[at].strip()}"
        end = next((n for n in range(at + 1, len(lines)) if lines[n].startswith("$ ")), len(lines))
        yield Command(line=block.line + 1 + begin, text=text, shown=tuple(lines[at + 1 : end]))
        at = end


def escapes(page: Path) -> list[str]:
    """Lines that Markdown may take for code although no fence says so, and fences that are not at the margin."""
    found, inside, options = [], "", False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.fullmatch(line)
        if inside:
            inside = "" if line.strip() == inside else inside
        elif fence is not None:
            inside = fence["ticks"]
            if fence["margin"] or fence["language"] not in LANGUAGES:
                found.append(
                    f"{page.name}:{number}: {line.strip()}: at the margin, in one of {', '.join(LANGUAGES)}"
                )
        elif line.startswith((" " * 4, "\t")) and not options:
            found.append(f"{page.name}:{number}: indented: {line.strip()[:60]}")
        # below a line of colons stand the options of what is generated there
        options = line.startswith(":::") or (options and bool(line.strip()))
    return found


def inline_commands(page: Path) -> list[str]:
    """Commands that a page names in the middle of a sentence."""
    text = page.read_text(encoding="utf-8")
    return _INLINE.findall(re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE))
