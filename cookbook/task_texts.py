"""The texts of a task: written or annotated by an LLM, or one's own; and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, create_model

from cookbook import data, quality, synthesis, tables
from cookbook.annotation import annotate
from cookbook.llm import Llm, connect
from cookbook.models import digest
from cookbook.places import parts_of
from cookbook.surface import near_duplicates
from cookbook.task_file import Task
from cookbook.words import split_keywords

# Of what a step is made, its product, and the work, which returns a line on it.
Work = tuple[Any, Path, Callable[[], str]]


def write(task: Task) -> Work:
    """Let the LLM write the texts or annotate yours, or take those that have all."""
    if task.texts and (own := task.texts) and not (task.fields and task.llm):
        return digest_of(own), own, lambda: f"{own}, your own"
    out = task.folder / "texts.csv"
    shaping = {"kind", "language", "per_label", "seed", "several", "fields", "examples", "llm"}
    shaped_by = task.model_dump(mode="json", include={*shaping, "labels"})

    def work() -> str:
        rows, runs = asked(task, task.folder / "answers", task.per_label)
        tables.write(rows, out)
        told = [f"{out}: {len(rows):,} texts"]
        told.append(f"{sum(len(run.rejected) for run in runs):,} rejected")
        if runs[-1].output_tokens:
            read, written = tokens(runs)
            told.append(f"{read:,} tokens read, {written:,} written")
        return "; ".join(told)

    return [shaped_by, digest_of(task.topics), digest_of(task.texts)], out, work


def asked(
    task: Task, folder: Path, per_label: int, rows: int | None = None
) -> tuple[pd.DataFrame, list[synthesis.Synthesis]]:
    """Ask the LLM for so many texts of each label, or about so many texts; or go on with it."""
    assert task.llm
    address: Any = {"base_url": task.llm.base_url, "host": task.llm.host}
    llm = connect(task.llm.model, timeout=task.llm.timeout, key=task.llm.key, **address)
    folder.mkdir(parents=True, exist_ok=True)
    if task.fields:
        assert task.texts
        given = tables.read(task.texts, ["text"])[["text"]].drop_duplicates().head(rows or 10**9)
        examples = [
            (one["text"], task.answer(**{k: v for k, v in one.items() if k != "text"}))
            for one in task.examples
        ]
        told = "\n".join(f"{name}: {meaning};" for name, meaning in task.fields.items())
        run = _annotated(task, llm, given, folder / "annotated.csv", task.answer, told, examples)
        return _in_order(given, run.rows), [run]
    run = _written(task, llm, per_label, folder / "texts.csv")
    # The LLM's file keeps the rows of other questions too: those of an earlier definition.
    texts = run.rows.groupby("label").head(per_label).reset_index(drop=True)
    if not task.several:
        return texts, [run]
    names: Any = Literal[tuple(task.labels)]
    shape: Any = (Annotated[list[names], Field(min_length=1)], ...)
    answer = create_model("Labels", labels=shape)
    told = "labels: all that fit, of these:\n" + "\n".join(
        f"- {name}: {one.definition}" for name, one in task.labels.items()
    )
    more = _annotated(task, llm, texts[["text"]], folder / "labels.csv", answer, told)
    found = _in_order(texts.rename(columns={"label": "written_as"}), more.rows)
    pairs = zip(found["written_as"], found.pop("labels"), strict=True)
    sets = [split_keywords([one, *split_keywords(cell)]) for one, cell in pairs]
    found.insert(1, "label", list(map("|".join, sets)))
    return found, [run, more]


def _written(task: Task, llm: Llm, per_label: int, out: Path) -> synthesis.Synthesis:
    assert task.llm
    return synthesis.generate_texts(
        out,
        [
            synthesis.Label(name, one.definition, tuple(one.examples))
            for name, one in task.labels.items()
        ],
        model=llm,
        per_label=per_label,
        kind=task.kind,
        language=task.in_language,
        topics=tables.lines_of(task.topics) if task.topics else synthesis.TOPICS,
        per_call=task.llm.per_call or 1,
        temperature=task.llm.temperature or 0.9,
        seed=task.seed,
        concurrency=task.llm.concurrency,
    )


def _annotated(
    task: Task,
    llm: Llm,
    texts: pd.DataFrame,
    out: Path,
    fields: type[BaseModel],
    told: str,
    examples: Any = (),
) -> synthesis.Synthesis:
    assert task.llm
    instruction = f"You annotate {task.kind}s. For each give\n{told}"
    if task.in_language:
        instruction += f"\nThey are in {task.in_language}, and so is what you write."
    return annotate(
        texts,
        out,
        fields=fields,
        instruction=instruction,
        examples=examples,
        model=llm,
        per_call=task.llm.per_call or 10,
        temperature=task.llm.temperature or 0.2,
        seed=task.seed,
        concurrency=task.llm.concurrency,
    )


def _in_order(texts: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Put what answers add to texts in the order of the texts; those without one are left out."""
    there = answers.drop_duplicates("text", keep="last")
    there = there[["text", *there.columns.difference(texts.columns, sort=False)]]
    return texts.merge(there, on="text")


