"""The report: one page that holds everything, asks for nothing and says what is missing."""

import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_comparison import write_comparison

from sb3_nbsp.benchmark import figures
from sb3_nbsp.benchmark.__main__ import main
from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.frames import load_results
from sb3_nbsp.benchmark.report import report_html, write_report

TASKS = ["coffee-button", "handle-press"]
METHODS = ["continual_sac", "nbsp_hard_masks", "nbsp_sac"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "link", "img", "br"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    comparison = Comparison(["CoffeeButton-HandlePress"], METHODS, [1, 2], hyperparams={"learning_starts": 100})
    write_comparison(tmp_path / "one & two", comparison, TASKS, episodes=20)
    return tmp_path / "one & two"


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one that every comparison has, and one of those that need neurons.json."""
    few = [each for each in figures.OF_SEQUENCES if each[0] in ("metrics", "histograms")]
    monkeypatch.setattr(figures, "OF_SEQUENCES", few)


class Page(HTMLParser):
    """Checks that elements are closed in order; collects texts, cells, attributes and ids."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())
            if self.open[-1] == "td":
                self.cells.append((self.elements[-1][1].get("class") or "", data.strip()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_report_is_one_page_with_everything(folder):
    path = write_report(load_results(folder))
    assert path == folder / "report.html"
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert "CoffeeButton-HandlePress, preset laptop" in page.texts
    assert "Methods: vanilla SAC, NBSP, hard masks, NBSP. Seeds: 1, 2. 6 of 6 runs are done." in page.texts
    assert {"CoffeeButton-HandlePress (laptop)", "ASR ↑: IQM [95 %]", "NBSP, hard masks"} <= {*page.texts}
    assert "Nothing: every run of the comparison is done and every file could be read." in page.texts
    images = page.all("img")
    assert len(images) == 7 and all(image["src"].startswith("data:image/svg+xml;base64,") for image in images)
    assert all(len(image["alt"]) > 40 for image in images)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"] for link in page.all("a")} <= {f"#{name}" for name in ids}
    assert page.all("script") == [] and all(link["href"] == "data:," for link in page.all("link"))
    assert load_results(folder).comparison.command() in page.texts
    assert {"torch", "2.13.0", "processor", "a processor"} <= {*page.texts}


def test_report_marks_hyperparams_that_differ_from_the_first_method(folder, few_figures):
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text())
        config["hyperparams"]["n_timesteps"] = 9  # of which a sequence makes no use
        if path.parent == folder / "nbsp_sac" / "seed_2":
            config["hyperparams"]["batch_size"] = 128
        path.write_text(json.dumps(config))
    page = Page(report_html(load_results(folder)))
    row = page.cells[-9:]
    # policy, batch_size, mask_type of the three methods
    assert row == [("", "MlpPolicy")] * 3 + [("", "256")] * 3 + [("none", "–"), ("differs", "hard"), ("none", "–")]
    assert "learning_starts 100" in page.texts
    assert "NBSP, seed 2 ran with other hyperparameters than NBSP, seed 1: batch_size 128" in page.texts


def test_report_tells_machines_apart(folder, few_figures):
    path = folder / "nbsp_sac" / "seed_2" / "config.json"
    config = json.loads(path.read_text())
    config["versions"]["torch"] = "2.14.0"
    path.write_text(json.dumps(config))
    texts = Page(report_html(load_results(folder))).texts
    assert texts.index("NBSP, seed 2") < texts.index("2.14.0")
    assert any(text.startswith("python -m sb3_nbsp.benchmark run --envs CoffeeButton-HandlePress") for text in texts)


def test_report_says_what_was_left_out(folder, few_figures):
    shutil.rmtree(folder / "nbsp_sac" / "seed_2")
    (folder / "continual_sac" / "seed_1" / "error.txt").write_text("Traceback\nValueError: too <hot>\n")
    (folder / "nbsp_sac" / "seed_1" / "neurons.json").write_text("{")
    (folder / "nbsp_hard_masks" / "seed_1" / "neurons.json").unlink()
    (folder / "nbsp_hard_masks" / "seed_2" / "neurons.json").unlink()
    (folder / "nbsp_hard_masks" / "seed_2" / "config.json").write_text('{"versions": 3}')
    texts = Page(report_html(load_results(folder))).texts
    assert "Methods: vanilla SAC, NBSP, hard masks, NBSP. Seeds: 1, 2. 4 of 6 runs are done." in texts
    assert "NBSP, seed 2: not started" in texts
    assert "vanilla SAC, seed 1: failed: ValueError: too <hot>" in texts
    assert any(text.startswith("NBSP, seed 1: ") and "neurons.json is damaged" in text for text in texts)
    assert any(text.endswith("config.json is damaged: its versions are 3") for text in texts)
    assert sum("was not drawn: no run has histograms" in text for text in texts) == 1


def test_report_of_a_comparison_without_a_finished_run(tmp_path):
    Comparison(["CoffeeButton-HandlePress"], METHODS, [1]).save(tmp_path)
    texts = Page(report_html(load_results(tmp_path))).texts
    assert {"No run is done yet.", "There is nothing to draw yet.", "NBSP, seed 1: not started"} <= {*texts}


def write_script_into_all_files(folder: Path) -> None:
    """As a task's name, a hyperparameter, a machine, an error, a layer."""
    script = "<script>alert(1)</script>"
    for path in folder.glob("*/*/*"):
        path.write_text(path.read_text().replace("handle-press", script).replace("latent_pi", script))
    for path in folder.glob("*/*/config.json"):
        config = json.loads(path.read_text())
        for part in ("hyperparams", "versions", "machine"):
            config[part][script] = {script: '"&' + script}
        path.write_text(json.dumps(config))
    (folder / "nbsp_sac" / "seed_2" / "error.txt").write_text(script)
    comparison = json.loads((folder / "benchmark.json").read_text())
    (folder / "benchmark.json").write_text(
        json.dumps({**comparison, "hyperparams": {"learning_starts": script}, "env_kwargs": {script: script}})
    )


def test_report_escapes_what_comes_from_files(folder):
    write_script_into_all_files(folder)
    html = report_html(load_results(folder))
    page = Page(html)
    assert "<script" not in html and page.all("script") == []
    # In the plan twice, in options and machine and versions, and as the reason of a failure
    assert html.count("&lt;script&gt;alert(1)") >= 9
    assert len(page.all("img")) == 7


def test_commands(folder, few_figures, capsys):
    (folder / "nbsp_sac" / "seed_1" / "neurons.json").write_text("{")
    for command, out, options in (
        ("plot", folder / "plots" / "metrics.png", []),
        ("plot", folder / "elsewhere" / "metrics.svg", ["--out", str(folder / "elsewhere")]),
        ("report", folder / "report.html", []),
        ("report", folder / "new" / "a.html", ["--out", str(folder / "new" / "a.html")]),
    ):
        assert main([command, str(folder), *options]) == 0
        printed = capsys.readouterr().out
        assert str(out) in printed.splitlines() and out.stat().st_size > 1000
        assert ("Left out: NBSP, seed 1: " in printed) == (command == "plot")


@pytest.fixture
def browser() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=[*options, "--disable-sync", "--no-first-run"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_in_a_browser_needs_nothing_but_its_file(folder, browser, scheme):
    write_script_into_all_files(folder)
    path = write_report(load_results(folder))
    page = browser.new_page(color_scheme=scheme, viewport={"width": 900, "height": 700})
    requests: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    assert requests == [path.as_uri()]
    assert problems == []
    images = page.locator("img")
    assert images.count() == 7
    sizes = images.evaluate_all(
        "all => all.map(i => [i.naturalWidth, i.clientWidth, i.clientHeight, i.getBoundingClientRect().right])"
    )
    for natural, width, height, right in sizes:
        assert natural > 0 and width > 300 and height > 100 and right <= 900
    # Wide tables scroll in their own box
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    background, text = page.evaluate(
        "['backgroundColor', 'color'].map(name => Number(getComputedStyle(document.body)[name].match(/\\d+/)[0]))"
    )
    assert (background > 200 and text < 100) if scheme == "light" else (background < 100 and text > 200)
