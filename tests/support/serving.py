"""A site that is served for a while, on a port of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from autotuner.web.server import listening, server_of
from autotuner.web.site import Site


@contextmanager
def served(site: Site) -> Iterator[int]:
    """The port at which the real server answers meanwhile."""
    with listening(site.host, 0, "a test") as listener:
        server = server_of(site)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()
