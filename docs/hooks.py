"""Hooks of the site: links to the repository lead somewhere, decisions list themselves, help keeps its lines.

A page may link to a file outside ``docs/`` the way it does when it is read beside the sources. On the site such a
file is a page of its own (Markdown), or is there to be loaded down, below ``repository/``.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

BELOW = "repository"
_LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List every decision below the first one."""
    docs = Path(config.docs_dir)
    pages = sorted((docs / "decisions").glob("[0-9]*.md"))
    for entry in config.nav or []:
        if isinstance(entry, dict) and "Decisions" in entry:
            entry["Decisions"] = [
                "decisions/README.md",
                *(page.relative_to(docs).as_posix() for page in pages),
            ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file of the repository that a page links to, and what those that are pages link to."""
    root = Path(config.config_file_path).parent
    docs = Path(config.docs_dir).relative_to(root).as_posix()
    left = [(file.src_uri, Path(str(file.abs_src_path))) for file in files.documentation_pages()]
    while left:
        uri, path = left.pop()
        for target in _LINK.findall(path.read_text(encoding="utf-8")):
            outside = _outside(target[1], uri, docs)
            if outside is None or not (root / outside).is_file() or files.get_file_from_path(_site(outside)):
                continue
            added = File.generated(
                config,
                _site(outside),
                abs_src_path=str(root / outside),
                inclusion=InclusionLevel.NOT_IN_NAV,
            )
            files.append(added)
            if added.is_documentation_page():
                left.append((added.src_uri, root / outside))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Let links lead to the files that ``on_files`` added."""
    root = Path(config.config_file_path).parent
    docs = Path(config.docs_dir).relative_to(root).as_posix()

    def led(match: re.Match[str]) -> str:
        outside = _outside(match[2], page.file.src_uri, docs)
        if outside is None:
            return match[0]
        there = _site(outside) if not outside.startswith(f"{docs}/") else outside.removeprefix(f"{docs}/")
        return f"{match[1]}{os.path.relpath(there, posixpath.dirname(page.file.src_uri) or '.')}{match[3] or ''})"

    return _LINK.sub(led, markdown)


def on_page_content(html: str, *, page: Page, **_: Any) -> str:
    """Show the examples of a command's help line by line: mkdocs-click makes one paragraph of them."""
    if page.file.src_uri != "reference/cli.md":
        return html
    return re.sub(r"<p>((?:autotune|eval) [^<]*)</p>", r"<pre><code>\1</code></pre>", html)


def _outside(target: str, uri: str, docs: str) -> str | None:
    """The file that a link means, by its path in the repository; None for one that the site has as it is."""
    if re.match(r"[a-z]+:|/", target):
        return None
    added = uri.startswith(f"{BELOW}/")
    here = uri.removeprefix(f"{BELOW}/") if added else f"{docs}/{uri}"
    found = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    return None if found.startswith("..") or (not added and found.startswith(f"{docs}/")) else found


def _site(path: str) -> str:
    return f"{BELOW}/{path}"
