"""A blind judge: what it finds beside the other texts' opinion, and how far it can be trusted."""

import numpy as np
import pytest

from cookbook import judging
from cookbook.baselines import Classifier

OTHER = {"clickbait": "factual", "factual": "clickbait"}


def scripted(truth, wrong, seed=0):
    """A judge of known accuracy, which never sees a label."""
    rng = np.random.default_rng(seed)
    said = {text: OTHER[name] if rng.random() < wrong else name for text, name in truth.items()}
    return Classifier("scripted", lambda texts: [said[text] for text in texts])


@pytest.fixture(scope="module")
def flipped(titles):
    rows = titles[["text", "label"]].drop_duplicates("text").reset_index(drop=True)
    truth = dict(zip(rows["text"], rows["label"], strict=True))
    wrong = rows.sample(frac=0.05, random_state=1).index
    rows.loc[wrong, "label"] = rows.loc[wrong, "label"].map(OTHER)
    return rows, truth, set(rows.loc[wrong, "text"])


def test_judge_and_doubt_together_find_the_flips_that_were_planted(flipped):
    rows, truth, wrong = flipped
    known = rows[~rows["text"].isin(wrong)].sample(50, random_state=0)
    judged = judging.judge(rows, scripted(truth, 0.1), known=known)
    tenth = judged.rows.head(len(rows) // 10)
    assert tenth["text"].isin(wrong).sum() >= 0.95 * len(wrong)
    # Each alone finds fewer: the judge's own mistakes crowd the tenth.
    by_judge = judged.set_aside["text"].isin(wrong)
    assert by_judge.mean() < 0.5
    assert judged.accuracy == pytest.approx(0.9, abs=0.12)
    assert judged.low < 0.9 < judged.high
    assert "labels by a person right" in str(judged)


def test_what_differs_is_set_aside_with_both_opinions(flipped):
    rows, truth, _ = flipped
    aside = judging.judge(rows.head(200), scripted(truth, 0.1)).set_aside
    assert (aside["judged"] != aside["label"]).all()
    assert (aside["judged"] != "").all()
    assert set(aside) >= {"text", "label", "judged", "suggested"}


def test_without_rows_by_a_person_nobody_knows_the_judge(flipped):
    rows, truth, _ = flipped
    judged = judging.judge(rows.head(100), scripted(truth, 0.0))
    assert "nobody knows" in str(judged)
    assert np.isnan(judged.accuracy)


def test_a_judge_who_leaves_texts_out_is_refused(flipped):
    rows, _, _ = flipped
    with pytest.raises(ValueError, match="lazy gave 1 labels to 100 texts"):
        judging.judge(rows.head(100), Classifier("lazy", lambda texts: ["factual"]))
