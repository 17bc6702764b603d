"""The lock files and the list of components say what the project asks for, with a hash for every file."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LOCKS = {
    "requirements.lock": re.findall(
        r"[a-z0-9]+", re.findall(r"^RUNTIME := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0]
    ),
    "requirements-dev.lock": ["build", "dev", "docs", "test"],
}
"""Which extras each of them is to hold."""


def locked(name: str) -> list[tuple[Requirement, list[str]]]:
    """The requirement and the hashes of every package, a package for newer Pythons by itself."""
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.IGNORECASE)
    return [
        (Requirement(re.split(r" *\\", entry)[0]), re.findall(r"--hash=(\S+)", entry)) for entry in entries
    ]


def versions(name: str) -> dict[str, set[str]]:
    """The versions of every package."""
    found: dict[str, set[str]] = {}
    for requirement, _ in locked(name):
        found.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier)[2:])
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_a_version_and_hashes_for_everything_and_no_address(name: str) -> None:
    for requirement, hashes in locked(name):
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes)
    assert "://" not in (ROOT / name).read_text()


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_what_the_project_asks_for(name: str) -> None:
    pinned = versions(name)
    asked = [Requirement(text) for text in PROJECT["dependencies"]]
    asked += [Requirement(text) for extra in LOCKS[name] for text in EXTRAS[extra]]
    outside = {"torch", "toto-autotune"}  # the machine's own, and this project with another extra

    for requirement in asked:
        if requirement.name not in outside:
            found = pinned[canonicalize_name(requirement.name)]
            assert all(map(requirement.specifier.contains, found)), f"{requirement}: `make lock` is due"


def test_both_locks_agree() -> None:
    runtime, tools = (versions(name) for name in LOCKS)

    assert len(runtime) > 50
    assert [name for name in runtime.keys() & tools.keys() if runtime[name] != tools[name]] == []


def test_the_list_of_components_is_the_lock() -> None:
    components = json.loads((ROOT / "sbom.cdx.json").read_text())["components"]
    listed = {canonicalize_name(each["name"]): each["version"] for each in components}
    pinned = versions("requirements.lock")
    everywhere = {canonicalize_name(each.name) for each, _ in locked("requirements.lock") if not each.marker}

    assert everywhere <= listed.keys() <= pinned.keys()
    assert all(version in pinned[name] for name, version in listed.items())
