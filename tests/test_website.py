"""The website: no dead link, nothing loaded from elsewhere, nothing cut off, on a desktop and on a phone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def pages(site: Path) -> list[Path]:
    """All but the one for wrong addresses, whose links only work on a server."""
    return [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]


LINKS = "elements => elements.map(element => element.href || element.src)"
# A table or a block of code may scroll inside its own frame; what sticks out of the page is cut off
STICKS_OUT = """() => {
    const width = document.documentElement.clientWidth;
    const scrolls = element =>
        element && (/auto|scroll/.test(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
    return [...document.querySelectorAll("article *")]
        .filter(element => element.getBoundingClientRect().right > width + 1 && element.offsetParent && !scrolls(element))
        .map(element => element.tagName + ": " + element.textContent.trim().slice(0, 60));
}"""


def test_every_page_on_a_desktop_and_on_a_phone(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.set_default_timeout(200_000)  # milliseconds: on a busy machine
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    anchors: dict[Path, set[str]] = {}
    links: list[tuple[Path, str]] = []
    for path in pages(site):
        page.goto(path.as_uri())
        anchors[path.resolve()] = set(page.eval_on_selector_all("[id]", "elements => elements.map(element => element.id)"))
        links += [(path, link) for link in page.eval_on_selector_all("a[href], img[src]", LINKS)]
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate(STICKS_OUT) == [], f"{path.relative_to(site)}, {width} pixels wide"
    elsewhere = [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
    assert elsewhere == [], "it opens without a network"
    assert len(anchors) > 20
    for path, link in links:
        url = urlparse(link)
        if url.scheme != "file":
            continue
        target = Path(unquote(url.path)).resolve()
        target = target / "index.html" if target.is_dir() else target
        assert target.exists(), f"{path.relative_to(site)} links to {link}"
        if url.fragment and target in anchors and not url.fragment.startswith("__"):
            assert unquote(url.fragment) in anchors[target], f"{path.relative_to(site)} links to {link}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_repository(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links and [link for link in links if not (ROOT / link).exists()] == []
    in_text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    assert re.findall(r"^[A-Z_]{4,}$|TODO|XXX", in_text, flags=re.MULTILINE) == [], "something was to be filled in"
