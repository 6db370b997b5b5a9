"""The steps from a task to a card: what shapes each, what it makes, and its work."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cookbook import (
    data,
    extra,
    hub,
    inference,
    metrics,
    multilabel,
    offline,
    quality,
    synthesis,
    tables,
)
from cookbook import export as exports
from cookbook.lessons import teach_files
from cookbook.llm import connect
from cookbook.models import digest
from cookbook.opinions import NothingToLearn
from cookbook.surface import near_duplicates
from cookbook.task_file import Task

# Of what a step is made, its product, and the work, which returns a line on it.
Work = tuple[Any, Path, Callable[[], str]]


def write(task: Task) -> Work:
    """Let the LLM write the texts, or take those of one's own."""
    if task.texts:
        told = f"{task.texts}, your own"
        return _of(task.texts), task.texts, lambda: told
    out = task.folder / "texts.csv"
    shaped_by = task.model_dump(mode="json", include={"kind", "language", "per_label", "seed"})
    asked = task.llm.model_dump(mode="json") if task.llm else {}
    kinds = {name: one.model_dump() for name, one in task.labels.items()}

    def work() -> str:
        # The LLM's file keeps the rows of other questions too: those of an earlier definition.
        run = written(task, task.per_label, task.folder / "answers" / "texts.csv")
        tables.write(run.rows.groupby("label").head(task.per_label), out)
        return f"{out}: {len(tables.read(out)):,} texts; {len(run.rejected):,} rejected"

    return [shaped_by, _of(task.topics), asked, kinds], out, work


def written(task: Task, per_label: int, out: Path) -> synthesis.Synthesis:
    """Write so many texts of each label, or go on with them."""
    import langcodes

    assert task.llm
    of_llm = task.llm
    address: Any = {"base_url": of_llm.base_url, "host": of_llm.host}
    llm = connect(of_llm.model, timeout=of_llm.timeout, key=of_llm.key, **address)
    wanted = [
        synthesis.Label(name, one.definition, tuple(one.examples))
        for name, one in task.labels.items()
    ]
    topics = synthesis.TOPICS
    if task.topics:
        topics = tuple(filter(None, map(str.strip, task.topics.read_text("utf-8").splitlines())))
    language = langcodes.Language.get(task.language).display_name()
    return synthesis.generate_texts(
        out,
        wanted,
        model=llm,
        per_label=per_label,
        kind=task.kind,
        language=None if language == "English" else language,
        topics=topics,
        per_call=of_llm.per_call,
        temperature=of_llm.temperature,
        seed=task.seed,
        concurrency=of_llm.concurrency,
    )


def check(task: Task) -> Work:
    """Look for what makes a score worthless; leave out copies, leaks and texts with two labels."""
    texts = task.texts or task.folder / "texts.csv"

    def work() -> str:
        rows = data.usable(tables.read(texts, ["text", "label"]), several=task.several)
        told = [f"{len(rows):,} texts"]
        if task.measured:
            copies = _copies(rows["text"], tables.read(task.measured, ["text"])["text"])
            rows = rows[~copies]
            told.append(f"{copies.sum():,} near a measured one left out")
        if task.several:
            counts = rows["label"].explode().value_counts()
            rare = set(counts[counts < task.least].index)
            rows["label"] = rows["label"].map(lambda own: [n for n in own if n not in rare])
            told.append(f"{len(rare)} labels with less than {task.least} texts left out")
            if len(counts) - len(rare) < 2:
                raise ValueError(f"Less than two labels have {task.least} texts: lower least.")
        report = quality.check(rows.reset_index(drop=True), several=task.several)
        kept: Any = report.clean()
        told.append(f"{report.rows - len(kept):,} copies or contradictions left out")
        tables.write(kept, task.folder / "checked.csv")
        (task.folder / "check.txt").write_text(f"{'; '.join(told)}\n{report}\n", "utf-8")
        found = f"{len(report.problems)} problems" if report.problems else "no problem"
        return f"{task.folder / 'check.txt'}: {'; '.join(told)}; {found}"

    shaped_by = [_of(texts), _of(task.measured), task.several, task.least]
    return shaped_by, task.folder / "checked.csv", work


def train(task: Task) -> Work:
    """Run the notebook that fine-tunes, so that the Trainer stands in one place."""
    name = "many_labels" if task.several else "hub_dataset"
    notebook, out = data.shipped(f"{name}.ipynb"), task.folder / "trained"
    parameters = {
        ("table" if task.several else "dataset"): str(task.folder / "checked.csv"),
        "label": "label",
        "base_model": task.base_model,
        "epochs": task.epochs,
        "learning_rate": task.learning_rate,
        "seed": task.seed,
        "output_dir": str(out),
        # The one cuts texts there, the other leaves them out: what the model takes cuts them then.
        **(
            {"least": 1, "max_tokens": 256}
            if task.several
            else {"rows": 10**9, "max_tokens": 10**6}
        ),
    }

    def work() -> str:
        with extra("run"):
            import papermill
            from nbconvert import HTMLExporter
        out.mkdir(parents=True, exist_ok=True)
        executed = out / notebook.name
        papermill.execute_notebook(
            notebook, executed, parameters=parameters, kernel_name="python3", progress_bar=False
        )
        html, _ = HTMLExporter().from_filename(str(executed))
        executed.with_suffix(".html").write_text(html, "utf-8")
        return f"{executed.with_suffix('.html')}: the run, cell by cell"

    shaped_by = [parameters, _of(task.folder / "checked.csv"), _of(notebook)]
    return shaped_by, _trained(task), work


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
                    base=str(offline.minilm()) if task.base_model == "minilm" else task.base_model,
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

    shaped_by = [_of(task.unlabelled), _of(task.measured), settings, _of_model(model)]
    return shaped_by, best_file, work


