"""The page as a reader uses it: some of it in a browser, by typing, clicking and reading."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from gradio_client import Client, handle_file
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as expected

from cookbook import inference, page, words
from tests import browsing

TITLE = "You won't believe what this one trick does"


class Page:
    """What a reader does on a page."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get(url)
        self.one("textarea")

    def until(self, condition):
        return browsing.until(self.browser, condition)

    def one(self, css):
        return self.until(expected.visibility_of_element_located((By.CSS_SELECTOR, css)))

    def all(self, css):
        found = self.until(lambda b: ([e.text for e in b.find_elements(By.CSS_SELECTOR, css)],))
        return found[0]

    def text(self, css):
        return self.until(lambda b: b.find_element(By.CSS_SELECTOR, css).text)

    def field(self, label):
        path = f"//label[normalize-space(.)='{label}']//*[self::textarea or self::input]"
        return self.until(expected.visibility_of_element_located((By.XPATH, path)))

    def click(self, name):
        # Some stand there twice, once unseen, to be measured.
        browsing.click(self.browser, By.XPATH, f"//button[normalize-space(.)='{name}']")

    def write(self, label, text):
        def written(_):
            field = self.field(label)
            field.clear()
            field.send_keys(text)
            return True

        self.until(written)

    def upload(self, path):
        self.click("Many texts")
        find = (By.CSS_SELECTOR, "input[type=file]")
        self.until(expected.presence_of_element_located(find)).send_keys(str(path))

    def told(self, words):
        """Wait for a message with these words; return all of it."""
        return self.until(
            lambda _: next((text for text in self.all(".toast-body") if words in text), None)
        )


