"""Students that learn from texts without labels."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import AutoConfig, AutoTokenizer

from cookbook import (
    baselines,
    features,
    inference,
    labels,
    losses,
    marks,
    tables,
    teach,
    training,
    words,
)
from tests import small

POSTS = ["We moved from MongoDB to PostgreSQL 16.", "Redis 7, faster than ever"]


@pytest.fixture(scope="module")
def splits(trained):
    return labels.encode_labels(trained.splits)


@pytest.fixture(scope="module")
def pool(titles, few_titles):
    """Titles that the model wasn't trained on, their labels unread."""
    return titles["text"].drop(titles.index[titles["text"].isin(few_titles["text"])]).tolist()


@pytest.fixture(scope="module")
def words_and_letters(splits, trained):
    """A teacher that errs elsewhere."""
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    names = [trained.names[i] for i in splits["train"]["label"]]
    return make_pipeline(vectors, LogisticRegression(C=10)).fit(splits["train"]["text"][:], names)


# --- What teachers think


def test_teachers_of_every_kind_are_averaged(trained, exported, words_and_letters, pool):
    texts = [*pool[:20], " "]
    votes = baselines.majority(["factual"])
    teachers = [trained.folder, exported.int8, inference.load(trained.folder), words_and_letters]
    found = teach.soft_labels([*teachers, votes], texts)
    each = [inference.classify(texts, one)[found.columns] for one in teachers[:3]]
    each.append(pd.DataFrame(words_and_letters.predict_proba(texts), columns=trained.names))
    each.append(pd.DataFrame({"clickbait": [0.0] * 21, "factual": 1.0}))
    expected = sum(one[trained.names] for one in each) / 5
    pd.testing.assert_frame_equal(found[trained.names].head(20), expected.head(20))
    assert found.loc[20].isna().all()  # a blank text has no answer


def test_a_vote_that_is_missing_counts_nothing(trained, pool):
    """An LLM that has no answer, or never gives a label, leaves the others theirs."""
    said = {pool[0]: "factual", pool[1]: ""}
    votes = baselines.Classifier("LLM", lambda texts: [said[text] for text in texts])
    found = teach.soft_labels([trained.folder, votes], pool[:2], trained.names)
    alone = teach.soft_labels([trained.folder], pool[:2], trained.names)
    expected = (alone.loc[0, "factual"] + 1) / 2
    assert found.loc[0].tolist() == pytest.approx([1 - expected, expected])
    assert found.loc[1].tolist() == pytest.approx(alone.loc[1].tolist())
    assert teach.soft_labels([votes], pool[1:2], trained.names).isna().all(axis=None)


def test_markers_are_averaged_piece_by_piece(marker, short_posts):
    texts = short_posts["text"].tolist()
    found = teach.soft_labels([marker, marker], texts)
    assert [each.shape for each in found] == [(len(words.places(text)), 2) for text in texts]
    threshold = inference.load(marker).config.get("keyword_threshold", 0.5)
    read = [marks.read_marks(*pair, threshold) for pair in zip(texts, found, strict=True)]
    expected = inference.extract_keywords(texts, marker, scores=True)
    assert [[name for name, _ in each] for each in read] == [[n for n, _ in e] for e in expected]


def test_teachers_who_don_t_go_together_are_refused(trained, marker, keyword_model):
    with pytest.raises(ValueError, match="writes"):
        teach.soft_labels([keyword_model], ["A"])
    with pytest.raises(ValueError, match="all of one kind"):
        teach.soft_labels([trained.folder, marker], ["A"])
    with pytest.raises(ValueError, match="all of one kind"):
        teach.soft_labels([], ["A"])
    other = baselines.Classifier("other", lambda texts: ["sport"] * len(texts))
    with pytest.raises(ValueError, match=r"gives labels \['sport'\]"):
        teach.soft_labels([trained.folder, other], ["A"], trained.names)
    with pytest.raises(ValueError, match=r"labels are \['clickbait', 'factual'\]; wanted"):
        teach.soft_labels([trained.folder], ["A"], ["sport", "factual"])
    with pytest.raises(ValueError, match="one string"):
        teach.soft_labels([trained.folder], "A title")


