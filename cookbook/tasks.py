"""A task from a file: texts written or taken, checked, trained on, measured, exported, staged."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm.auto import tqdm

from cookbook import steps, tables
from cookbook.answers import fingerprint
from cookbook.lessons import teach_files as teach_files
from cookbook.task_file import Task as Task
from cookbook.task_file import read_task as read_task

STEPS = ("write", "check", "train", "teach", "measure", "export", "card")


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

    The steps: `write` texts with the LLM (or take yours), `check` them, `train` by running a
    notebook, `teach` with unlabelled texts, `measure`, `export` to int8, and lay out a `card`. What
    hasn't changed isn't done again. Killed at any moment, the same call goes on where it was.

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
            shaped_by, product, work = getattr(steps, name)(task)
            key, state = fingerprint(name, shaped_by), _state(folder)
            if state.get(name, {}).get("shaped_by") != key or not product.exists():
                tqdm.write(f"{name} …")
                state.pop(name, None)  # so that what a kill leaves isn't taken for done
                _keep(folder, state)
                start = time.perf_counter()
                told = work()
                state[name] = {
                    "shaped_by": key,
                    "told": told,
                    "seconds": round(time.perf_counter() - start),
                }
                _keep(folder, state)
            made.done[name] = state[name]["told"]
    return made


def estimate(path: str | Path, questions: int = 10) -> str:
    """Say beforehand what the texts of a task will take, from a few measured questions.

    Args:
        path: A file as for `read_task`.
        questions: How many are asked.

    Raises:
        ValueError, OSError, RuntimeError: As `synthesis.generate_texts`; the task has texts.
    """
    task = read_task(path)
    if task.texts:
        raise ValueError(f"{path} brings its own texts: no LLM is asked.")
    with TemporaryDirectory() as folder:
        few = max(1, questions // len(task.labels))
        run = steps.written(task, few, Path(folder) / "texts.csv")
    asked = len(run.rows) + len(run.rejected)
    wanted = task.per_label * len(task.labels)
    times = wanted / len(run.rows)
    lines = [f"{len(run.rows)} of {asked} answers of {run.rows['model'].iloc[0]} can be used."]
    lines.append(f"{wanted:,} texts: some {asked * times:,.0f} questions")
    if run.output_tokens:
        read, written = run.input_tokens * times, run.output_tokens * times
        lines.append(f"tokens: {read:,.0f} read, {written:,.0f} written")
        if task.llm and task.llm.price:
            dollars = (read * task.llm.price[0] + written * task.llm.price[1]) / 1e6
            lines.append(f"dollars: {dollars:,.2f}")
    lines.append(f"hours: {run.seconds * times / 3600:,.2g}")
    return "\n".join(lines)


def _state(folder: Path) -> dict[str, Any]:
    path = folder / "steps.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _keep(folder: Path, state: dict[str, Any]) -> None:
    content = json.dumps(state, indent=1, ensure_ascii=False)
    path = folder / "steps.json"
    tables.write_atomically(path, lambda half: half.write_text(content, "utf-8"))
