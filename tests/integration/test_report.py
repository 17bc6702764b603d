"""``autotune report``: what it says is what the store holds, and hostile texts stay texts."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from autotuner.report.charts import CHARTS
from autotuner.report.symbol_view import symbol_view
from autotuner.store import Store
from tests.support import seen_store
from tests.support.command import Cli
from tests.support.promoted_store import digest, poison

SYMBOLS = ("AMD", "AAPL", "BTCUSD", "ETHUSD", "GOOGL")
MOST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    found = Cli(tmp_path_factory.mktemp("report"))
    for seed, symbol in enumerate(SYMBOLS):
        seen_store.tuned(found.db, symbol, seed=seed)
    return found


class Page(HTMLParser):
    """Tags with their attributes, texts outside scripts, and the data of figures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.data: list[str] = []
        self._script: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs).get("type") or "javascript"

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.texts.append(data)
        elif self._script == "application/json":
            self.data.append(data)


@pytest.fixture(scope="module")
def page(cli: Cli) -> Page:
    before = digest(cli.db)
    done = cli.run("report", "--html", "report.html")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert digest(cli.db) == before
    return Page((cli.folder / "report.html").read_text(encoding="utf-8"))


def test_five_symbols_fit_into_one_small_file_that_asks_for_nothing_else(cli: Cli, page: Page) -> None:
    assert (cli.folder / "report.html").stat().st_size < MOST_BYTES
    outside = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in {"src", "srcset", "data"}
    ]
    links = [attributes["href"] for tag, attributes in page.tags if tag in {"a", "link"}]
    assert not outside
    assert all(link is not None and link.startswith("#") for link in links)
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_the_figures_of_the_page_are_those_of_the_store(cli: Cli, page: Page) -> None:
    said = " ".join(" ".join(page.texts).split())
    figures = [json.loads(data) for data in page.data]
    with Store(str(cli.db)) as store:
        for symbol in SYMBOLS:
            view = symbol_view(store, symbol)
            ratio = view.promotion.figures.ratio
            assert ratio is not None
            assert f"{symbol} {view.promotion.settings.label} {ratio.estimate:.2f}x" in said
            calls = [round(ms, 12) for ms in view.calls_ms["winner"]]
            drawn = [
                trace["x"]
                for figure in figures
                for trace in figure["data"]
                if trace.get("name") == "promoted"
            ]
            assert calls in [[round(ms, 12) for ms in each] for each in drawn if isinstance(each[0], float)]
            for trial in view.trials:
                assert trial.label in said


def test_hostile_texts_stay_texts_in_every_form(cli: Cli, page: Page) -> None:
    ours = [attributes for tag, attributes in page.tags if tag == "script"]
    assert all(attributes in ({}, {"type": "application/json"}) for attributes in ours)
    assert "img" not in {tag for tag, _ in page.tags}
    assert seen_store.HOSTILE in "".join(page.texts)
    markdown = cli.run("report", "AMD").stdout
    assert re.search(r"(?<!\\)<", markdown) is None


def test_csv_has_a_row_for_every_trial_and_nothing_that_a_spreadsheet_would_calculate(cli: Cli) -> None:
    rows = list(csv.DictReader(io.StringIO(cli.run("report", "AMD", "BTCUSD", "--csv").stdout)))
    with Store(str(cli.db)) as store:
        trials = [trial for symbol in ("AMD", "BTCUSD") for trial in symbol_view(store, symbol).trials]
    assert [row["settings_key"] for row in rows] == [trial.settings.key for trial in trials]
    assert [row["p50_ms"] for row in rows] == ["" if t.p50_ms is None else str(t.p50_ms) for t in trials]
    assert not [cell for row in rows for cell in row.values() if cell[:1] in {"=", "+", "@"}]


def test_markdown_has_the_four_tables_advice_for_each_use_case_and_a_checklist(cli: Cli) -> None:
    text = cli.run("report", "--markdown").stdout
    for heading in (
        "Performance by compile mode",
        "MAE stability",
        "Time stability",
        "MAE differences",
        "Production trading",
        "Accuracy-critical",
        "Batches and backtests",
        "Research and validation",
        "Before money depends on it",
    ):
        assert heading in text
    assert text.count("not measured") >= len(SYMBOLS)  # max-autotune in fp32, of which nothing is stored
    assert "= default here" in text


def test_a_symbol_that_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    seen_store.tuned(cli.db, "AMD")
    poison(cli.db, "BAD")
    done = cli.run("report", "--markdown")
    assert done.returncode == 0
    assert "left out" in done.stderr
    assert "BAD" in done.stderr
    assert "## AMD" in done.stdout
    alone = cli.run("report", "BAD")
    assert (alone.returncode, alone.stdout) == (1, "")
    assert len(alone.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="pictures are drawn by a browser")
def test_pictures_show_what_the_page_shows(cli: Cli) -> None:
    done = cli.run("report", "AMD", "--png", "pictures")
    assert done.returncode == 0, done.stderr
    found = {path.name: path.read_bytes() for path in (cli.folder / "pictures").iterdir()}
    assert set(found) == {f"AMD-{name}.png" for name in CHARTS}
    assert all(content.startswith(b"\x89PNG") and len(content) > 5_000 for content in found.values())
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("report", "TSLA"), "was never promoted", 1),
        (("report", "--csv", "--markdown"), "give one of them", 2),
        (("report", "--html", "/proc/no/report.html"), "/proc/no", 1),
    ],
)
def test_what_cannot_be_reported_is_one_line(
    cli: Cli, arguments: tuple[str, ...], said: str, code: int
) -> None:
    done = cli.run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
