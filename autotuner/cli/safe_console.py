"""A rich console on which no text can steer the terminal: only what rich itself draws does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from toto_core.lines import escaped


class SafeConsole(Console):
    """Nothing shown acts as markup, unless ``markup`` is asked for, and nothing as a control sequence."""

    def __init__(self, *, markup: bool = False, **options: Any) -> None:
        super().__init__(markup=markup, highlight=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is to be drawn; texts come here without any of rich's own sequences."""
        for segment in super().render(renderable, options):
            plain = segment.control or segment.text.isprintable()
            yield segment if plain else segment._replace(text=escaped(segment.text))
