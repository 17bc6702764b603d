"""The dashboard and the report in a real browser, over a real run that goes on meanwhile and over a thousand symbols.

Screenshots are kept under ``.autotune/screenshots``: look at them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from autotuner.report.charts import CHARTS
from autotuner.report.figure_parts import WINNER
from autotuner.store import Store
from autotuner.web.site import Site
from tests.support import seen_store
from tests.support.command import Cli
from tests.support.serving import served

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: .ci/run installs it"),
]
SCREENSHOTS = Path(__file__).parents[2] / ".autotune" / "screenshots"
WIDTHS = (360, 1440)
TOKEN = "a token that is long enough"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@dataclass(kw_only=True)
class Tab:
    """A page of the browser that remembers what it complained of and what it asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def heeded(self) -> None:
        """Nothing went wrong in it, and nothing left this machine."""
        assert self.complaints == []
        assert [
            url for url in self.asked if not re.match(r"http://127\.0\.0\.1:|data:|blob:|file:", url)
        ] == []

    def keep(self, name: str) -> None:
        """A screenshot to be looked at."""
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    tab = Tab(page=context.new_page())
    tab.page.set_default_timeout(60_000)
    tab.page.on(
        "console", lambda m: tab.complaints.append(m.text) if m.type in {"error", "warning"} else None
    )
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.page.on("request", lambda request: tab.asked.append(request.url))
    yield tab
    context.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, str]]:
    """A store in which one symbol stands already, and the address at which it is shown."""
    cli = Cli(tmp_path_factory.mktemp("real"))
    seen_store.tuned(cli.db, "GOOGL")
    with served(Site(location=str(cli.db))) as port:
        yield cli, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = tmp_path_factory.mktemp("thousand") / "autotune.db"
    seen_store.many(store, 1000)
    with served(Site(location=str(store))) as port:
        yield f"http://127.0.0.1:{port}"


def pixels(page: Page, selector: str, color: str) -> int:
    """How many pixels of an element have a colour, as it is seen."""
    found = Image.open(BytesIO(page.locator(selector).screenshot())).convert("RGB")
    wanted = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    far = np.abs(np.asarray(found, dtype=np.int64) - wanted).max(axis=2)
    return int((far < 12).sum())


class TestPages:
    def test_a_run_is_followed_while_it_goes_on_and_its_symbol_opened(
        self, tab: Tab, real: tuple[Cli, str]
    ) -> None:
        cli, address = real
        tab.page.goto(address)
        expect(tab.page.get_by_role("status").first).to_have_text("live")
        expect(tab.page.locator("tr[data-symbol=AMD]")).to_have_count(0)
        with cli.start("run", "--symbol", "AMD", "--trials", "2", "--timeout", "30") as run:
            row = tab.page.locator("tr[data-symbol=AMD]")
            expect(row).to_contain_text("tuning: ", timeout=60_000)
            expect(row).to_contain_text(re.compile(r"tuning: (1 trial|2 trials) since"), timeout=60_000)
            tab.keep("overview-during-a-run")
            err = run.communicate(timeout=120)[1]
        assert run.returncode == 0, err
        expect(row).not_to_contain_text("tuning", timeout=10_000)
        expect(row).to_contain_text("fp32")
        tab.page.get_by_role("link", name="AMD").click()
        expect(tab.page.get_by_role("heading", level=1)).to_have_text("AMD")
        expect(tab.page.locator("#fan .plot svg").first).to_be_visible(timeout=120_000)
        for name in ("speed", "pareto", "latency", "fan"):
            assert pixels(tab.page, f"#{name} .plot", WINNER) > 20, name
        tab.page.evaluate("scrollTo(0, 0)")
        tab.keep("symbol-of-a-real-run")
        tab.heeded()

    def test_every_chart_of_a_symbol_with_everything_is_drawn(self, tab: Tab, real: tuple[Cli, str]) -> None:
        _, address = real
        tab.page.goto(f"{address}/symbols/GOOGL")
        for name in CHARTS:
            tab.page.locator(f"#{name}").scroll_into_view_if_needed()
            expect(tab.page.locator(f"#{name} .plot svg").first).to_be_visible()
            assert pixels(tab.page, f"#{name} .plot", WINNER) > 20, name
        assert tab.page.title() == "GOOGL - autotune"
        tab.heeded()

    def test_hostile_texts_run_nothing(self, tab: Tab, real: tuple[Cli, str]) -> None:
        _, address = real
        tab.page.goto(f"{address}/symbols/GOOGL")
        expect(tab.page.get_by_text("<script>document.title").first).to_be_visible()
        tab.page.wait_for_timeout(500)
        assert tab.page.title() == "GOOGL - autotune"
        tab.heeded()

    def test_what_needs_javascript_only_is_missing_without_it(
        self, browser: Browser, real: tuple[Cli, str]
    ) -> None:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(f"{real[1]}/symbols/GOOGL")
        expect(page.get_by_text("5 launches gave 2.76x to 2.88x")).to_be_visible()
        context.close()