# --- What is taught


def test_what_is_measured_stays_unseen(splits, trained, pool):
    held = "Seven things that only a beekeeper knows"
    test = splits["test"]["text"][0]
    texts = [*pool[:5], pool[0] + "!", test.upper(), f"{held}...", "", "A new title"]
    lesson = teach.teach(splits, texts, [trained.folder], held_out=[held])
    reasons = lesson.pool["left_out"].tolist()
    assert reasons[5:9] == ["copy of another", *["copy of a held-out text"] * 2, "blank"]
    assert set(reasons[:5]) | set(reasons[9:]) == {""}
    assert "6 of 10 texts teach" in str(lesson)
    taught = lesson.splits["train"]["text"][:]
    assert taught == [*splits["train"]["text"], *pool[:5], "A new title"]
    assert lesson.splits["test"]["text"][:] == splits["test"]["text"][:]
    with pytest.raises(ValueError, match=r"1 texts of train are measured on as well"):
        teach.teach(splits, pool[:5], [trained.folder], held_out=[splits["train"]["text"][3]])
    with pytest.raises(ValueError, match="No text is left"):
        teach.teach(splits, splits["test"]["text"][:], [trained.folder])


def test_labels_are_soft_or_hard_and_sure(splits, trained, pool):
    soft = teach.teach(splits, pool[:50], [trained.folder])
    answers = inference.classify(soft.splits["train"]["text"][:], trained.folder)
    expected, n = answers[trained.names].to_numpy(), len(splits["train"])
    found = np.array(soft.splits["train"]["label"][:])
    assert found[n:] == pytest.approx(expected[n:], abs=1e-5)
    # Half of what a labelled text teaches is its own label.
    own = np.eye(2)[splits["train"]["label"][:]]
    assert found[:n] == pytest.approx((expected[:n] + own) / 2, abs=1e-5)
    hard = teach.teach(splits, pool[:50], [trained.folder], soft=False, sure=0.9)
    train, pooled = hard.splits["train"], hard.pool
    assert train.features["label"] == splits["train"].features["label"]
    assert train["label"][: len(splits["train"])] == splits["train"]["label"][:]
    used = pooled["left_out"] == ""
    assert 0 < used.sum() < 50
    assert (pooled.loc[~used, "left_out"] == "unsure").all()
    assert (pooled["sure"] >= 0.9).equals(used)
    names = labels.names_of(train["label"][len(splits["train"]) :], train.features["label"])
    assert names == pooled.loc[used, "label"].tolist()


def test_a_pool_that_may_do_harm_is_told_with_its_figure(splits, trained, pool, short_posts):
    fine = teach.teach(splits, pool[:200], [trained.folder])
    assert not fine.told
    # The model knows titles; of posts on technology it is less sure.
    rows = tables.read(small.SHIPPED / "tech_keywords.csv")["text"].head(150)
    told = teach.teach(splits, rows, [trained.folder]).told
    assert "less sure of these texts" in told[0]
    answers = inference.classify(pool[:300], trained.folder)
    factual = answers.loc[answers["label"] == "factual", "text"]
    told = teach.teach(splits, factual, [trained.folder], sure=0.6).told
    assert any("0.0% of them are 'clickbait', 50" in problem for problem in told)
    bar = fine.pool["sure"].quantile(0.7)
    few = teach.teach(splits, pool[:200], [trained.folder], sure=bar)
    assert any("Only 3" in problem for problem in few.told)


# --- Soft targets in the plain Trainer


