"""The steps from the checked texts of a task to a card: what shapes each, its product, its work."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from cookbook import data, extra, hub, inference, lake, metrics, multilabel, offline, tables
from cookbook import export as exports
from cookbook import trust as trusts
from cookbook.lessons import choose_thresholds, teach_files
from cookbook.models import configure, digest
from cookbook.opinions import NothingToLearn
from cookbook.task_file import Task
from cookbook.task_texts import Work, digest_of, usable
from cookbook.words import join_keywords, split_keywords


def train(task: Task) -> Work:
    """Run the notebook that fine-tunes, so that the Trainer stands in one place."""
    checked, out = task.folder / "checked.csv", task.folder / "trained"
    parameters: dict[str, Any] = {
        "base_model": task.base_model,
        "epochs": task.epochs,
        "learning_rate": task.learning_rate,
        "seed": task.seed,
    }
    if task.fields:
        name, table = "3_mark_keywords", "posts"
        parameters |= {"writer": "", "challenge": "none"}
    elif task.several:
        name, table = "many_labels", "table"
        parameters |= {"label": "label", "least": 1, "max_tokens": 256}
    else:
        name, table = "hub_dataset", "dataset"
        # It leaves out long texts: here what the model takes cuts them.
        parameters |= {"label": "label", "rows": 10**9, "max_tokens": 10**6}
    # Not of what shapes the step: the folder may be moved.
    places = {table: str(checked), "output_dir": str(out)}
    notebook = data.shipped(f"{name}.ipynb")

    def work() -> str:
        with extra("run"):
            import papermill
            from nbconvert import HTMLExporter
        out.mkdir(parents=True, exist_ok=True)
        executed = out / notebook.name
        papermill.execute_notebook(
            notebook,
            executed,
            parameters=parameters | places,
            kernel_name="python3",
            progress_bar=False,
        )
        html, _ = HTMLExporter().from_filename(str(executed))
        executed.with_suffix(".html").write_text(html, "utf-8")
        return f"{executed.with_suffix('.html')}: the run, cell by cell"

    shaped_by = [parameters, digest_of(checked), digest_of(notebook)]
    return shaped_by, _trained(task), work


def _base(task: Task) -> str:
    return str(offline.minilm()) if task.base_model == "minilm" else task.base_model


def training_hours(task: Task, texts: Sequence[str], wanted: int) -> str:
    """Train on a few batches, and work out how long so many texts will take.

    Args:
        task: The task.
        texts: Texts such as it will have.
        wanted: How many it will have.

    Raises:
        OSError: The base model can't be had.
    """
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer

    from cookbook import training

    tokenizer = AutoTokenizer.from_pretrained(_base(task))
    batches = [texts[i % len(texts)] for i in range(5 * 32)]
    rows = Dataset.from_dict(dict(tokenizer(batches, truncation=True, max_length=256)))
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        trainer = Trainer(
            AutoModelForSequenceClassification.from_pretrained(_base(task), dtype="float32"),
            training.training_arguments(
                folder,
                num_train_epochs=1,
                eval_strategy="no",
                save_strategy="no",
                load_best_model_at_end=False,
                disable_tqdm=True,
            ),
            train_dataset=rows.add_column("label", [i % 2 for i in range(len(rows))]),
            processing_class=tokenizer,
        )
        seconds = trainer.train().metrics["train_runtime"] / len(rows)
    trained = wanted * (2 if task.several else 1)  # with weights too
    if task.unlabelled:
        pool = len(lake.sample(task.unlabelled, "text", 8000))
        trained += 2 * (wanted + pool)  # two rounds
    hours = seconds * trained * task.epochs / 3600
    return f"hours of training on {trainer.args.device.type}: {hours:,.2g}"


def _trained(task: Task) -> Path:
    return task.folder / "trained" / "model"


def teach(task: Task) -> Work:
    """Learn from the unlabelled texts, if there are some."""
    model, best_file = _trained(task), task.folder / "taught" / "best.json"
    if task.unlabelled is None:
        return None, model, lambda: "nothing: there are no unlabelled texts"
    settings = {"num_train_epochs": task.epochs, "learning_rate": task.learning_rate}

    def work() -> str:
        try:
            with redirect_stdout(StringIO()):
                rounds = teach_files(
                    [str(model)],
                    str(task.unlabelled),
                    task.folder / "checked.csv",
                    [task.measured] if task.measured else [],
                    out=task.folder / "taught",
                    shares=_shares(task),
                    base=_base(task),
                    seed=task.seed,
                    settings=settings,
                )
            best, told = Path(rounds.models[rounds.best][0]), f"round {rounds.best} is the best"
            told = "; ".join(rounds.told) or told
        except NothingToLearn as error:
            best, told = model, f"stays as it is. {error}"
        # Counted from the folder, which may be moved.
        best_file.parent.mkdir(exist_ok=True)
        best_file.write_text(json.dumps({"model": os.path.relpath(best, task.folder)}), "utf-8")
        return f"{best}: {told}"

    shaped_by = [digest_of(task.unlabelled), digest_of(task.measured), settings, _of_model(model)]
    return shaped_by, best_file, work


def _final(task: Task) -> Path:
    """Return the model that is kept: the taught one, where there is one."""
    best = tables.read_json(task.folder / "taught" / "best.json") if task.unlabelled else {}
    return task.folder / best["model"] if best else _trained(task)


def measure(task: Task) -> Work:
    """Score the model on the test split, and on texts that a person labelled."""
    model = _final(task)

    def work() -> str:
        loaded = inference.load(model)
        sets = {"test": _splits(task, loaded.names)["test"].to_pandas()}
        if task.measured:
            sets["real"] = _known(task, task.measured, loaded.names)
        about: dict[str, Any] = {"base_model": task.base_model}
        if not task.fields:
            about["labels"] = loaded.names
        about["rows"] = {name: len(part) for name, part in sets.items()}
        main = "f1@M" if task.fields else "f1_macro" if task.several else "accuracy"
        told = []
        for where, part in sets.items():
            about[where], worst = (_marked if task.fields else _classified)(part, loaded)
            tables.write(worst, task.folder / f"mistakes_{where}.csv")
            told.append(f"{main} {about[where][main]:.3f} on {len(part):,} {where} texts")
        metrics.save_metrics(task.folder, **about)
        return f"{'; '.join(told)}. Read {task.folder / f'mistakes_{list(sets)[-1]}.csv'} first"

    shaped_by = [_of_model(model), digest_of(task.measured)]
    return shaped_by, task.folder / "metrics.json", work


def _classified(part: pd.DataFrame, loaded: Any) -> tuple[dict[str, float], pd.DataFrame]:
    """Return the figures of a classifier, and its surest mistakes."""
    true: list[Any] = part["label"].tolist()
    answers = inference.classify(part["text"], loaded)
    worst = inference.worst_mistakes(answers, true, n=50)
    if not loaded.several:
        found = answers["label"].fillna("").tolist()
        return metrics.classification_metrics(true, found, loaded.names), worst
    thresholds = loaded.config.get("label_thresholds", 0.5)
    scores = answers[loaded.names].to_numpy(float)
    return multilabel.multilabel_metrics(true, scores, loaded.names, thresholds), worst


def _marked(part: pd.DataFrame, loaded: Any) -> tuple[dict[str, float], pd.DataFrame]:
    """Return the figures of a model that marks keywords, and the texts that it is worst at."""
    texts, true = part["text"].tolist(), [split_keywords(cell) for cell in part["keywords"]]
    found = inference.extract_keywords(texts, loaded)
    matches = metrics.keyphrase_matches(texts, found, true)["all"]
    table = pd.DataFrame({"text": texts, "keywords": part["keywords"].tolist()})
    table["found"] = list(map(join_keywords, found))
    table["f1"] = matches["f1@M"].to_numpy()
    worst = table[table["f1"] < 1].sort_values("f1", kind="stable").head(50)
    return metrics.keyphrase_metrics(texts, found, true), worst


def _splits(task: Task, names: Sequence[str]) -> Any:
    """Split the checked texts as the notebook did that trained on them."""
    rows = _known(task, task.folder / "checked.csv", names)
    return data.load_splits(rows, **task.columns, seed=task.seed, **_shares(task))


def _shares(task: Task) -> Any:
    """Return how large the notebook that trains makes its splits: all have to have the same."""
    return {"validation": 0.15, "test": 0.2} if task.several else {}


def _known(task: Task, path: Path, names: Sequence[str]) -> pd.DataFrame:
    """Read texts with labels; of several, those that the model doesn't know are left out."""
    rows = usable(task, path)
    if task.several:
        if others := sorted(set(rows["label"].explode().dropna()) - set(names)):
            warnings.warn(f"{path} has labels that the model lacks: {others[:10]}", stacklevel=2)
        rows["label"] = rows["label"].map(lambda own: [name for name in own if name in names])
    return rows[["text", task.column]].reset_index(drop=True)


