"""The book as a reader finds it: built once, and read in a browser, on a desk and on a phone."""

import os
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import cookbook

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("index", "notebooks/clickbait/4_learn_from_unlabelled", "api/inference", "measured")


@pytest.fixture(scope="module")
def book(built):
    """The folder of the book, built as `make book` builds it: a warning is an error."""

    def make(folder):
        command = [sys.executable, str(ROOT / "book" / "build.py"), str(folder)]
        where = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=where)
        assert done.returncode == 0, done.stderr

    return built("book", make)


@pytest.fixture(scope="module")
def address(book):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=book)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(params=[1200, 390])
def width(request, browser):
    size = {"width": request.param, "height": 900, "deviceScaleFactor": 1}
    mobile = {"mobile": request.param < 400}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size | mobile)
    yield request.param
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def until(browser, condition):
    passing = [NoSuchElementException, StaleElementReferenceException]
    return WebDriverWait(browser, 30, 0.1, passing).until(condition)


def one(browser, css):
    return until(browser, lambda b: b.find_element(By.CSS_SELECTOR, css))


def text(book, page):
    return re.sub(r"<[^>]+>", "", (book / f"{page}.html").read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_no_page_scrolls_sideways(address, browser, width, page):
    browser.get(f"{address}/{page}.html")
    assert one(browser, "article h1").text
    wide = "return document.documentElement.scrollWidth <= window.innerWidth"
    assert until(browser, lambda b: b.execute_script(wide))


def test_the_front_page_leads_on(address, browser, width):
    browser.get(f"{address}/index.html")
    picture = "return document.querySelector('article img').naturalWidth"
    assert until(browser, lambda b: b.execute_script(picture))
    link = one(browser, "article a[href$='4_learn_from_unlabelled.html']")
    browser.execute_script("arguments[0].click()", link)
    until(browser, lambda b: b.current_url.endswith("4_learn_from_unlabelled.html"))
    assert "unlabelled" in one(browser, "article h1").text


def test_the_search_finds_break_even(address, browser):
    browser.get(f"{address}/search.html?q=break-even")
    found = "ul.search li a[href*='clickbait/3_compare_and_deploy']"
    assert "Clickbait" in one(browser, found).text


def test_a_chapter_shows_its_figures_and_code_to_copy(address, browser, width):
    browser.get(f"{address}/notebooks/clickbait/3_compare_and_deploy.html")
    script = "return [...document.querySelectorAll('.cell_output img')].map(i => i.naturalWidth)"
    sizes = until(browser, lambda b: b.execute_script(script))
    assert len(sizes) >= 3
    until(browser, lambda b: any(b.execute_script(script)))
    code = browser.execute_script("return document.querySelectorAll('.cell_input').length")
    buttons = "return document.querySelectorAll('.cell_input button.copybtn').length"
    assert until(browser, lambda b: b.execute_script(buttons)) == code > 10


def test_light_and_dark_are_a_click_away(address, browser):
    browser.get(f"{address}/api/inference.html")
    theme = "return document.body.dataset.theme"
    first = until(browser, lambda b: b.execute_script(theme))
    script = "document.querySelector('.theme-toggle-container button, button.theme-toggle').click()"
    browser.execute_script(script)
    until(browser, lambda b: b.execute_script(theme) != first)


def test_every_module_has_a_page_with_what_it_offers(book):
    for name in cookbook.__all__:
        assert f"cookbook.{name}" in text(book, f"api/{name}")
    inference = (book / "api" / "inference.html").read_text("utf-8")
    for name in ("load", "classify", "answer_file"):
        assert f'id="cookbook.inference.{name}"' in inference
    assert "_modules/cookbook/inference.html" in inference
    prices = (book / "api" / "economics.html").read_text("utf-8")
    assert 'id="cookbook.economics.API_PRICES"' in prices
    assert "Prices of LLMs by the token" in prices
    assert "cookbook teach" in text(book, "api/cli")


def test_nothing_is_explained_twice(book):
    pages = [page.read_text("utf-8") for page in sorted((book / "api").glob("*.html"))]
    shown = [name for page in pages for name in re.findall(r'<dt [^>]*id="cookbook([^"]+)"', page)]
    assert len(shown) == len(set(shown)) > 100
    sources = re.findall(r'"\.\./(_modules/[^"]+#[^"]+)"', "".join(pages))
    assert len(sources) == len(set(sources)) > 100


def test_the_notebooks_are_chapters_in_the_order_of_their_index(book):
    index = (ROOT / "notebooks" / "README.md").read_text("utf-8")
    wanted = re.findall(r"^\| \[.+?\]\((.+?)\.ipynb\)", index, re.MULTILINE)
    front = (book / "index.html").read_text("utf-8")
    (tree,) = re.findall(r'<div class="sidebar-tree">(.*?)</div>', front, re.DOTALL)
    assert re.findall(r'href="notebooks/(\w+/\w+)\.html"', tree) == wanted
    for name in wanted:
        assert "Open In Colab" in (book / "notebooks" / f"{name}.html").read_text("utf-8")


@pytest.fixture
def linked(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    import build

    return lambda text, name: build.linked(text, name, build.chapters())


def test_a_link_leads_into_the_book_or_to_the_repository(linked):
    name = "notebooks/clickbait/3_compare_and_deploy.ipynb"
    assert linked("[x](2_fine_tune_albert.ipynb)", name) == "[x](2_fine_tune_albert.ipynb)"
    assert linked("[x](../../book/measured.md#data)", name) == "[x](../../measured.md#data)"
    outside = linked("[x](../../deploy/service.py)", name)
    assert re.fullmatch(r"\[x\]\(https://.+/blob/main/deploy/service\.py\)", outside)
    assert linked(outside.replace("deploy/service.py", "data/README.md"), name) == (
        "[x](../../data/README.md)"
    )
    other = "[x](https://arxiv.org/abs/1503.02531), [y](#here)\n```\n[x](nowhere.md)\n```\n"
    assert linked(other, name) == other


def test_a_link_that_leads_nowhere_stops_the_build(linked):
    with pytest.raises(ValueError, match=r"notebooks/README\.md links to gone\.ipynb, which isn"):
        linked("[gone](gone.ipynb)", "notebooks/README.md")
