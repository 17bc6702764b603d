"""What the overview of a thousand symbols costs: to serve, unchanged and changed, and until a browser may use it."""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import sync_playwright

from autotuner.record_mapping import telemetry_record
from autotuner.store import Store
from autotuner.web.site import FRESH_SECONDS, Site
from tests.support import seen_store
from tests.support.promoted_store import FAST, NOW
from tests.support.serving import served


def main() -> None:
    """Print medians, 90th percentiles and the longest of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "autotune.db"
        seen_store.many(store, arguments.symbols)
        with served(Site(location=str(store))) as port:
            address = f"http://127.0.0.1:{port}/"
            first = seconds(lambda: fetch(address))
            size = len(fetch(address)) / 1e6
            print(f"{arguments.symbols} symbols, {size:.2f} MB; the first answer {first * 1000:.0f} ms")
            show(
                "served, nothing changed", [seconds(lambda: fetch(address)) for _ in range(arguments.rounds)]
            )
            changed = []
            for number in range(arguments.rounds):
                change(store, number)
                time.sleep(FRESH_SECONDS)
                changed.append(seconds(lambda: fetch(address)))
            show("served after a change", changed)
            show("usable in Chromium", usable(address, arguments.symbols, arguments.rounds // 3))


def fetch(address: str) -> bytes:
    with urlopen(address) as answer:
        body: bytes = answer.read()
    return body


def change(store: Path, number: int) -> None:
    with Store(str(store)) as opened:
        opened.records.add_telemetry(
            telemetry_record(seen_store.window("S0000", FAST, NOW.replace(second=number)))
        )


def usable(address: str, symbols: int, rounds: int) -> list[float]:
    """Seconds from asking for the page until a typed word has filtered its rows, in a new browser context each."""
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(rounds):
            page = browser.new_context().new_page()
            found.append(seconds(lambda page=page: type_a_word(page, address, symbols)))
            page.context.close()
        browser.close()
    return found


def type_a_word(page, address: str, symbols: int) -> None:  # type: ignore[no-untyped-def]
    page.goto(address)
    page.get_by_label("Search").fill("S0007")
    page.wait_for_function(f"document.getElementById('count').textContent === '1 of {symbols} symbols'")


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def show(what: str, measured: list[float]) -> None:
    tenths = statistics.quantiles(measured, n=10, method="inclusive")
    median, p90 = tenths[4], tenths[8]
    print(
        f"{what}: median {median * 1000:.0f} ms, p90 {p90 * 1000:.0f} ms, longest {max(measured) * 1000:.0f} ms"
    )


if __name__ == "__main__":
    main()