def test_soft_loss_is_the_model_s_own_where_labels_are_certain(splits, tmp_path):
    rows = DatasetDict({name: splits[name].select(range(8)) for name in splits})
    hard = np.eye(2, dtype=np.float32)[rows["train"]["label"]]
    soft = rows["train"].remove_columns("label").add_column("label", hard.tolist())
    norms = []
    for train, loss, at_once in [
        (rows["train"], None, 8),
        (rows["train"], losses.soft_loss, 8),
        (soft, losses.soft_loss, 8),
        (soft, losses.soft_loss, 2),  # accumulated
    ]:
        trainer = small.classifier(
            rows,
            tmp_path,
            batch_size=8,
            per_device_batch_size=at_once,
            max_steps=1,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            **small.UNSCORED,
        )
        trainer.train_dataset = features.tokenize(
            DatasetDict(train=train), trainer.processing_class
        )["train"]
        trainer.compute_loss_func = loss
        trainer.model.config.hidden_dropout_prob = 0
        for part in trainer.model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        trainer.train()
        norms.append([trainer.state.log_history[0][n] for n in ("loss", "grad_norm")])
    for other in norms[1:]:
        assert other == pytest.approx(norms[0], rel=1e-3)


def test_marks_of_another_model_become_a_marker_s_labels(marker, short_posts):
    splits = DatasetDict(train=Dataset.from_pandas(short_posts[["text", "keywords"]]))
    tokenizer = AutoTokenizer.from_pretrained(marker)
    hard = features.tokenize_marker(splits, tokenizer)["train"]
    certain = [
        marks.of_keywords(text, words.split_keywords(cell))
        for text, cell in zip(short_posts["text"], short_posts["keywords"], strict=True)
    ]
    splits["train"] = splits["train"].add_column("marks", [each.tolist() for each in certain])
    soft = features.tokenize_marker(splits, tokenizer)["train"]
    for one, other in zip(hard["labels"], soft["labels"], strict=True):
        special = np.array(one) == -100
        assert (np.array(other)[special] == -100).all()
        assert np.array(other)[~special].argmax(axis=1).tolist() == np.array(one)[~special].tolist()
    batch = losses.soft_collator(tokenizer)(
        [
            {name: row[name] for name in ("input_ids", "attention_mask", "labels")}
            for row in soft.select(range(3))
        ]
    )
    assert batch["labels"].shape == (*batch["input_ids"].shape, 3)
    assert ((batch["labels"][..., 0] == -100) | (batch["attention_mask"] == 1)).all()
    logits = torch.log(batch["labels"].clamp(min=1e-6)).requires_grad_()
    assert losses.soft_loss({"logits": logits}, batch["labels"]).item() < 1e-4


@pytest.mark.slow
def test_a_student_marks_what_its_teacher_marks(marker, short_posts, tmp_path):
    splits = DatasetDict(
        train=Dataset.from_pandas(short_posts[["text", "keywords"]].head(6)),
        validation=Dataset.from_pandas(short_posts[["text", "keywords"]].tail(6)),
    )
    unlabelled = short_posts["text"][6:18].tolist()
    config = AutoConfig.from_pretrained(marker)
    config.keyword_threshold = 0.4
    teacher = shutil.copytree(marker, tmp_path / "teacher")
    config.save_pretrained(teacher)
    lesson = teach.teach(splits, unlabelled, [teacher])
    assert lesson.pool["keywords"].map(bool).all()
    build = teach.student(
        small.offline.minilm(), teacher, num_train_epochs=25, learning_rate=5e-4, batch_size=8
    )
    trainer = build(lesson.splits, 0, tmp_path / "run")
    trainer.train()
    assert trainer.model.config.keyword_threshold == 0.4
    student = inference.load(trainer.model, trainer.processing_class)
    found = inference.extract_keywords(unlabelled, student)
    taught = inference.extract_keywords(unlabelled, teacher)
    assert sum(a == b for a, b in zip(found, taught, strict=True)) >= 9


