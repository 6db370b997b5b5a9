import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
    set_seed,
)

from cookbook import data, inference, metrics, offline


def test_the_answers_are_those_of_the_plain_pipeline(trained):
    texts = trained.test["text"].tolist()
    found = inference.classify(texts, trained.folder)
    plain = pipeline("text-classification", model=str(trained.folder), top_k=None)(texts)
    assert found["text"].tolist() == texts
    for row, answer in zip(found.itertuples(), plain, strict=True):
        assert row.label == answer[0]["label"]
        assert row.score == pytest.approx(answer[0]["score"], abs=1e-4)
    assert np.allclose(found[trained.names].sum(axis=1), 1)


def test_the_fine_tuned_model_is_right_most_of_the_time(trained):
    found = inference.classify(trained.test["text"], trained.folder)
    assert (found["label"].to_numpy() == trained.test["label"].to_numpy()).mean() > 0.8


def test_odd_texts_get_an_answer(trained):
    texts = ["", " ", "🤯" * 50, "日本語の見出し", "عنوان الخبر", "x" * 10_000, "word " * 2_000]
    found = inference.classify(texts, trained.folder)
    assert len(found) == len(texts)
    assert found["score"].between(0.5, 1).all()


def test_no_texts_no_answers(trained):
    assert inference.classify([], trained.folder).empty


def test_what_is_no_text_is_named(trained):
    with pytest.raises(ValueError, match="Text 1 is None"):
        inference.classify(["a", None], trained.folder)


def test_a_model_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(OSError, match="no-such-model"):
        inference.classify(["a"], tmp_path / "no-such-model")


def test_a_model_in_memory_needs_its_tokenizer_and_keeps_its_mode(trained):
    model = AutoModelForSequenceClassification.from_pretrained(trained.folder).train()
    with pytest.raises(ValueError, match="Pass the tokenizer"):
        inference.classify(["a"], model)
    inference.classify(["a"], model, AutoTokenizer.from_pretrained(trained.folder))
    assert model.training


def test_the_surest_mistakes_come_first():
    answers = pd.DataFrame(
        {"text": list("abc"), "label": ["x", "x", "x"], "score": [0.7, 0.9, 0.99]}
    )
    table = inference.worst_mistakes(answers, ["y", "y", "x"])
    assert table["text"].tolist() == ["b", "a"]
    assert table.iloc[0].to_dict() == {"text": "b", "label": "y", "predicted": "x", "score": 0.9}


def test_whatever_is_written_only_what_stands_in_the_text_stays(tokenizer):
    texts = [
        "",
        "   ",
        "We moved from Redis to PostgreSQL",
        "🤯" * 50,
        "日本語の見出し",
        "عنوان الخبر",
        "word " * 2_000,
        "x" * 10_000,
    ]
    set_seed(0)
    untrained = offline.warm_start_bart()  # what it writes is nonsense, which is the hard case
    for present_only in (True, False):
        found = inference.extract_keywords(
            texts, untrained, tokenizer, present_only=present_only, max_new_tokens=40
        )
        assert len(found) == len(texts)
        assert found[0] == found[1] == []
        for keywords, text in zip(found, texts, strict=True):
            assert len({keyword.casefold() for keyword in keywords}) == len(keywords) <= 40
            assert not present_only or all(keyword in text for keyword in keywords)


def test_a_fine_tuned_model_writes_the_keywords_that_it_learnt(keyword_model, short_posts):
    found = inference.extract_keywords(short_posts["text"], keyword_model)
    gold = [data.split_keywords(cell) for cell in short_posts["keywords"]]
    assert metrics.keyphrase_metrics(short_posts["text"], found, gold)["f1@M"] > 0.6
    for keywords, text in zip(found, short_posts["text"], strict=True):
        assert all(keyword in text for keyword in keywords)  # in the text's own spelling


def test_batches_give_the_answers_of_one_text_at_a_time(keyword_model, short_posts):
    texts = short_posts["text"][:20]
    options = {"present_only": False}
    together = inference.extract_keywords(texts, keyword_model, batch_size=8, **options)
    alone = [inference.extract_keywords([t], keyword_model, **options)[0] for t in texts]
    assert together == alone
    assert sum(map(bool, together)) > 10
    assert inference.extract_keywords([], keyword_model) == []


