"""The page as a reader uses it: in a browser, by typing, clicking and reading."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as expected
from selenium.webdriver.support.ui import WebDriverWait
from typer.testing import CliRunner

from cookbook import demo, inference

TITLE = "You won't believe what this one trick does"
OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--window-size=1200,1000"
)


class Page:
    """What a reader does on a page."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get(url)
        self.one("textarea")

    def until(self, condition):
        return WebDriverWait(self.browser, 30).until(condition)

    def one(self, css):
        return self.until(expected.visibility_of_element_located((By.CSS_SELECTOR, css)))

    def all(self, css):
        return [found.text for found in self.browser.find_elements(By.CSS_SELECTOR, css)]

    def field(self, label):
        path = f"//label[normalize-space(.)='{label}']//*[self::textarea or self::input]"
        return self.until(expected.visibility_of_element_located((By.XPATH, path)))

    def click(self, name):
        # Some stand there twice, once unseen, to be measured.
        find = (By.XPATH, f"//button[normalize-space(.)='{name}']")
        seen = self.until(lambda b: [e for e in b.find_elements(*find) if e.is_displayed()])
        seen[0].click()

    def write(self, label, text):
        field = self.field(label)
        field.clear()
        field.send_keys(text)

    def upload(self, path):
        self.click("Many texts")
        find = (By.CSS_SELECTOR, "input[type=file]")
        self.until(expected.presence_of_element_located(find)).send_keys(str(path))

    def told(self, words):
        """Wait for a message with these words; return all of it."""
        return self.until(
            lambda _: next((text for text in self.all(".toast-body") if words in text), None)
        )


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, downloads):
    chromium = shutil.which("chromium")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver aren't installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options, Service(driver))
    yield browser
    browser.quit()