def trust(task: Task) -> Work:
    """Make probabilities hold; promise what the texts that a person labelled allow."""
    model, out = _final(task), _kept(task)

    def work() -> str:
        half = out.with_name("model.half")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(model, half)
        told = [] if task.fields else [_calibrated(task, half)]
        if task.measured:
            about, rows = f"texts of {task.measured.name}", _by_hand(task, half)
            found = trusts.measure(half, *rows, task.sure, data=about, fit=False)
            if found.sure.threshold is not None:
                trusts.keep(half, found)
            told.append(str(found))
        else:
            told.append("no promise without texts that a person labelled: measured")
        shutil.rmtree(out, ignore_errors=True)
        half.rename(out)
        return f"{out}: {'; '.join(told)}"

    shaped_by = [_of_model(model), digest_of(task.folder / "checked.csv")]
    return [*shaped_by, digest_of(task.measured), task.sure], out, work


def _kept(task: Task) -> Path:
    return task.folder / "model"


def _calibrated(task: Task, model: Path) -> str:
    """Fit a temperature on the validation split, where enough is wrong for one."""
    rows = _splits(task, inference.load(model).names)["validation"].to_pandas()
    with warnings.catch_warnings():  # said below
        warnings.simplefilter("ignore")
        found = trusts.measure(model, rows["text"], rows["label"])
    fitted: Any = found.calibration
    if fitted.by_chance:
        return f"{fitted.wrong} of {fitted.rows} validation texts are wrong: no temperature"
    about = found.settings.items()  # a promise would be about synthetic texts
    configure(model, **{name: value for name, value in about if not name.startswith("sure_")})
    return str(fitted)