def test_plain_generate_of_the_saved_model_stops(keyword_model, tokenizer):
    model = AutoModelForSeq2SeqLM.from_pretrained(keyword_model)
    batch = tokenizer("word " * 200, return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**batch).shape[1] <= 40


def test_keywords_of_what_is_no_text_are_an_error(keyword_model):
    with pytest.raises(ValueError, match="Text 1 is nan"):
        inference.extract_keywords(["a", float("nan")], keyword_model)


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("next. js", "Is Next.js 14 out?", "Next.js"),
        ("c + +", "C, C++ and C#", "C++"),
        (". net 8", "on .NET 8!", ".NET 8"),
        ("ci / cd", "our CI/CD", "CI/CD"),
        ("postgresql 16", "PostgreSQL  16", "PostgreSQL 16"),
        ("go", "Google and going", None),
        ("", "text", None),
        ("medellin", "From Medellín with love", "Medellín"),
        ("sao paulo", "São Paulo's metro", "São Paulo"),
        ("c", "C++ or C#, never C", "C"),
        ("go", "C++ or C#, never Golang", None),
        ("Go", "I go home and write Go", "Go"),
        (". net", "ASP.NET", None),
        ("straße", "Die STRASSE", None),
        ("서울", "사이 좋은 서울", "서울"),
        ("부산", "반성", None),
    ],
)
def test_a_keyword_gets_the_spelling_of_its_text(keyword, text, found):
    assert inference.restore_case(keyword, text) == found


def test_spellings_and_versions_of_one_thing_are_counted_together():
    table = inference.top_keywords(
        [["Next.js", "C", "LLM"], ["nextjs 14", "C++", "LLMs"], ["Next.js", "next.js", "C#"], []]
    ).set_index("keyword")
    assert table.loc["Next.js", "texts"] == 3
    assert table.loc["Next.js", "share"] == 0.75
    assert table.loc["Next.js", "spellings"] == ["Next.js", "nextjs"]
    assert table.loc["LLM", "texts"] == 2
    assert {"C", "C++", "C#"} <= set(table.index)
    assert len(inference.top_keywords([["C# 13"], ["C#"]])) == 1
    apart = inference.top_keywords([["Vue 2"], ["Vue 3"]], versions=True)
    assert apart["keyword"].tolist() == ["Vue 2", "Vue 3"]
    with pytest.raises(ValueError, match="one string, not a list"):
        inference.top_keywords(["Go, Redis"])


def test_a_stutter_is_mended_to_what_stands_in_the_text():
    text = "Ubiquiti, Zigbee2MQTT and Home Assistant: my smart home on a Raspberry Pi 5"
    written = ["ubiquititi", "zigbee2mqqtt", "home assistants", "raspberry pi5", "openhab", "kafka"]
    mended = ["Ubiquiti", "Zigbee2MQTT", "Home Assistant", "Raspberry Pi 5"]
    assert inference._spelt(written, text, present_only=True) == mended
    assert inference._spelt(["ubiquititi", "go"], text, present_only=False) == ["ubiquititi", "go"]
    assert inference._spelt(["kafka"], "", present_only=True) == []


def test_an_exported_classifier_answers_as_the_model_it_was(trained, exported):
    texts = ["", *trained.test["text"], "日本語の見出し", "word " * 2_000]
    plain = inference.classify(texts, trained.folder)
    found = inference.classify(texts, exported.exact)
    assert found["label"].tolist() == plain["label"].tolist()
    assert np.allclose(found[trained.names], plain[trained.names], atol=1e-4)


def test_eight_bits_cost_next_to_no_accuracy_and_a_quarter_of_the_size(trained, exported, titles):
    rows = titles.groupby("label").tail(400)
    right = {}
    for name, folder in {"fp32": exported.exact, "int8": exported.int8}.items():
        answers = inference.classify(rows["text"], folder)
        right[name] = (answers["label"].to_numpy() == rows["label"].to_numpy()).mean()
    assert right["fp32"] > 0.85
    assert right["int8"] > right["fp32"] - 0.005
    size = {f: (f / "model.onnx").stat().st_size for f in (exported.exact, exported.int8)}
    assert size[exported.int8] < 0.3 * size[exported.exact]


