"""A person decides: what is asked first, what is kept, what it says, and the page by its keys."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pandas as pd
import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from typer.testing import CliRunner

from cookbook import cli, inference, review, review_page, tables
from tests import browsing


@pytest.fixture
def flipped(titles):
    """A hundred titles, five of them with the other label."""
    rows = titles.groupby("label").head(150)[["text", "label"]].reset_index(drop=True)
    other = {"clickbait": "factual", "factual": "clickbait"}
    wrong = rows.sample(15, random_state=0).index
    rows.loc[wrong, "label"] = rows.loc[wrong, "label"].map(other)
    return rows, set(rows.loc[wrong, "text"])


def decide_all(rows, path, decision=lambda row: ("accept", None), names=("clickbait", "factual")):
    with review.open_review(rows, path, names, by="ann") as opened:
        while row := opened.current:
            opened.decide(*decision(row))
    return review.decisions(path)


# --- What stands first


def test_doubtful_labels_come_first_and_say_why(flipped):
    rows, wrong = flipped
    queue = review.queue(rows)
    assert len(queue) == len(rows)
    first = queue.head(45)
    assert first["text"].isin(wrong).sum() >= 10
    told = first[first["text"].isin(wrong)]["why"]
    assert told.str.startswith("the other texts suggest ").sum() >= 10


def test_a_suggestion_of_the_labels_that_are_there_is_no_doubt():
    said = {"wish|calm": "I wish for a calm sea", "calm": "A calm lake", "wish": "We wish you luck"}
    rows = [(f"{text}, part {n}", label) for label, text in said.items() for n in range(12)]
    queue = review.queue(pd.DataFrame(rows, columns=["text", "label"]), several=True)
    assert set(queue["why"]) == {""}


def test_doubtful_keywords_are_those_that_do_not_stand_in_the_text():
    posts = pd.DataFrame({"text": ["Go is fast", "Rust too"], "keywords": ["Go", "Rust; Haskell"]})
    queue = review.queue(posts, keywords="keywords")
    assert queue["was"].tolist() == ["Rust, Haskell", "Go"]
    assert queue["why"].tolist() == ["not in the text: Haskell", ""]


def test_a_sample_is_drawn_at_random_and_every_text_once(titles):
    rows = pd.concat([titles, titles])
    queue = review.queue(rows, sample=50, seed=1)
    assert len(queue) == queue["text"].nunique() == 50
    assert set(queue["why"]) == {"drawn at random"}
    assert review.queue(rows, sample=50, seed=2)["text"].tolist() != queue["text"].tolist()


def test_of_unlabelled_texts_the_model_s_least_sure_come_first_and_unlike_ones(trained, titles):
    texts = titles["text"].tail(200).tolist()
    near = [f"Number {n} of the things that nobody can tell apart today" for n in range(30)]
    queue = review.queue(pd.DataFrame({"text": texts + near}), model=trained.folder)
    answers = inference.classify(texts + near, trained.folder).set_index("text")
    assert queue["was"].tolist() == answers.loc[queue["text"], "label"].tolist()
    least = answers["score"].sort_values().index[:46]
    assert set(queue["text"].head(46)) == set(least)
    assert queue["text"].head(12).isin(near).sum() <= 4
    assert queue["why"].str.fullmatch(r"the model is \d+% sure").all()


# --- What is kept


def test_decisions_are_tied_to_the_text_and_a_new_table_keeps_them(tmp_path):
    rows = pd.DataFrame({"text": ["A", "B", "C"], "label": ["x", "x", "y"]})
    path = tmp_path / "rows.review.csv"
    queue = pd.DataFrame({"text": ["A", "B", "C"], "was": ["x", "x", "y"], "why": ""})
    with review.open_review(queue, path, ["x", "y"], by="ann") as opened:
        opened.decide("accept")
        opened.decide("correct", "y")
        opened.undo()
        assert opened.current["text"] == "B"
        opened.decide("correct", "y")
        opened.decide("skip")
        assert opened.current is None
    anew = pd.DataFrame({"text": ["D", "b!", "C", "A"], "was": ["x"] * 4, "why": ""})
    with review.open_review(anew, path, ["x", "y"], by="ann") as opened:
        assert [opened.rows["text"][i] for i in opened.todo] == ["D", "C"]
        opened.decide("reject")
    made = review.apply(rows, path)
    assert made["label"].tolist() == ["x", "y", "y"]
    assert made["reviewed"].tolist() == ["accept", "correct", ""]
    with pytest.warns(UserWarning, match="1 rejected texts are left out"):
        assert "D" not in set(review.apply(pd.concat([rows, anew]), path)["text"])


def test_one_s_own_label_given_again_is_no_correction_and_an_unknown_one_is_refused(tmp_path):
    queue = pd.DataFrame({"text": ["A"], "was": ["x"], "why": [""]})
    with review.open_review(queue, tmp_path / "a.csv", ["x", "y"]) as opened:
        with pytest.raises(ValueError, match="no label 'z'; there are"):
            opened.decide("correct", "z")
        with pytest.raises(ValueError, match="the decision 'maybe'"):
            opened.decide("maybe")
        opened.decide("correct", "x")
    assert review.decisions(tmp_path / "a.csv")["decision"].tolist() == ["accept"]


def test_several_labels_and_keywords_are_kept_as_their_cells_are_written(tmp_path):
    queue = pd.DataFrame({"text": ["A"], "was": ["x|y"], "why": [""]})
    with review.open_review(queue, tmp_path / "a.csv", ["x", "y", "z"], several=True) as opened:
        opened.decide("correct", "z|x")
    assert review.decisions(tmp_path / "a.csv")["value"].tolist() == ["x|z"]
    queue = pd.DataFrame({"text": ["Go and Redis, Inc"], "was": ["Go"], "why": [""]})
    with review.open_review(queue, tmp_path / "k.csv") as opened:
        opened.decide("correct", 'Go, "Redis, Inc"')
    made = review.apply(
        pd.DataFrame({"text": ["Go and Redis, Inc"], "keywords": ["Go"]}),
        tmp_path / "k.csv",
        keywords="keywords",
    )
    assert made["keywords"].tolist() == ['Go, "Redis, Inc"']


def test_several_labels_in_another_order_are_no_correction(tmp_path):
    queue = pd.DataFrame({"text": ["A"], "was": ["y|x"], "why": [""]})
    with review.open_review(queue, tmp_path / "a.csv", ["x", "y"], several=True) as opened:
        opened.decide("correct", "x|y")
    assert review.decisions(tmp_path / "a.csv")["decision"].tolist() == ["accept"]


def test_a_model_s_label_that_was_accepted_takes_the_place_of_the_old_one(tmp_path):
    queue = pd.DataFrame({"text": ["A", "B"], "was": ["y", "x"], "why": ""})
    decide_all(queue, tmp_path / "a.csv", names=["x", "y"])
    rows = pd.DataFrame({"text": ["A", "B"], "label": ["x", "x"]})
    assert review.apply(rows, tmp_path / "a.csv")["label"].tolist() == ["y", "x"]
    posts = pd.DataFrame({"text": ["A"], "keywords": ["y"]})
    made = review.apply(posts, tmp_path / "a.csv", keywords="keywords")
    assert made["keywords"].tolist() == ["y"]


def test_two_at_once_are_refused_and_another_file_is_left_alone(tmp_path):
    queue = pd.DataFrame({"text": ["A"], "was": ["x"], "why": [""]})
    opened = review.open_review(queue, tmp_path / "a.csv", ["x"])
    again = review.open_review(queue, tmp_path / "a.csv", ["x"])
    with opened, pytest.raises(RuntimeError, match="Another run is writing"):
        again.__enter__()
    (tmp_path / "b.csv").write_text("text,label\nA,x\n")
    other = review.open_review(queue, tmp_path / "b.csv", ["x"])
    with pytest.raises(ValueError, match="left as it is"):
        other.__enter__()


KILLED = """
import os, signal, sys
import pandas as pd
from cookbook import review
queue = pd.DataFrame({"text": [f"Text {n}" for n in range(50)], "was": "x", "why": ""})
with review.open_review(queue, sys.argv[1], ["x", "y"], by="ann") as opened:
    for n in range(int(sys.argv[2])):
        opened.decide("correct", "y")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_no_decision(tmp_path):
    path = tmp_path / "a.csv"
    for count in (7, 5):
        command = [sys.executable, "-c", KILLED, str(path), str(count)]
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    found = review.decisions(path)
    assert found["text"].tolist() == [f"Text {n}" for n in range(12)]


