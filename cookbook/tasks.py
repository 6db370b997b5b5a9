"""A task from a file: texts written or taken, checked, trained on, measured, exported, staged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm.auto import tqdm

from cookbook import tables, task_model, task_texts
from cookbook.answers import fingerprint
from cookbook.lessons import teach_files as teach_files
from cookbook.task_file import Task as Task
from cookbook.task_file import read_task as read_task

_WORK = {
    "write": task_texts.write,
    "check": task_texts.check,
    "train": task_model.train,
    "teach": task_model.teach,
    "measure": task_model.measure,
    "trust": task_model.trust,
    "export": task_model.export,
    "card": task_model.card,
}
STEPS = tuple(_WORK)


@dataclass
class Made:
    """What `make` made, and where it lies; prints as a summary."""

    folder: Path
    done: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name:<8} {told}" for name, told in self.done.items()]
        return "\n".join([f"Everything is in {self.folder}", *lines])


def make(path: str | Path, only: Sequence[str] = STEPS) -> Made:
    """Make a measured model of a task, step by step, and say where everything lies.

    The steps: `write` texts with the LLM (or take yours, or let it annotate them), `check` them,
    `train` by running a notebook, `teach` with unlabelled texts, `measure`, see how far to `trust`
    it, `export` to int8, and lay out a `card`. What hasn't changed isn't done again. Killed at any
    moment, the same call goes on where it was.

    Args:
        path: A file as for `read_task`; a folder of the task's name is made beside it.
        only: Steps to do; the others must have been done.

    Raises:
        ValueError, OSError, RuntimeError: As `read_task` and the work of a step.
    """
    task = read_task(path)
    folder = task.folder
    if unknown := set(only) - set(STEPS):
        raise ValueError(f"There are no steps {sorted(unknown)}; there are {', '.join(STEPS)}.")
    made = Made(folder)
    with tables.lock(folder / "steps.json"):
        for name in STEPS:
            if name not in only:
                continue
            shaped_by, product, work = _WORK[name](task)
            key, state = fingerprint(name, shaped_by), tables.read_json(folder / "steps.json")
            if state.get(name, {}).get("shaped_by") != key or not product.exists():
                tqdm.write(f"{name} …")
                state.pop(name, None)  # so that what a kill leaves isn't taken for done
                tables.write_json(folder / "steps.json", state)
                start = time.perf_counter()
                told = work()
                state[name] = {
                    "shaped_by": key,
                    "told": told,
                    "seconds": round(time.perf_counter() - start),
                }
                tables.write_json(folder / "steps.json", state)
            made.done[name] = state[name]["told"]
    return made


def estimate(path: str | Path, questions: int = 10) -> str:
    """Say beforehand what a task will take: a few questions are asked, a few batches trained on.

    Args:
        path: A file as for `read_task`.
        questions: How many are asked.

    Returns:
        Questions, tokens, dollars (where the task has a price) and hours, a line each.

    Raises:
        ValueError, OSError, RuntimeError: As `synthesis.generate_texts`.
    """
    task = read_task(path)
    told, asked = [], not task.texts or (task.fields and task.llm)
    if asked:
        a_question = (task.llm and task.llm.per_call) or (10 if task.fields else 1)
        with TemporaryDirectory() as folder:
            few = max(1, questions // max(len(task.labels), 1))
            rows, runs = task_texts.asked(task, Path(folder), few, a_question * questions)
        if rows.empty:
            why = runs[-1].reasons.index[0]
            raise RuntimeError(
                f"No answer can be used, most of them for: {why}. Try another model."
            )
        wanted = task.per_label * len(task.labels)
        if task.fields:
            wanted = tables.read(task.texts, ["text"])["text"].nunique()
        told += _questions(task, wanted, rows, runs)
    else:
        rows = task_texts.usable(task, task_texts.texts_of(task))
        wanted = len(rows)
        told.append(f"{wanted:,} texts of your own: no LLM is asked.")
    try:
        told.append(task_model.training_hours(task, rows["text"].tolist(), wanted))
    except OSError as error:
        told.append(f"hours of training: unknown, {task.base_model} can't be had: {error}")
    return "\n".join(told)


def _questions(task: Task, wanted: int, rows: Any, runs: list[Any]) -> list[str]:
    """Work out from a few answers what all of them will take."""
    bad, times = sum(len(run.rejected) for run in runs), wanted / len(rows)
    lines = [f"{len(rows)} texts can be used, {bad} answers can't"]
    asked = sum(run.questions for run in runs)
    lines.append(f"{wanted:,} texts: some {asked * times:,.0f} questions")
    read, written = task_texts.tokens(runs)
    if written:
        lines.append(f"tokens: {read * times:,.0f} read, {written * times:,.0f} written")
        if task.llm and task.llm.price:
            dollars = (read * task.llm.price[0] + written * task.llm.price[1]) * times / 1e6
            lines.append(f"dollars: {dollars:,.2f}")
    lines.append(f"hours of asking: {sum(run.seconds for run in runs) * times / 3600:,.2g}")
    return lines