def served(folder, **options):
    """Serve a page; its address, and its endpoints as plain functions."""
    made = page.build(folder, **options)
    _, url, _ = made.launch(prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    functions = {each.api_name: each.fn for each in made.fns.values()}
    yield SimpleNamespace(url=url, **functions)
    made.close(verbose=False)


@pytest.fixture(scope="module")
def classifier(trained):
    yield from served(trained.folder)


@pytest.fixture(scope="module")
def keyworder(keyword_model, short_posts):
    yield from served(keyword_model, examples=short_posts["text"].head(2).tolist(), title="Posts")


def downloaded(answers):
    """Read the file of what `answer_csv` returns, with what stands above it."""
    _, download, note = answers
    file = download["value"]
    return pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig"), note


# --- One text


def test_a_title_gets_its_label_and_its_percentages(trained, classifier, browser):
    browser.get_log("performance")
    reader = Page(browser, classifier.url)
    assert reader.all("[data-testid=label-output-value]") == []  # nothing was asked yet
    reader.write("Text", TITLE)
    reader.click("Classify")
    label = reader.text("[data-testid=label-output-value]")
    answer = inference.classify([TITLE], trained.folder).iloc[0]
    assert label == answer["label"]
    shown = dict(zip(reader.all("dt.text"), reader.all("dd.confidence"), strict=True))
    assert set(shown) == set(trained.names)
    for name, percent in shown.items():
        assert int(percent.rstrip("%")) == pytest.approx(100 * answer[name], abs=0.6)
    # It asks no server but its own: no fonts, no analytics. The browser's own start page may still
    # load when the log begins.
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [each["params"] for each in events if each["method"] == "Network.requestWillBeSent"]
    start = ("chrome:", "chrome-untrusted:")
    asked = [each["request"]["url"] for each in sent if not each["documentURL"].startswith(start)]
    assert asked
    assert [url for url in asked if not url.startswith((classifier.url, "data:", "blob:"))] == []


def test_a_click_on_an_example_answers_it(trained, classifier, browser):
    reader = Page(browser, classifier.url)
    browsing.click(browser, By.CSS_SELECTOR, ".gallery-item")
    label = reader.text("[data-testid=label-output-value]")
    text = reader.field("Text").get_attribute("value")
    assert text == reader.all(".gallery-item")[0]
    assert label == inference.classify([text], trained.folder)["label"][0]


def test_without_a_text_it_says_what_to_do(classifier, browser):
    reader = Page(browser, classifier.url)
    reader.write("Text", "  ")
    reader.click("Classify")
    assert "type or paste one" in reader.told("There is no text yet")
    reader.click("Many texts")
    reader.click("Answer every row")
    assert "drop a CSV" in reader.told("There is no file yet")


def test_keywords_are_marked_in_the_text_and_html_in_it_is_not_run(
    keyword_model, short_posts, keyworder, browser
):
    text = short_posts["text"][3] + " <img src=x onerror=\"document.title='run'\">"
    text += " <b>bold & ${document.title} {{value}}"
    (keywords,) = inference.extract_keywords([text], keyword_model)
    assert keywords
    reader = Page(browser, keyworder.url)
    assert reader.all("h1") == ["Posts"]
    reader.write("Text", text)
    reader.click("Find keywords")
    assert reader.text(".marked") == text
    assert reader.all(".chips li") == keywords
    assert set(reader.all(".marked mark")) == set(keywords)
    assert not browser.find_elements(By.CSS_SELECTOR, ".answer img, .answer b")
    assert browser.title == "Posts"


# --- Many texts


def test_a_csv_of_titles_comes_back_with_answers_in_its_order(
    trained, classifier, browser, tmp_path
):
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    titles = trained.test.head(12)
    source = pd.DataFrame(
        {"id": [f"{i:03}" for i in range(13)], "headline": [*titles["text"], " "]}
    )
    source["label"] = "mine; <b>yours</b>"
    source.to_csv(tmp_path / "titles.csv", index=False, sep=";")  # as Excel writes it in Germany
    reader = Page(browser, classifier.url)
    reader.upload(tmp_path / "titles.csv")
    assert "headline" in reader.text(".rows")
    # By mistake the column's name is left as it is; the names that there are may hold anything.
    reader.click("Answer every row")
    assert "It has: 'id', 'headline', 'label'" in reader.told("titles.csv has no column 'text'")
    reader.write("Name of the column that holds the texts", "headline")
    reader.click("Answer every row")
    reader.click("Download the CSV with answers")
    file = tmp_path / "titles_answered.csv"
    reader.until(lambda _: file.is_file())
    assert file.read_bytes().startswith(b"\xef\xbb\xbf")  # the mark that Excel looks for
    found = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    assert reader.all(".rows p") == ["First 10 of 13 rows"]
    assert "mine; <b>yours</b>" in reader.text(".rows")
    assert "without a text, and so without an answer: 1" in reader.text(".note")
    pd.testing.assert_frame_equal(found[list(source)], source, check_dtype=False)
    added = [name for name in found if name not in source]
    assert added == ["label_predicted", "score", *trained.names]  # its own label stays as it was
    assert (found.iloc[12][added] == "").all()
    answers = inference.classify(titles["text"].tolist(), trained.folder)
    assert found["label_predicted"].tolist()[:12] == answers["label"].tolist()
    for name in ("score", *trained.names):
        figures = found[name][:12].astype(float).tolist()
        assert figures == pytest.approx(answers[name].tolist(), abs=1e-4)


def test_a_file_that_is_too_large_is_refused_in_the_page(classifier, browser, tmp_path):
    (tmp_path / "large.csv").write_bytes(b"text\n" + b"A title that is long enough\n" * 200_000)
    reader = Page(browser, classifier.url)
    reader.upload(tmp_path / "large.csv")
    assert "maximum allowed size of 5" in reader.told("large.csv")


def test_posts_come_back_with_keywords(keyword_model, short_posts, keyworder, tmp_path):
    posts = short_posts[["text"]].head(12)
    posts.to_parquet(tmp_path / "posts.parquet")
    found, note = downloaded(keyworder.answer_csv(str(tmp_path / "posts.parquet"), "text"))
    assert list(found) == ["text", "keywords"]
    assert found["text"].tolist() == posts["text"].tolist()
    keywords = inference.extract_keywords(posts["text"].tolist(), keyword_model)
    assert found["keywords"].tolist() == list(map(words.join_keywords, keywords))
    assert note == "Texts answered: 12."


def test_an_empty_row_stays_where_it_is_without_an_answer(classifier, tmp_path):
    path = tmp_path / "titles.csv"
    path.write_text("text\nRain in Leeds\n\nSun in Hull\n\n\n", "utf-8")
    found, note = downloaded(classifier.answer_csv(str(path), "text"))
    texts = found["text"].tolist()
    assert texts[:3] == ["Rain in Leeds", "", "Sun in Hull"]
    assert [bool(label) for label in found["label"]] == [bool(text) for text in texts]
    assert note.startswith("Texts answered: 2; rows without a text")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "broken.csv is empty"),
        (b"text\n", "broken.csv has no rows"),
        (b"text\nHello, world\n", "broken.csv, line 2"),
        ("text\nCafé\n".encode("cp1252"), "CSV UTF-8"),
        (b"id,<img src=x>\n1,2\n", "It has: 'id', '&lt;img src=x&gt;'"),
    ],
)
def test_a_file_that_will_not_do_is_explained(content, message, classifier, tmp_path):
    (tmp_path / "broken.csv").write_bytes(content)
    with pytest.raises(Exception, match=re.escape(message)) as caught:
        classifier.answer_csv(str(tmp_path / "broken.csv"), "text")
    assert str(tmp_path) not in str(caught.value)


# --- The page as a whole


def test_the_command_serves_an_exported_model_without_torch_until_ctrl_c(
    exported, short_posts, tmp_path
):
    code = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; "
    code += "from cookbook import cli; cli.main()"
    text, folder = short_posts["text"][0], str(exported.int8)
    short_posts.head(2).to_csv(tmp_path / "posts.csv", index=False)
    with subprocess.Popen(
        [sys.executable, "-c", code, "page", folder, "--title", "A & B"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stdout)
            url = next(match[0] for match in found if match)
            client = Client(url, verbose=False, download_files=str(tmp_path))
            said = client.predict(text, api_name="/answer")
            upload = handle_file(str(tmp_path / "posts.csv"))
            answers = client.predict(upload, "text", api_name="/answer_csv")
            assert client.config["title"] == "A & B"
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.wait() == 130
        finally:
            process.kill()
    assert said["label"] == inference.classify([text], folder)["label"][0]
    answered, _ = downloaded(answers)
    assert answered["text"].tolist() == short_posts["text"].head(2).tolist()


def test_without_gradio_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "cookbook.page")
    told = re.escape('gradio is missing. Run: pip install "small-model-cookbook[deploy]"')
    with pytest.raises(ModuleNotFoundError, match=told):
        importlib.import_module("cookbook.page")