def test_texts_may_have_several_labels(tokenizer, tmp_path):
    small.tiny_several(tmp_path / "model", tokenizer, ["bug", "urgent", "billing"])
    rows = {"text": ["App crashes", "Refund now"], "label": [[1, 1, 0], [0, 1, 1]]}
    part = Dataset.from_dict(rows)
    splits = DatasetDict(train=part, validation=part.select([0]).map(lambda _: {"text": "Crash"}))
    lesson = teach.teach(splits, ["It broke", "Pay me"], [tmp_path / "model"])
    found = teach.soft_labels([tmp_path / "model"], lesson.splits["train"]["text"][:])
    taught = np.array(lesson.splits["train"]["label"])
    assert taught[2:] == pytest.approx(found.to_numpy()[2:], abs=1e-5)
    assert taught[:2] == pytest.approx((found.to_numpy()[:2] + rows["label"]) / 2, abs=1e-5)
    hard = teach.teach(splits, ["It broke", "Pay me"], [tmp_path / "model"], soft=False)
    assert hard.splits["train"]["label"][:2] == rows["label"]
    assert set(np.ravel(hard.splits["train"]["label"][:])) <= {0.0, 1.0}
    trainer = teach.student(tmp_path / "model", max_steps=1)(lesson.splits, 0, tmp_path / "run")
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    assert trainer.state.global_step == 1


def test_a_text_that_teachers_don_t_know_keeps_its_own_label(splits, trained, pool):
    silent = baselines.Classifier(
        "LLM", lambda texts: ["" if text in asked else "factual" for text in texts]
    )
    asked = {splits["train"]["text"][0], pool[0]}
    lesson = teach.teach(splits, pool[:3], [silent])
    assert lesson.pool["left_out"].tolist() == ["no answer", "", ""]
    first = splits["train"]["label"][0]
    assert lesson.splits["train"]["label"][0] == np.eye(2)[first].tolist()
    assert not np.isnan(np.array(lesson.splits["train"]["label"][:])).any()


def test_labels_in_another_order_are_seen(trained, splits, pool, tmp_path):
    names = list(reversed(trained.names))
    other = labels.encode_labels(trained.splits, names=names)
    lesson = teach.teach(other, pool[:20], [trained.folder], soft=False)
    answers = inference.classify(pool[:20], trained.folder)["label"].tolist()
    train = lesson.splits["train"]
    assert labels.names_of(train["label"][-20:], train.features["label"]) == answers
    with pytest.raises(ValueError, match="in the model's order"):
        teach.student(trained.folder)(lesson.splits, 0, tmp_path)


def test_what_can_t_be_taught_is_refused(splits, trained, keyword_model, exported, pool):
    with pytest.raises(ValueError, match="There is no split 'validation'"):
        teach.teach(DatasetDict(train=splits["train"]), pool[:5], [trained.folder])
    with pytest.raises(ValueError, match="encode_labels makes class ids"):
        teach.teach(trained.splits, pool[:5], [trained.folder])
    with pytest.raises(ValueError, match="writes: only models"):
        teach.student(keyword_model)
    with pytest.raises(ValueError, match="is an export"):
        teach.student(exported.int8)


# --- Rounds


def build_from(trained, built=None, **settings):
    make = teach.student(trained.folder, **{"learning_rate": 5e-5, "max_steps": 4, **settings})

    def build(splits, seed, folder):
        if built is not None:
            built.append(folder)
        return make(splits, seed, folder)

    return build


@pytest.mark.slow
def test_rounds_are_kept_and_found_again(trained, splits, pool, tmp_path, monkeypatch):
    ran = []
    train = training.Trainer.train
    monkeypatch.setattr(training.Trainer, "train", lambda *a, **k: (ran.append(1), train(*a, **k)))
    arguments = (splits, pool[:60], [trained.folder], build_from(trained), tmp_path)
    first = teach.teach_rounds(*arguments, enough=0)
    assert len(ran) == 2
    assert not first.told
    assert list(first.table.index) == [0, 1, 2]
    # In the last round all texts teach, whatever their teachers think of them.
    assert first.table["texts"][1] < first.table["texts"][2] == 60
    shares = first.table[trained.names].sum(axis=1)
    assert shares.tolist() == pytest.approx([1, 1, 1])
    assert first.table["changed"][1] == (first.pool["round 1"] != first.pool["round 0"]).mean()
    again = teach.teach_rounds(*arguments, enough=0)
    assert len(ran) == 2
    pd.testing.assert_frame_equal(again.table, first.table)
    assert len(inference.classify(pool[:2], again.models[2][0])) == 2
    assert not list(tmp_path.glob("**/checkpoint*"))
    kept = tables.read(tmp_path / "round-1" / "pool.parquet")
    assert kept["text"].tolist() == pool[:60]
    # Other settings are another run: its models are trained, the former ones kept.
    other = build_from(trained, learning_rate=1e-4)
    teach.teach_rounds(*arguments[:3], other, tmp_path, rounds=1)
    assert len(ran) == 3
    assert (tmp_path / "round-1" / "seed-0.other-run-1" / "config.json").is_file()