def tokens(runs: list[synthesis.Synthesis]) -> tuple[int, int]:
    """Return the tokens that runs read and wrote, as the server counted them."""
    return sum(run.input_tokens for run in runs), sum(run.output_tokens for run in runs)


def check(task: Task) -> Work:
    """Look for what makes a score worthless; leave out copies, leaks and texts with two labels."""
    texts = texts_of(task)

    def work() -> str:
        rows = usable(task, texts)
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
        rows = rows.reset_index(drop=True)
        if task.fields:
            report = quality.check_keywords(rows)
            # What is said of a keyword alone costs no text.
            report.findings = report.findings[~report.findings["check"].isin(_OF_A_KEYWORD)]
        else:
            report = quality.check(rows, several=task.several)
        kept: Any = report.clean()
        why = "without keywords, far from them, or copies" if task.fields else ""
        told.append(f"{report.rows - len(kept):,} {why or 'copies or contradictions'} left out")
        tables.write(kept, task.folder / "checked.csv")
        (task.folder / "check.txt").write_text(f"{'; '.join(told)}\n{report}\n", "utf-8")
        found = f"{len(report.problems)} problems" if report.problems else "no problem"
        return f"{task.folder / 'check.txt'}: {'; '.join(told)}; {found}"

    shaped_by = [digest_of(texts), digest_of(task.measured), task.several, task.least, task.column]
    return shaped_by, task.folder / "checked.csv", work


_OF_A_KEYWORD = ("empty keyword", "generic keyword", "repeated keyword")


def texts_of(task: Task) -> Path:
    """Return the file that the model learns from, before it is checked."""
    return write(task)[1]


def usable(task: Task, path: Path) -> pd.DataFrame:
    """Read the rows that have a text, and a label or keywords."""
    return data.usable(tables.read(path, ["text", task.column]), **task.columns)


def _copies(texts: pd.Series, others: pd.Series) -> pd.Series:
    """Say which texts are near copies of others."""
    pairs = near_duplicates(pd.concat([others, texts], ignore_index=True).astype(str))
    found = pairs["row"][(pairs["row"] >= len(others)) & (pairs["of"] < len(others))]
    return pd.Series(np.isin(np.arange(len(texts)), found - len(others)), texts.index)


def digest_of(path: Path | None) -> str:
    """Return a hash of what a file or the files of a folder hold; '' where none is wanted.

    Raises:
        FileNotFoundError: It isn't there: the step that makes it wasn't done.
    """
    if path is None:
        return ""
    if not path.exists():
        raise FileNotFoundError(f"{path} isn't there yet: do the step before.")
    if path.is_dir():
        return digest(Path(info.path) for info in parts_of(path)[2].values())[:16]
    return digest([path])[:16]