def _final(task: Task) -> Path:
    """Return the model that is kept: the taught one, where there is one."""
    best = task.folder / "taught" / "best.json"
    if task.unlabelled and best.is_file():
        return task.folder / json.loads(best.read_text("utf-8"))["model"]
    return _trained(task)


def measure(task: Task) -> Work:
    """Score the model on the test split, and on texts that a person labelled."""
    model = _final(task)

    def work() -> str:
        loaded = inference.load(model)
        rows = _known(task, task.folder / "checked.csv", loaded.names)
        splits = data.load_splits(rows, several=task.several, seed=task.seed, **_shares(task))
        sets = {"test": splits["test"].to_pandas()}
        if task.measured:
            sets["real"] = _known(task, task.measured, loaded.names)
        about: dict[str, Any] = {"labels": loaded.names, "base_model": task.base_model}
        about["rows"] = {name: len(part) for name, part in splits.items()}
        told = []
        for where, part in sets.items():
            answers = inference.classify(part["text"], loaded)
            about[where] = _figures(part["label"].tolist(), answers, loaded)
            worst = inference.worst_mistakes(answers, part["label"].tolist(), n=50)
            tables.write(worst, task.folder / f"mistakes_{where}.csv")
            main = "f1_macro" if task.several else "accuracy"
            told.append(f"{main} {about[where][main]:.3f} on {len(part):,} {where} texts")
        metrics.save_metrics(task.folder, **about)
        return f"{'; '.join(told)}. Read {task.folder / f'mistakes_{list(sets)[-1]}.csv'} first"

    return [_of_model(model), _of(task.measured)], task.folder / "metrics.json", work


def _shares(task: Task) -> Any:
    """Return how large the notebook that trains makes its splits: all have to have the same."""
    return {"validation": 0.15, "test": 0.2} if task.several else {}


def _known(task: Task, path: Path, names: Sequence[str]) -> pd.DataFrame:
    """Read texts with labels; of several, those that the model doesn't know are left out."""
    rows = data.usable(tables.read(path, ["text", "label"]), several=task.several)
    if task.several:
        if others := sorted(set(rows["label"].explode().dropna()) - set(names)):
            warnings.warn(f"{path} has labels that the model lacks: {others[:10]}", stacklevel=2)
        rows["label"] = rows["label"].map(lambda own: [name for name in own if name in names])
    return rows[["text", "label"]].reset_index(drop=True)


def _copies(texts: pd.Series, others: pd.Series) -> pd.Series:
    """Say which texts are near copies of others."""
    pairs = near_duplicates(pd.concat([others, texts], ignore_index=True).astype(str))
    found = pairs["row"][(pairs["row"] >= len(others)) & (pairs["of"] < len(others))]
    return pd.Series(np.isin(np.arange(len(texts)), found - len(others)), texts.index)


def _figures(true: list[Any], answers: pd.DataFrame, loaded: Any) -> dict[str, float]:
    if not loaded.several:
        return metrics.classification_metrics(
            true, answers["label"].fillna("").tolist(), loaded.names
        )
    thresholds = loaded.config.get("label_thresholds", 0.5)
    scores = answers[loaded.names].to_numpy(float)
    return multilabel.multilabel_metrics(true, scores, loaded.names, thresholds)


def export(task: Task) -> Work:
    """Export to int8, and say how many answers that changes."""
    model, out = _final(task), task.folder / "int8"

    def work() -> str:
        exports.export_onnx(model, out)
        texts = tables.read(task.folder / "checked.csv")["text"].head(500)
        both = [inference.classify(texts, each)["label"] for each in (model, out)]
        other = sum(first != second for first, second in zip(*both, strict=True))
        return f"{out}: in int8, {other} of {len(texts)} answers differ"

    return _of_model(model), out, work


def card(task: Task) -> Work:
    """Lay out the model with its card, to be pushed."""
    model = _final(task)
    writer = task.llm.model if task.llm and not task.texts else ""

    def work() -> str:
        staged = hub.stage_model(
            model,
            f"your-name/{task.name}",
            task.folder / "to_push",
            metrics=task.folder / "metrics.json",
            language=task.language,
            data=f"Texts written by {writer}." if writer else "Texts of the author's own.",
        )
        return f"{staged / 'README.md'}: read it, then: cookbook push {staged} you/{task.name}"

    shaped_by = [_of_model(model), _of(task.folder / "metrics.json"), task.language, writer]
    return shaped_by, task.folder / "to_push", work


def _of(path: Path | None) -> str:
    if path is None:
        return ""
    if not path.is_file():
        raise FileNotFoundError(f"{path} isn't there yet: do the step before.")
    return digest([path])[:16]


def _of_model(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"There is no model in {folder} yet: do the step before.")
    return digest(
        sorted(path for path in folder.glob("*") if path.suffix in (".json", ".safetensors"))
    )
