"""Makes real child processes fail: a ``sitecustomize`` module on their path, and nothing in the product.

It wraps ``toto_core.compiling.calls.Calls`` in the child as soon as that module is imported, so that some
settings do what the test wants and all others are left alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_TEMPLATE = """
import importlib.abc, importlib.machinery, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "toto_core.compiling.calls":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            original = module.Calls.__init__

            def init(self, decoder, settings, *more):
                if {condition}:
                    {action}
                original(self, decoder, settings, *more)

            module.Calls.__init__ = init

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""

HANG = "import signal; [signal.pause() for _ in iter(int, 1)]"
SEGFAULT = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
EAT_MEMORY = "hoard = [bytearray(64 << 20) for _ in range(1000)]"
NO_COMPILER = "import os; os.environ['PATH'] = '/nothing'; os.environ.pop('CXX', None)"
SHIFTED_FORECAST = (
    "forward = module.forward; first = forward.first; "
    "forward.first = lambda *a, **k: (lambda r: r._replace(prices=r.prices * 1.01))(first(*a, **k))"
)


def by_recompile_limit(actions: dict[int, str]) -> str:
    """Another action for every recompile limit named; settings with another one are left alone."""
    return f"exec({actions!r}.get(settings.recompile_limit, 'pass'), {{'module': module}})"


def children_that(
    action: str, *, folder: Path, monkeypatch: pytest.MonkeyPatch, when: str = "settings.compiled"
) -> None:
    """From now on child processes do ``action`` when they build a pipeline whose settings fulfil ``when``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_TEMPLATE.format(condition=when, action=action))
    existing = os.environ.get("PYTHONPATH")
    path = os.pathsep.join(part for part in (str(folder), existing) if part)
    monkeypatch.setenv("PYTHONPATH", path)