# --- What it says


def test_the_report_says_which_label_became_which_and_how_often_they_were_right(flipped, tmp_path):
    rows, wrong = flipped

    def right(row):
        other = {"clickbait": "factual", "factual": "clickbait"}[row["was"]]
        return ("correct", other) if row["text"] in wrong else ("accept", None)

    queue = review.queue(rows, sample=200)
    decide_all(queue, tmp_path / "a.csv", right)
    told = review.report(tmp_path / "a.csv")
    share = 1 - queue["text"].isin(wrong).mean()
    assert told.right == pytest.approx(share)
    assert told.low < share < told.high < 1
    assert told.changes["texts"].sum() == queue["text"].isin(wrong).sum()
    assert "became" in str(told)
    assert f"right: {share:.1%} of a sample at random" in str(told)
    decide_all(review.queue(rows).head(10), tmp_path / "b.csv", right)
    assert "right:" not in str(review.report(tmp_path / "b.csv"))  # doubtful ones aren't a sample


def test_two_people_are_compared_and_merged(tmp_path):
    texts = [f"Text {n}" for n in range(10)]
    queue = pd.DataFrame({"text": texts, "was": ["x", "y"] * 5, "why": ""})
    decide_all(queue, tmp_path / "a.csv", names=["x", "y"])
    both = queue.iloc[2:]
    first = {"Text 2"}
    decide_all(
        pd.concat([both, queue.iloc[:0]]),
        tmp_path / "b.csv",
        lambda row: ("correct", "y") if row["text"] in first else ("accept", None),
        names=["x", "y"],
    )
    found = review.agreement(tmp_path / "a.csv", tmp_path / "b.csv")
    assert (found.texts, found.agreed) == (8, 7 / 8)
    assert found.kappa == pytest.approx(0.75)  # 4 and 4 of one, 3 and 5 of the other
    assert found.disagreements.to_numpy().tolist() == [["Text 2", "x", "y"]]
    assert set(found.merged["text"]) == set(texts) - first
    assert "kappa 0.75" in str(found)
    decide_all(queue.head(1), tmp_path / "c.csv", names=["x", "y"])
    with pytest.raises(ValueError, match="no text that stands decided in both"):
        review.agreement(tmp_path / "b.csv", tmp_path / "c.csv")