def served(folder, **options):
    page = demo.build(folder, **options)
    _, url, _ = page.launch(prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    yield url
    page.close(verbose=False)


@pytest.fixture(scope="module")
def classifier(trained):
    yield from served(trained.folder)


@pytest.fixture(scope="module")
def keyworder(keyword_model, short_posts):
    yield from served(keyword_model, examples=short_posts["text"].head(2).tolist(), title="Posts")


# --- One text


def test_a_title_gets_its_label_and_its_percentages(trained, classifier, browser, tmp_path):
    page = Page(browser, classifier)
    page.write("Text", TITLE)
    page.click("Classify")
    label = page.one("[data-testid=label-output-value]").text
    answer = inference.classify([TITLE], trained.folder).iloc[0]
    assert label == answer["label"]
    shown = dict(zip(page.all("dt.text"), page.all("dd.confidence"), strict=True))
    assert set(shown) == set(trained.names)
    for name, percent in shown.items():
        assert int(percent.rstrip("%")) == pytest.approx(100 * answer[name], abs=0.6)
    browser.save_screenshot(str(tmp_path / "page.png"))


def test_a_click_on_an_example_answers_it(trained, classifier, browser):
    page = Page(browser, classifier)
    assert page.all("[data-testid=label-output-value]") == []  # nothing was asked yet
    page.one(".gallery-item").click()
    label = page.one("[data-testid=label-output-value]").text
    text = page.field("Text").get_attribute("value")
    assert text == page.all(".gallery-item")[0]
    assert label == inference.classify([text], trained.folder)["label"][0]


def test_without_a_text_it_says_what_to_do(classifier, keyworder, browser):
    for address, button in ((classifier, "Classify"), (keyworder, "Find keywords")):
        page = Page(browser, address)
        page.write("Text", "  ")
        page.click(button)
        assert "type or paste one" in page.told("There is no text yet")
        page.click("Many texts")
        page.click("Answer every row")
        assert "drop a CSV" in page.told("There is no file yet")


def test_keywords_stand_as_chips_and_are_marked_in_the_text(
    keyword_model, short_posts, keyworder, browser
):
    text = short_posts["text"][3]
    (keywords,) = inference.extract_keywords([text], keyword_model)
    assert keywords
    page = Page(browser, keyworder)
    assert page.all("h1") == ["Posts"]
    page.write("Text", text)
    page.click("Find keywords")
    assert page.one(".marked").text == text
    assert page.all(".chips li") == keywords
    assert set(page.all(".marked mark")) == set(keywords)


def test_html_in_a_text_is_shown_and_not_run(short_posts, keyworder, browser):
    text = short_posts["text"][3] + " <img src=x onerror=\"document.title='run'\">"
    text += " <b>bold & ${document.title} {{value}}"
    page = Page(browser, keyworder)
    title = browser.title
    page.write("Text", text)
    page.click("Find keywords")
    assert page.one(".marked").text == text
    assert not browser.find_elements(By.CSS_SELECTOR, ".answer img, .answer b")
    assert browser.title == title == "Posts"


@pytest.mark.parametrize(
    ("text", "keywords", "marked"),
    [
        ("C and C++, .NET", ["C", "C++", ".NET"], ["C", "C++", ".NET"]),
        ("Next.js 14 or Next.js?", ["Next.js", "Next.js 14"], ["Next.js 14", "Next.js"]),
        ("Home\n Assistant <3 R&D", ["Home Assistant", "R&D"], ["Home\n Assistant", "R&amp;D"]),
        ("Gopher", ["Go"], []),
    ],
)
def test_whole_keywords_are_marked_the_longest_first(text, keywords, marked):
    assert re.findall("<mark>(.*?)</mark>", demo._marked(text, keywords), re.DOTALL) == marked


# --- Many texts


def answered(page, downloads, name):
    """Click, wait, download, and read the CSV."""
    page.click("Answer every row")
    page.click("Download the CSV with answers")
    file = downloads / name
    page.until(lambda _: file.is_file())
    frame = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    file.unlink()
    return frame


def test_a_csv_of_titles_comes_back_with_answers_in_its_order(
    trained, classifier, browser, downloads, tmp_path
):
    titles = trained.test.head(12)
    source = pd.DataFrame(
        {"id": [f"{i:03}" for i in range(13)], "headline": [*titles["text"], " "]}
    )
    source["label"] = "mine; <b>yours</b>"
    source.to_csv(tmp_path / "titles.csv", index=False, sep=";")  # as Excel writes it in Germany
    page = Page(browser, classifier)
    page.upload(tmp_path / "titles.csv")
    assert "headline" in page.one(".rows").text
    page.write("Name of the column that holds the texts", "headline")
    found = answered(page, downloads, "titles_answered.csv")
    assert page.all(".rows p") == ["First 10 of 13 rows"]
    assert "mine; <b>yours</b>" in page.one(".rows").text
    pd.testing.assert_frame_equal(found[list(source)], source, check_dtype=False)
    added = [name for name in found if name not in source]
    assert added == ["model_label", "score", *trained.names]  # its own label stays what it was
    assert (found.iloc[12][added] == "").all()
    answers = inference.classify(titles["text"].tolist(), trained.folder)
    assert found["model_label"].tolist()[:12] == answers["label"].tolist()
    for name in ("score", *trained.names):
        figures = found[name][:12].astype(float).tolist()
        assert figures == pytest.approx(answers[name].tolist(), abs=1e-4)


def test_a_csv_of_posts_comes_back_with_keywords(
    keyword_model, short_posts, keyworder, browser, downloads, tmp_path
):
    posts = short_posts[["text"]].head(12)
    posts.to_csv(tmp_path / "posts.csv", index=False)
    page = Page(browser, keyworder)
    page.upload(tmp_path / "posts.csv")
    found = answered(page, downloads, "posts_answered.csv")
    assert list(found) == ["text", "keywords"]
    assert found["text"].tolist() == posts["text"].tolist()
    keywords = inference.extract_keywords(posts["text"].tolist(), keyword_model)
    assert found["keywords"].tolist() == ["; ".join(found) for found in keywords]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "broken.csv is empty"),
        (b"text\n", "has the columns 'text', but no rows"),
        (b"text\nHello, world\n", "more cells than the header 'text'"),
        (b"text,id\na,1\nb,2,3\n", "isn't a regular CSV"),
        ("text\nCafé\n".encode("cp1252"), "Save it again as 'CSV UTF-8'"),
        (b"text\n" + b"A title that is long enough\n" * 200_000, "larger than 5 MB"),
    ],
)
def test_a_csv_that_will_not_do_is_explained(content, message, tmp_path):
    (tmp_path / "broken.csv").write_bytes(content)
    with pytest.raises(Exception, match=re.escape(message)) as caught:
        demo._read(str(tmp_path / "broken.csv"))
    assert str(tmp_path) not in str(caught.value)