def _by_hand(task: Task, model: Path) -> tuple[list[str], list[Any]]:
    """Return the texts that a person labelled, and their labels or keywords."""
    rows = _known(task, Path(str(task.measured)), inference.load(model).names)
    return rows["text"].tolist(), rows[task.column].tolist()


def export(task: Task) -> Work:
    """Export to int8, where thresholds and promises are measured anew; say what that changes."""
    model, out = _kept(task), task.folder / "int8"

    def work() -> str:
        exports.export_onnx(model, out)
        names = inference.load(model).names
        if task.several or task.fields:
            choose_thresholds(out, _splits(task, names)["validation"])
        texts = tables.read(task.folder / "checked.csv")["text"].head(500)
        answer = inference.extract_keywords if task.fields else _labels
        both = [answer(texts, each) for each in (model, out)]
        other = sum(first != second for first, second in zip(*both, strict=True))
        told = [f"{out}: in int8, {other} of {len(texts)} answers differ"]
        if task.measured and inference.load(out).config.get("sure_from") is not None:
            told.append(str(trusts.check_export(out, *_by_hand(task, out))))
        return "; ".join(told)

    return [_of_model(model), digest_of(task.measured)], out, work


def _labels(texts: pd.Series, model: Path) -> list[Any]:
    return inference.classify(texts, model)["label"].tolist()


def card(task: Task) -> Work:
    """Lay out the model with its card, to be pushed."""
    model = _kept(task)
    writer = task.llm.model if task.llm and (task.fields or not task.texts) else ""
    did = "annotated" if task.fields else "written"

    def work() -> str:
        staged = hub.stage_model(
            model,
            f"your-name/{task.name}",
            task.folder / "to_push",
            metrics=task.folder / "metrics.json",
            language=task.language,
            data=f"Texts {did} by {writer}." if writer else "Texts of the author's own.",
        )
        return f"{staged / 'README.md'}: read it, then: cookbook push {staged} you/{task.name}"

    shaped_by = [_of_model(model), digest_of(task.folder / "metrics.json"), task.language, writer]
    return shaped_by, task.folder / "to_push", work


def _of_model(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"There is no model in {folder} yet: do the step before.")
    return digest(
        sorted(path for path in folder.glob("*") if path.suffix in (".json", ".safetensors"))
    )