@pytest.mark.parametrize("kind", ["Albert", "DistilBert", "Roberta"])
def test_other_encoders_can_be_exported_too(kind, tokenizer, tmp_path):
    small = {"vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 2, "id2label": {}}
    small |= {"num_attention_heads": 2, "intermediate_size": 64, "embedding_size": 16, "dim": 32}
    small |= {"n_heads": 2, "n_layers": 2, "hidden_dim": 64, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(**{**small, "id2label": {0: "a", 1: "b"}})
    set_seed(0)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    texts = ["One", "Two of them, or three", "word " * 100]
    plain = inference.classify(texts, model, tokenizer)
    folder = inference.export_onnx(model, tmp_path / "exported", tokenizer, int8=False)
    assert np.allclose(inference.classify(texts, folder)["a"], plain["a"], atol=1e-4)


def without_torch(code, *arguments):
    """Run code where neither torch nor transformers can be imported; return what it prints."""
    block = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; "
    run = subprocess.run(
        [sys.executable, "-c", block + code, *map(str, arguments)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_an_exported_classifier_needs_no_torch(exported, trained):
    texts = trained.test["text"].tolist()[:5]
    code = (
        "from cookbook import inference; import json;"
        "print(json.dumps(inference.classify(sys.argv[2:], sys.argv[1])['label'].tolist()))"
    )
    answers = json.loads(without_torch(code, exported.int8, *texts))
    assert answers == inference.classify(texts, exported.int8)["label"].tolist()


def test_exported_keywords_are_those_of_the_model_and_need_no_torch(
    exported, keyword_model, short_posts
):
    texts = short_posts["text"].tolist()
    gold = [data.split_keywords(cell) for cell in short_posts["keywords"]]
    code = (
        "from cookbook import inference; import json;"
        "print(json.dumps(inference.extract_keywords(sys.argv[2:], sys.argv[1])))"
    )
    found = json.loads(without_torch(code, exported.keywords, *texts))
    plain = inference.extract_keywords(texts, keyword_model)
    f1 = [metrics.keyphrase_metrics(texts, kept, gold)["f1@M"] for kept in (found, plain)]
    assert f1[0] > f1[1] - 0.03
    assert (
        inference.extract_keywords(["", "x" * 10_000, "word " * 2000], exported.keywords)[0] == []
    )


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_is_answered_row_by_row_whatever_else_it_holds(ending, exported, trained, tmp_path):
    rows = trained.test[["text", "label"]].assign(id=[f"{i:03}" for i in range(len(trained.test))])
    rows.loc[3, "text"] = 'two\nlines, "quotes" and commas'
    source = tmp_path / f"titles.{ending}"
    getattr(rows, f"to_{ending}")(source, index=False)
    for target in (tmp_path / "answers.csv", tmp_path / "answers.parquet"):
        inference.answer_file(source, target, exported.exact, chunk_rows=7)
        read = pd.read_csv if target.suffix == ".csv" else pd.read_parquet
        options = {"dtype": {"id": str}} if target.suffix == ".csv" else {}
        answers = read(target, **options)
        assert answers[["text", "label", "id"]].equals(rows)
        alone = inference.classify(rows["text"], exported.exact)
        assert answers["label_predicted"].tolist() == alone["label"].tolist()
        assert np.allclose(answers["score"], alone["score"], atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [source.name, "answers.csv", "answers.parquet"]
    )


def test_keywords_of_a_file_are_joined(exported, short_posts, tmp_path):
    source = tmp_path / "posts.csv"
    short_posts[["text"]].rename(columns={"text": "post"}).to_csv(source, index=False)
    target = inference.answer_file(source, tmp_path / "out.csv", exported.keywords, text="post")
    answers = pd.read_csv(target, keep_default_na=False)
    alone = inference.extract_keywords(short_posts["text"], exported.keywords)
    assert answers["keywords"].tolist() == ["; ".join(keywords) for keywords in alone]


def test_a_file_goes_on_where_it_was_killed(exported, trained, tmp_path, monkeypatch):
    source, target = tmp_path / "titles.csv", tmp_path / "answers.csv"
    trained.test[["text"]].to_csv(source, index=False)
    asked = []
    classified = inference._classified

    def dying(texts, *rest):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(texts)
        return classified(texts, *rest)

    monkeypatch.setattr(inference, "_classified", dying)
    with pytest.raises(KeyboardInterrupt):
        inference.answer_file(source, target, exported.int8, chunk_rows=10)
    assert not target.exists()
    with pytest.raises(ValueError, match=r"another run .*chunk_rows 10"):
        inference.answer_file(source, target, exported.int8, chunk_rows=20)
    asked.clear()
    monkeypatch.setattr(
        inference, "_classified", lambda t, *r: asked.append(t) or classified(t, *r)
    )
    inference.answer_file(source, target, exported.int8, chunk_rows=10)
    texts = trained.test["text"].tolist()
    assert [text for chunk in asked for text in chunk] == texts[30:]
    assert pd.read_csv(target)["text"].tolist() == texts


def test_a_stream_is_read_no_further_than_it_is_asked_for(exported):
    drawn = []

    def chunks():
        for number in range(1000):
            drawn.append(number)
            yield pd.DataFrame({"text": [f"Title {number}", None]})

    stream = inference.answer_chunks(chunks(), exported.int8)
    answers = [next(stream), next(stream)]
    assert drawn == [0, 1]
    assert [len(answer) for answer in answers] == [2, 2]
    assert answers[1]["text"][0] == "Title 1"


def test_a_file_without_the_column_or_of_another_kind_is_named(exported, tmp_path):
    source = tmp_path / "titles.csv"
    pd.DataFrame({"headline": ["A"]}).to_csv(source, index=False)
    with pytest.raises(ValueError, match="no column 'text'; there are: 'headline'"):
        inference.answer_file(source, tmp_path / "out.csv", exported.int8)
    with pytest.raises(ValueError, match=r"neither in \.csv nor in \.parquet"):
        inference.answer_file(source, tmp_path / "out.xlsx", exported.int8)
    # The mistake put right, the same target will do.
    assert inference.answer_file(source, tmp_path / "out.csv", exported.int8, text="headline")
    (tmp_path / "out.csv").unlink()
    for content, message in {
        "": "is empty",
        "text,id\n": "has no rows",
        "text,id\nHello, world,1\n": "more cells than its header, the first of them 'Hello'",
        "text\ncaf\xe9\n": "isn't UTF-8",
    }.items():
        source.write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=message):
            inference.answer_file(source, tmp_path / "out.csv", exported.int8)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_odd_cells_come_out_as_they_went_in(ending, exported, tmp_path):
    rows = pd.DataFrame(
        {
            "text": pd.Series(["A carriage\rreturn", pd.NA, "Third"], dtype="string"),
            "id": pd.Series([9007199254740993, pd.NA, 3], dtype="Int64"),
            "label": ["x", "y", "z"],
            "label_predicted": ["u", "v", "w"],
        }
    ).set_index(pd.Index([5, 9, 7], name="row"))
    rows.to_parquet(tmp_path / "source.parquet")
    source, target = tmp_path / "source.parquet", tmp_path / f"answers.{ending}"
    inference.answer_file(source, target, exported.int8, chunk_rows=2)
    if ending == "csv":
        answers = pd.read_csv(target, dtype=str, keep_default_na=False)
        assert answers["id"].tolist() == ["9007199254740993", "", "3"]
        assert answers["row"].tolist() == ["5", "9", "7"]
        assert answers["text"].tolist() == ["A carriage\rreturn", "", "Third"]
    else:
        answers = pd.read_parquet(target)
        assert answers["id"].dropna().tolist() == [9007199254740993, 3]
    assert answers["label"].tolist() == ["x", "y", "z"]
    assert set(answers["label_predicted_predicted"]) <= {"clickbait", "factual"}


def test_a_blank_line_is_a_row(exported, tmp_path):
    source = tmp_path / "titles.csv"
    source.write_text("\ufefftext\nFirst\n\nThird\n", "utf-8")
    target = inference.answer_file(source, tmp_path / "out.csv", exported.int8)
    assert pd.read_csv(target, keep_default_na=False)["text"].tolist() == ["First", "", "Third"]


def test_answers_of_two_runs_are_never_mixed(exported, trained, tmp_path, monkeypatch):
    source, target = tmp_path / "titles.csv", tmp_path / "answers.csv"
    trained.test[["text"]].to_csv(source, index=False)
    model = AutoModelForSequenceClassification.from_pretrained(trained.folder)
    tokenizer = AutoTokenizer.from_pretrained(trained.folder)
    classified, asked = inference._classified, []

    def dying(texts, *rest):
        if asked:
            raise KeyboardInterrupt
        asked.append(texts)
        return classified(texts, *rest)

    monkeypatch.setattr(inference, "_classified", dying)
    with pytest.raises(KeyboardInterrupt):
        inference.answer_file(source, target, model, tokenizer, chunk_rows=10)
    monkeypatch.undo()
    model.classifier.bias.data += 1  # trained further, under the same name
    with pytest.raises(ValueError, match=r"of another run .*weights"):
        inference.answer_file(source, target, model, tokenizer, chunk_rows=10)
    # Killed while it cleared up: what is left says nothing of its run, and isn't taken over.
    parts = tmp_path / "answers.csv.parts"
    (parts / "run.json").unlink()
    other = pd.DataFrame({"text": [f"Another {number}" for number in range(12)]})
    other.to_csv(source, index=False)
    inference.answer_file(source, target, exported.int8, chunk_rows=10)
    assert pd.read_csv(target)["text"].tolist() == other["text"].tolist()
    assert not parts.exists()


def test_a_folder_that_is_trained_anew_is_another_model(trained, tmp_path):
    copied = shutil.copytree(trained.folder, tmp_path / "model")
    before = inference._fingerprint(copied)
    assert inference._fingerprint(copied) == before
    model = AutoModelForSequenceClassification.from_pretrained(copied)
    model.save_pretrained(copied)
    assert inference._fingerprint(copied) != before
    assert inference._fingerprint("someone/some-model") == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"problem_type": "multi_label_classification", "id2label": {0: "a", 1: "b", 2: "c"}},
        {"num_labels": 1},
        {"num_labels": 2},  # called LABEL_0 and LABEL_1
    ],
)
def test_other_kinds_of_classifier_answer_as_their_pipeline_does(settings, tokenizer, tmp_path):
    small = {"vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 2, "id2label": None}
    small |= {"num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
    set_seed(0)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(**{**small, **settings})
    )
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    texts = ["One", "Two of them, or three"]
    plain = pipeline("text-classification", model=str(tmp_path / "model"), top_k=None)(texts)
    folder = inference.export_onnx(tmp_path / "model", tmp_path / "onnx", int8=False)
    for way in (tmp_path / "model", folder):
        found = inference.classify(texts, way)
        for row, answers in zip(found.to_dict("records"), plain, strict=True):
            for answer in answers:
                assert row[answer["label"]] == pytest.approx(answer["score"], abs=1e-4)
        # More than the 64 positions that there are.
        assert len(inference.classify(["word " * 300], way)) == 1


def test_what_can_not_be_answered_is_said(trained, tokenizer):
    with pytest.raises(ValueError, match="put 'My title' into a list"):
        inference.classify("My title", trained.folder)
    with pytest.raises(ValueError, match="dtype='halved' is none"):
        inference.classify(["A"], trained.folder, dtype="halved")
    model = AutoModelForSequenceClassification.from_pretrained(trained.folder)
    model.config.id2label = {0: "score", 1: "text"}
    with pytest.raises(ValueError, match="may not be called"):
        inference.classify(["A"], model, tokenizer)
    model.config.problem_type = "regression"
    with pytest.raises(ValueError, match="is a regression"):
        inference.classify(["A"], model, tokenizer)


def test_an_export_leaves_model_and_folder_as_they_were(
    trained, keyword_model, tokenizer, tmp_path
):
    model = AutoModelForSequenceClassification.from_pretrained(trained.folder, dtype="bfloat16")
    inference.export_onnx(model, tmp_path / "onnx", tokenizer)
    assert model.dtype == torch.bfloat16
    writer = AutoModelForSeq2SeqLM.from_pretrained(keyword_model)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("Not to be lost")
    inference.export_ctranslate2(writer, tmp_path / "mine", tokenizer)
    assert not hasattr(writer.config, "normalize_before")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "Not to be lost"
    assert (tmp_path / "mine" / "model.bin").is_file()