class TestThousand:
    def test_symbols_are_sorted_and_filtered(self, tab: Tab, thousand: str) -> None:
        page = tab.page
        page.goto(thousand)
        rows = page.locator("#symbols tbody tr:visible")
        expect(rows).to_have_count(1000)
        page.get_by_role("button", name="speed-up").click()
        expect(page.locator("th[aria-sort=descending]")).to_have_text("speed-up")
        speeds = page.locator("#symbols tbody tr td:nth-child(3)").all_inner_texts()
        values = [float(text.partition("x")[0]) for text in speeds]
        assert values == sorted(values, reverse=True)
        page.get_by_role("button", name="speed-up").click()
        speeds = page.locator("#symbols tbody tr td:nth-child(3)").all_inner_texts()
        assert [float(text.partition("x")[0]) for text in speeds] == sorted(values)
        page.get_by_label("Search").fill("S0012")
        expect(rows).to_have_count(1)
        expect(page.locator("#count")).to_have_text("1 of 1000 symbols")
        page.get_by_label("Search").fill("eager")
        expect(rows).to_have_count(333)
        page.get_by_label("State").select_option("stale")
        expect(rows).to_have_count(333)
        assert page.locator("svg.spark").count() == 1000
        tab.keep("overview-of-a-thousand")
        tab.heeded()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/symbols/GOOGL", "/daemon"])
def test_pages_fit_and_can_be_used_by_everybody(
    browser: Browser, real: tuple[Cli, str], path: str, scheme: str, width: int
) -> None:
    # axe puts a script into the page, which the page's own policy forbids: only here it is set aside.
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        bypass_csp=True,
    )
    page = context.new_page()
    page.goto(real[1] + path)
    page.wait_for_timeout(500)
    name = f"{path.strip('/').replace('/', '-') or 'overview'}-{scheme}-{width}"
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page)
    serious = [each for each in found.response["violations"] if each["impact"] in {"serious", "critical"}]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in serious] == []
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_opens_from_a_file_without_a_network(
    browser: Browser, real: tuple[Cli, str], width: int
) -> None:
    cli, _ = real
    done = cli.run("report", "GOOGL", "--html", "report.html")
    assert done.returncode == 0, done.stderr
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    tab = Tab(page=context.new_page())
    tab.page.on(
        "console", lambda m: tab.complaints.append(m.text) if m.type in {"error", "warning"} else None
    )
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.page.on("request", lambda request: tab.asked.append(request.url))
    tab.page.goto((cli.folder / "report.html").as_uri())
    chart = tab.page.locator("#GOOGL-speed")
    chart.scroll_into_view_if_needed()
    expect(chart.locator("svg").first).to_be_visible()
    assert pixels(tab.page, "#GOOGL-speed .plot", WINNER) > 20
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    tab.page.screenshot(path=SCREENSHOTS / f"report-{width}.png", full_page=True)
    assert [url for url in tab.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert tab.complaints == []
    context.close()


def test_who_is_logged_in_rolls_back_from_the_page(tab: Tab, tmp_path: Path) -> None:
    store = tmp_path / "autotune.db"
    seen_store.tuned(store, "AMD")
    with served(Site(location=str(store), token=TOKEN)) as port:
        page, address = tab.page, f"http://127.0.0.1:{port}"
        page.goto(f"{address}/login")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.goto(f"{address}/symbols/AMD")
        page.locator("form[action='/actions/rollback'] input[name=reason]").fill("it looks slow")
        page.get_by_role("button", name="Roll back").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Done")
    with Store(str(store)) as opened:
        assert opened.records.promotions("AMD")[-1].rolled_back_reason == "it looks slow"
    tab.heeded()