def test_a_wrong_column_is_answered_with_the_columns_there_are(classifier, browser, tmp_path):
    (tmp_path / "mine.csv").write_text("id,headline,<img src=x>\n1,A title,\n")
    page = Page(browser, classifier)
    page.upload(tmp_path / "mine.csv")
    page.one(".rows")
    page.click("Answer every row")
    told = page.told("mine.csv has no column 'text'")
    assert "It has: 'id', 'headline', '<img src=x>'" in told
    page.write("Name of the column that holds the texts", "headline")
    page.click("Answer every row")
    page.until(lambda _: page.all(".rows th")[3:5] == ["label", "score"])


def test_a_file_that_is_too_large_is_refused_in_the_page(classifier, browser, tmp_path):
    (tmp_path / "large.csv").write_bytes(b"text\n" + b"A title that is long enough\n" * 200_000)
    page = Page(browser, classifier)
    page.upload(tmp_path / "large.csv")
    assert "maximum allowed size of 5" in page.told("large.csv")


# --- The page as a whole


def test_the_page_asks_no_server_but_its_own(classifier, browser):
    browser.get_log("performance")
    page = Page(browser, classifier)
    page.write("Text", TITLE)
    page.click("Classify")
    page.one("[data-testid=label-output-value]")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert [url for url in asked if not url.startswith((classifier, "data:", "blob:"))] == []


@contextmanager
def served_by(command):
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stdout)
        try:
            yield next(match[0] for match in found if match)
        finally:
            process.terminate()


def test_the_command_line_serves_the_page(trained, browser):
    command = [sys.executable, "-m", "cookbook.demo", str(trained.folder), "--title", "A & B"]
    with served_by(command) as url:
        page = Page(browser, url)
        assert page.all("h1") == ["A & B"]
        page.write("Text", TITLE)
        page.click("Classify")
        label = page.one("[data-testid=label-output-value]").text
    assert label == inference.classify([TITLE], trained.folder)["label"][0]


@pytest.mark.parametrize("kind", ["int8", "keywords"])
def test_an_exported_model_is_served_without_torch(kind, exported, short_posts, browser):
    code = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; "
    code += "from cookbook import demo; demo.app()"
    text, folder = short_posts["text"][0], str(getattr(exported, kind))
    with served_by([sys.executable, "-c", code, folder]) as url:
        page = Page(browser, url)
        page.write("Text", text)
        if kind == "int8":
            assert page.all("h1") == ["Clickbait or factual?"]
            page.click("Classify")
            shown = page.one("[data-testid=label-output-value]").text
            assert shown == inference.classify([text], folder)["label"][0]
        else:
            page.click("Find keywords")
            page.one(".chips")
            assert page.all(".chips li") == inference.extract_keywords([text], folder)[0]


def test_the_command_line_says_what_is_wrong(minilm):
    run = CliRunner().invoke(demo.app, [str(minilm)])
    assert run.exit_code == 1
    assert f"Error: {minilm} is a BertModel. The page takes what the notebooks save" in run.stderr
    run = CliRunner().invoke(demo.app, ["out/nothing"])
    assert "Error: out/nothing is no folder of a saved model" in run.stderr


def test_without_gradio_it_says_how_to_get_it(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ModuleNotFoundError, match=r"small-model-cookbook\[deploy\]"):
        demo.build(trained.folder)