def test_another_view_has_a_say(trained, splits, pool, tmp_path):
    """It learns what the teachers are sure of, and is asked about all."""

    class View:
        def fit(self, texts, names):
            self.learnt, self.classes_ = (
                dict(zip(texts, names, strict=True)),
                ["factual", "clickbait"],
            )

        def predict_proba(self, texts):
            return np.tile([1.0, 0.0], (len(texts), 1))

    view, build = View(), build_from(trained, max_steps=1)
    teach.teach_rounds(splits, pool[:40], [trained.folder], build, tmp_path, rounds=1, view=view)
    kept = tables.read(tmp_path / "round-1" / "pool.parquet").set_index("text")
    answers = inference.classify(pool[:40], trained.folder).set_index("text")
    factual = (answers["factual"] + 1) / 2
    assert kept["sure"].to_numpy() == pytest.approx(np.maximum(factual, 1 - factual), abs=1e-5)
    sure = answers["score"] >= 0.9
    assert {text: view.learnt.get(text) for text in answers.index} == {
        text: label if is_sure else None
        for text, label, is_sure in zip(answers.index, answers["label"], sure, strict=True)
    }


@pytest.mark.slow
def test_rounds_end_where_another_brings_nothing(trained, splits, pool, tmp_path):
    still = build_from(trained, learning_rate=1e-9)
    found = teach.teach_rounds(splits, pool[:60], [trained.folder], still, tmp_path, rounds=5)
    assert found.table["changed"].tolist()[1:] == [0, 0]
    assert found.best == 2


@pytest.mark.slow
def test_a_student_that_is_worse_than_its_teacher_isn_t_kept(trained, splits, pool, tmp_path):
    wild = build_from(trained, learning_rate=0.1)
    found = teach.teach_rounds(splits, pool[:60], [trained.folder], wild, tmp_path, rounds=3)
    assert found.best == 0
    assert list(found.table.index) == [0, 1]
    assert "did worse on the validation split" in str(found)


@pytest.mark.slow
def test_a_killed_round_goes_on(trained, splits, pool, tmp_path):
    """Killed after its first epoch; then it goes on from there."""
    code = (
        "import sys, os, signal;from tests import test_teach, small;"
        "test_teach.run_rounds(sys.argv[1], sys.argv[2], int(sys.argv[3]))"
    )
    (tmp_path / "pool.json").write_text(json.dumps(pool[:40]))
    splits.save_to_disk(str(tmp_path / "splits"))
    killed = [sys.executable, "-c", code, str(tmp_path), str(trained.folder)]
    assert subprocess.run([*killed, "30"], check=False, capture_output=True).returncode < 0
    assert list(tmp_path.glob("out/round-1/checkpoints-0/checkpoint-*"))
    assert not (tmp_path / "out" / "round-1" / "seed-0").exists()
    done = subprocess.run([*killed, "0"], check=False, capture_output=True, text=True)
    assert "Going on from" in done.stdout, done.stderr
    assert (tmp_path / "out" / "round-1" / "seed-0" / "config.json").is_file()


def run_rounds(folder, teacher, kill_at):
    folder = Path(folder)
    splits = DatasetDict.load_from_disk(str(folder / "splits"))
    make = teach.student(teacher, num_train_epochs=3, learning_rate=5e-5)

    def build(*given):
        trainer = make(*given)
        trainer.add_callback(small.Kill(kill_at))
        return trainer

    pool = json.loads((folder / "pool.json").read_text())
    teach.teach_rounds(splits, pool, [teacher], build, folder / "out", rounds=1)
