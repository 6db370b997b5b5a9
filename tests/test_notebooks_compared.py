"""The notebooks that compare and those that ask a language model, as in `test_notebooks`."""

import pytest

from cookbook import inference, metrics, tables, words
from tests.running import NOWHERE, challenge_f1, challenge_passed, outputs, runner
from tests.servers import scripted_ollama


@pytest.mark.ollama
@pytest.mark.slow
def test_the_classifier_is_compared_exported_and_priced(smollm, trained, titles, tmp_path):
    real = titles.groupby("label").tail(20)[["text", "label"]]
    real.to_csv(tmp_path / "real.csv", index=False)
    executed = runner.execute(
        "clickbait/3_compare_and_deploy",
        tmp_path,
        model=str(trained.folder),
        real_headlines=str(tmp_path / "real.csv"),
        host=smollm.url,
        train_rows=200,
        least_steps=5,
        llm_titles=2,
        curve_sizes=[20],
        curve_seeds=[0],
        setfit_sizes=[20],
        setfit_steps=2,
        epochs=0.2,
        repeats=1,
        timed_titles=40,
        file_sizes=[100, 200],
    )
    folder = executed.parent
    results = metrics.load_metrics(folder)
    rivals = {"majority", "TF-IDF", "TF-IDF, cased", "fastText", "frozen embeddings"}
    asked = {"smollm2, zero-shot", "smollm2, 6 examples"}
    ours = {"fine-tuned", "fine-tuned, int8"}
    assert rivals | asked | ours <= set(results["summary"])
    curve = {"TF-IDF", "frozen embeddings", "fine-tuned", "SetFit"}
    assert {point["name"] for point in results["curve"]} == curve
    found = inference.classify(real["text"], trained.folder)["label"]
    accuracy = (found.to_numpy() == real["label"].to_numpy()).mean()
    assert results["summary"]["fine-tuned"]["accuracy, real"] == pytest.approx(accuracy)
    # What was exported answers as the notebook says, and so does the service without torch.
    answered = tables.read(folder / "100_answered.csv").head(50)
    again = inference.classify(answered["text"], folder / "onnx-int8")["label"]
    assert answered["label"].tolist() == again.tolist()
    text = outputs(executed)
    assert "'status': 'ok'" in text
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert {"compared.png", "learning_curve.png", "break_even.png"} <= figures
    assert "Skipped" not in text
    assert "fine-tuned, int8" in runner.summary(results)


@pytest.mark.slow
def test_doubt_is_measured_kept_and_handed_on(trained, titles, tmp_path):
    real = titles.groupby("label").tail(60)[["text", "label"]]
    real.to_csv(tmp_path / "real.csv", index=False)
    executed = runner.execute(
        "clickbait/5_know_the_doubt",
        tmp_path,
        model=str(trained.folder),
        real_headlines=str(tmp_path / "real.csv"),
        labelled=40,
        draws=2,
        host=NOWHERE,
    )
    folder = executed.parent
    results = metrics.load_metrics(folder)
    assert set(results["promises"]) == {"read off the curve", "with a bound"}
    assert results["judge"]["both"] > results["judge"]["the judge"]
    text = outputs(executed)
    assert "No Ollama server answers" in text
    assert "40 rows allow no promise of 98.0%" in text
    answers = inference.classify(real["text"], folder / "int8")
    assert "sure" in answers
    assert {"coverage.png", "cascade.png"} <= {p.name for p in (folder / "figures").iterdir()}
    assert "sure" not in inference.classify(real["text"].head(3), trained.folder)  # left as it was