# --- The page


class Desk:
    """What a person does on the page."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get(url)
        self.until(lambda _: self.row())

    def until(self, condition):
        return browsing.until(self.browser, condition)

    def click(self, css, at=0):
        browsing.click(self.browser, By.CSS_SELECTOR, css, at)

    def row(self):
        return self.all("#row blockquote, #row h2")[0]

    def all(self, css):
        found = browsing.until(
            self.browser, lambda b: ([e.text for e in b.find_elements(By.CSS_SELECTOR, css)],)
        )
        return found[0]

    def press(self, key):
        before = self.until(lambda _: self.row())
        ActionChains(self.browser).send_keys(key).perform()
        return self.until(lambda _: self.row() != before and self.row())


@contextmanager
def on_the_page(queue, path, browser, names=("clickbait", "factual"), **options):
    with review.open_review(queue, path, names, by="ann", **options) as opened:
        page = review_page.build(opened)
        _, url, _ = page.launch(prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
        yield Desk(browser, url), opened
        page.close(verbose=False)


def test_a_person_decides_with_keys_and_every_decision_is_on_disk(titles, tmp_path, browser):
    path, queue = tmp_path / "a.csv", review.queue(titles, sample=10_000)
    more = pd.DataFrame({"text": [f"{n} more" for n in range(9000)], "was": "factual", "why": ""})
    queue = pd.concat([queue, more], ignore_index=True)
    with on_the_page(queue, path, browser) as (desk, opened):
        assert desk.row() == queue["text"][0]
        desk.press(Keys.ENTER)
        desk.press("2")
        desk.press("x")
        desk.press("s")
        assert desk.row() == queue["text"][4]
        desk.press("u")
        assert desk.row() == queue["text"][3]
        found = review.decisions(path)
        assert found["decision"].tolist()[0] == "accept"
        assert found["value"].tolist()[1] == "factual"
        assert found["decision"].tolist()[2:] == ["reject"]
        took = []
        for _ in range(20):
            start = time.monotonic()
            desk.press(Keys.ENTER)
            took.append(time.monotonic() - start)
        assert len(review.decisions(path)) == 23
        # It keeps up with a person: 20 titles a minute leave three seconds each.
        assert sorted(took)[10] < 3
        assert opened.pace > 20
        desk.until(lambda b: "a minute" in b.find_element(By.ID, "pace").text)


def test_a_person_takes_keywords_off_and_clicks_words_to_add_them(tmp_path, browser):
    text = "We moved from Heroku to the Raspberry Pi <b>5</b> last week"
    queue = pd.DataFrame({"text": [text, "Rust"], "was": ["Heroku, week", "Rust"], "why": ""})
    with on_the_page(queue, tmp_path / "k.csv", browser, names=()) as (desk, _):
        assert desk.row() == text

        def chips():
            return desk.all("#chips .token")

        desk.until(lambda _: chips() == ["Heroku", "week"])
        desk.click("#chips .token-remove", 1)
        desk.until(lambda _: chips() == ["Heroku"])
        for word in ("Raspberry", "Pi"):
            path = f"//*[@id='row']//*[normalize-space(text())='{word}']"
            browsing.click(browser, By.XPATH, path)
            desk.until(lambda _, word=word: any(word in chip for chip in chips()))

        desk.until(lambda _: chips() == ["Heroku", "Raspberry Pi"])
        desk.click("#key-Enter")
        desk.until(lambda _: desk.row() == "Rust")
        desk.click("#key-Enter")
        desk.until(lambda _: "Nothing is left" in desk.row())
    assert review.decisions(tmp_path / "k.csv")["value"].tolist() == [
        "Heroku, Raspberry Pi",
        "Rust",
    ]


def test_a_label_beyond_the_ninth_is_chosen_from_a_list(tmp_path, browser):
    names = [f"label {n}" for n in range(12)]
    queue = pd.DataFrame({"text": ["A", "B", "C"], "was": "label 0", "why": ""})
    with on_the_page(queue, tmp_path / "a.csv", browser, names=names) as (desk, _):
        for before, after in (("A", "B"), ("B", "C")):
            desk.until(lambda _, before=before: desk.row() == before)
            desk.click("input[aria-label='Another label']")
            ActionChains(browser).send_keys("label 11", Keys.ENTER).perform()
            desk.until(lambda _, after=after: desk.row() == after)
    assert review.decisions(tmp_path / "a.csv")["value"].tolist() == ["label 11"] * 2


# --- From the command line


def test_the_command_says_what_was_decided_and_writes_it(titles, tmp_path):
    rows = titles.head(40)[["text", "label"]]
    rows.to_csv(tmp_path / "titles.csv", index=False)
    queue = review.queue(tmp_path / "titles.csv", sample=20)
    decide_all(queue, tmp_path / "titles.review.csv", lambda row: ("correct", "factual"))
    typed = CliRunner().invoke
    told = typed(cli.app, ["review", str(tmp_path / "titles.csv"), "--report"])
    assert told.exit_code == 0, told.output
    assert "of a sample at random" in told.stdout
    target = tmp_path / "reviewed.csv"
    told = typed(cli.app, ["review", str(tmp_path / "titles.csv"), "--apply", str(target)])
    assert told.exit_code == 0, told.output
    made = tables.read(target)
    changed = made[made["text"].isin(set(queue["text"]))]
    assert set(changed["label"]) == {"factual"}
    again = [
        "review",
        str(tmp_path / "titles.csv"),
        "--beside",
        str(tmp_path / "titles.review.csv"),
    ]
    assert "20 texts that both decided on: the same 100.0%" in typed(cli.app, again).stdout


def test_the_command_serves_the_page_and_goes_on(titles, tmp_path, browser):
    titles.head(30)[["text", "label"]].to_csv(tmp_path / "titles.csv", index=False)
    command = [sys.executable, "-m", "cookbook.cli", "review", str(tmp_path / "titles.csv")]
    command += ["--by", "ann", "--port", "7911"]
    seen = []
    for decided in (0, 2):
        served = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"},
        )
        try:
            for _ in range(200):
                try:
                    desk = Desk(browser, "http://127.0.0.1:7911")
                    break
                except Exception:
                    assert served.poll() is None
            assert desk.row() not in seen
            for _ in range(2):
                seen.append(desk.row())
                desk.press(Keys.ENTER)
            assert len(review.decisions(tmp_path / "titles.review.csv")) == decided + 2
        finally:
            served.send_signal(signal.SIGKILL)
            served.wait()