@pytest.mark.slow
def test_the_keyword_models_are_compared_exported_and_priced_without_an_llm(
    keyword_model, marker, short_posts, tmp_path
):
    short_posts.head(8)[["text", "keywords"]].to_csv(tmp_path / "real.csv", index=False)
    executed = runner.execute(
        "keywords/4_compare_and_deploy",
        tmp_path,
        model=str(keyword_model),
        marker=str(marker),
        real_posts="real.csv",
        n_test=20,
        n_file=40,
        repeats=1,
        host=NOWHERE,
    )
    folder = executed.parent
    results = metrics.load_metrics(folder)
    ways = {"NLTK words", "spaCy", "YAKE", "KeyBERT", "BART", "BART, int8"}
    ways |= {"marker", "marker, int8"}
    assert ways <= set(results["summary"])
    for name, model in {"BART": keyword_model, "marker": marker}.items():
        assert results["challenge"][name]["f1@M"] == pytest.approx(challenge_f1(model))
        assert results["real"][name]["f1@M"] > 0.9  # posts learnt by heart
    text = outputs(executed)
    assert "Skipped: " in text
    assert "Ollama" in text
    answered = tables.read(folder / "posts_answered.csv")
    assert len(answered) == 40
    again = inference.extract_keywords(answered["text"], folder / "onnx-int8")
    assert answered["keywords"].map(words.split_keywords).tolist() == again


@pytest.mark.ollama
@pytest.mark.slow
def test_an_llm_joins_the_comparison_of_keywords(smollm, tmp_path):
    """And where no fine-tuned model is there, a BART is fine-tuned and the encoder left out."""
    executed = runner.execute(
        "keywords/4_compare_and_deploy",
        tmp_path,
        real_posts=f"{NOWHERE}/posts.csv",
        steps=2,
        n_test=8,
        n_file=8,
        repeats=1,
        host=smollm.url,
        llm_posts=2,
    )
    text = outputs(executed)
    assert "out/keywords/model isn't there: fine-tuning minilm" in text
    assert "out/keywords_marked/model isn't there: the encoder that marks is left out" in text
    assert "Not measured on real posts" in text
    assert "smollm2, 2 posts" in metrics.load_metrics(executed.parent)["summary"]


@pytest.mark.slow
def test_without_a_classifier_to_compare_one_is_fine_tuned(begin, capsys):
    name, few = "clickbait/3_compare_and_deploy", {"train_rows": 64, "least_steps": 2, "epochs": 1}
    settings = runner.COMPARED[name] | few | {"real_headlines": f"{NOWHERE}/real.csv"}
    found = begin(name, "def fine_tune", **settings)
    told = "out/clickbait/model isn't there: fine-tuning minilm on 64 titles"
    assert told in capsys.readouterr().out
    answers = inference.classify(["Council approves budget"], found["model"])
    assert answers["label"].isin(["clickbait", "factual"]).all()


@pytest.mark.parametrize("name", list(runner.COMPARED))
def test_a_folder_on_a_drive_that_is_not_there_is_refused_in_a_sentence(name, begin):
    where = "/content/drive/MyDrive/model"
    real = dict.fromkeys(("real_headlines", "real_posts"), f"{NOWHERE}/real.csv")
    settings = {"model": where, **real}
    with pytest.raises(FileNotFoundError, match=f"There is no model in {where}"):
        begin(name, "def fine_tune", **runner.COMPARED[name] | settings)


# --- Those that ask a language model


@pytest.mark.ollama
@pytest.mark.slow
def test_the_titles_notebook_asks_a_real_model(smollm, tmp_path):
    executed = runner.execute(
        "clickbait/1_generate_titles", tmp_path, per_label=3, taste=2, host=smollm.url
    )
    folder = executed.parent
    titles = tables.read(folder / "titles.csv")
    assert titles["label"].value_counts().to_dict() == {"clickbait": 3, "factual": 3}
    desk = tables.read(folder / "help_desk.csv")
    assert desk["label"].value_counts().to_dict() == {"billing": 3, "problem": 3, "wish": 3}
    results = metrics.load_metrics(folder)
    assert results["model"] == "smollm2"
    assert results["flips_found"] >= 0.8
    assert "smollm2" in runner.summary(results)
    assert "Skipped" not in outputs(executed)


@pytest.mark.ollama
@pytest.mark.slow
def test_the_annotation_notebook_asks_a_real_model(smollm, tmp_path):
    settings = {"n_texts": 6, "per_call": 2, "host": smollm.url}
    folder = runner.execute("keywords/1_annotate_texts", tmp_path, **settings).parent
    results = metrics.load_metrics(folder)
    assert results["rows"] + sum(results["rejected"].values()) == 6
    assert len(tables.read(folder / "annotated.csv")) == results["rows"]
    assert 0 <= results["agreement"]["f1@M"] < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", list(runner.SMALL_LLM))
def test_without_a_server_the_shipped_data_stand_in_and_it_is_said(name, tmp_path):
    executed = runner.execute(name, tmp_path, model="phi3", host=NOWHERE)
    text = outputs(executed)
    assert "NO OLLAMA SERVER: the shipped" in text
    assert "Skipped: there is no Ollama server." in text
    assert metrics.load_metrics(executed.parent)["model"].startswith("none")


# --- The one that learns from texts without labels


@pytest.fixture
def titles_apart(titles, tmp_path):
    titles.groupby("label").head(100).to_csv(tmp_path / "own.csv", index=False)
    rest = titles.groupby("label").tail(60)
    rest.head(80)[["text"]].to_csv(tmp_path / "pool.csv", index=False)
    rest.tail(40)[["text", "label"]].to_csv(tmp_path / "real.csv", index=False)
    settings = {"titles": "own.csv", "epochs": 2, "learning_rate": 3e-4, "frozen_layers": 0}
    return settings | {"sizes": [20, 80], "teacher_seeds": [0, 1], "student_seeds": [0]}


@pytest.mark.slow
def test_a_student_learns_from_files_without_labels(titles_apart, tmp_path):
    files = {"unlabelled": "pool.csv", "real_headlines": "real.csv"}
    name = "clickbait/4_learn_from_unlabelled"
    with scripted_ollama.serving(scripted_ollama.title) as server:
        asked = {"llm": "phi3", "host": server.url, "like_per_label": 2}
        executed = runner.execute(name, tmp_path, **titles_apart, **files, **asked)
    folder, text = executed.parent, outputs(executed)
    assert "of 80 texts teach" in text
    assert "nothing to compare with" in text
    results = metrics.load_metrics(folder)
    assert list(results["rounds"]) == ["0", "1", "2"]
    every = results["every"]
    assert {"teacher 0", "teacher 1", "teachers together", "round 1 0", "round 2 0"} == set(every)
    real = tables.read(tmp_path / "real.csv")
    student = folder / "rounds-80" / "round-2" / "seed-0"
    found = inference.classify(real["text"].tolist(), student)["label"].to_numpy()
    assert every["round 2 0"]["real"] == pytest.approx((found == real["label"].to_numpy()).mean())
    ways = results["ways"]
    assert list(ways) == ["titles alone", "with more like them", "with unlabelled ones"]
    assert ways["titles alone"]["real"] == pytest.approx(
        (every["teacher 0"]["real"] + every["teacher 1"]["real"]) / 2
    )
    written = tables.read(folder / "more_like.csv")
    assert set(written["label"]) == {"clickbait", "factual"}
    assert set(results["worth"]) == {"unlabelled 0", "unlabelled 20", "unlabelled 80"}
    best = results["best"]
    passed = challenge_passed(lambda texts: inference.classify(texts, folder / "model")["label"])
    assert every[f"round {best} 0" if best else "teacher 0"]["challenge"] == pytest.approx(passed)
    assert {"confidence.png", "worth.png"} <= {path.name for path in (folder / "figures").iterdir()}
    assert "Nothing pushed" in text
    assert "accuracy" in runner.summary(results)


@pytest.mark.slow
def test_without_headlines_it_shows_the_steps_on_hidden_labels(titles_apart, tmp_path):
    name = "clickbait/4_learn_from_unlabelled"
    settings = titles_apart | {"real_headlines": f"{NOWHERE}/real.csv", "rounds": 1}
    settings["host"] = NOWHERE
    executed = runner.execute(name, tmp_path, **settings)
    text = outputs(executed)
    assert "no gain shows" in text
    assert "120 labelled, 40 unlabelled, 20 to measure on" in text
    assert (executed.parent / "model" / "config.json").is_file()
