"""The commands that make a model of a task, teach one, or let a person decide."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

import cookbook  # whose modules load where a command needs them
from cookbook.commands import Keywords, Seed, Task, Text, command


@command
def teach(
    models: Annotated[list[str], Argument(help="Fine-tuned models of one kind; or a task.")],
    unlabelled: Annotated[str, Option(help="Table of texts, or a folder or store of them.")] = "",
    labelled: Annotated[str, Option(help="Table of labelled texts, which teach and watch.")] = "",
    measured: Annotated[list[str] | None, Option(help="Texts to stay unseen; repeatable.")] = None,
    out: Annotated[Path, Option(help="Folder for the rounds.")] = Path("taught"),
    base: Annotated[str, Option(help="What a student starts as, else the first model.")] = "",
    sample: Annotated[int, Option(help="Unlabelled texts to take, at random.")] = 8000,
    rounds: Annotated[int, Option(help="Rounds at most.")] = 2,
    sure: Annotated[float, Option(help="From which a text teaches, but in the last round.")] = 0.8,
    epochs: Annotated[float, Option(help="Of each student.")] = 3,
    learning_rate: Annotated[float, Option(help="Of each student.")] = 5e-5,
    text: Text = "text",
    label: Annotated[str, Option(help="Name of the column of labels.")] = "label",
    keywords: Keywords = None,
    seed: Seed = 0,
) -> Any:
    """Teach a model on texts without labels.

    The models label the texts; a student learns that, and teaches the next round, for as long as it
    helps. A part of the labelled texts watches over the rounds. Without --labelled, a fifth of the
    texts with the models' own labels stands in for them: what the models have wrong then goes
    unseen. It can be stopped at any time; the same command goes on where it was.

    Example:
        cookbook teach out/clickbait/model --unlabelled headlines.csv --labelled titles.csv
    """
    if models[0].endswith(".toml"):
        return cookbook.tasks.make(models[0], ["teach"])
    if not unlabelled:
        raise ValueError("Texts to learn from are missing: name a table with --unlabelled.")
    settings = {"num_train_epochs": epochs, "learning_rate": learning_rate}
    columns = {"text": text, "label": label, "keywords": keywords}
    options: dict[str, Any] = {"out": out, "base": base, "sample": sample, "seed": seed, **columns}
    options |= {"settings": settings, "rounds": rounds, "sure": sure}
    with redirect_stdout(sys.stderr):  # where the Trainer's log belongs
        teach_files = cookbook.tasks.teach_files
        result = teach_files(models, unlabelled, labelled or None, measured or [], **options)
    typer.echo(result)
    return result.models[result.best][0]


@command
def new(path: Annotated[Path, Argument(help="File to write.")] = Path("task.toml")) -> Any:
    """Write a task to fill in: what a model is to tell apart, and what is at hand.

    Example:
        cookbook new help-desk.toml
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already: name another file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(cookbook.annotation.asset("task.toml") + "\n", "utf-8")
    return path


@command
def make(
    task: Task,
    only: Annotated[list[str] | None, Option(help="A step to do alone; repeatable.")] = None,
    estimate: Annotated[
        bool, Option("--estimate", help="Ask ten questions, and work it out.")
    ] = False,
) -> Any:
    """Make a measured model of a task: from a file of labels to a card, step by step.

    write (an LLM writes the texts or annotates yours, or yours are taken), check, train (a notebook
    is run; its HTML is the report), teach (with unlabelled texts), measure, trust (from which score
    on it is sure), export (int8), card. Each step is a command of its own too. It can be stopped at
    any time; the same command goes on where it was, and what hasn't changed isn't done again.

    Example:
        cookbook new help-desk.toml
        cookbook make help-desk.toml --estimate
        cookbook make help-desk.toml
        cookbook train help-desk.toml
    """
    if estimate:
        return cookbook.tasks.estimate(task)
    return cookbook.tasks.make(task, only or cookbook.tasks.STEPS)


def _step(name: str, told: str) -> None:
    """Make a step of `make` a command of its own."""

    def work(task: Task) -> Any:
        return cookbook.tasks.make(task, [name])

    work.__name__, work.__doc__ = name, f"{told}\n\nExample:\n    cookbook {name} help-desk.toml\n"
    command(work)


_step("write", "Let an LLM write the texts of a task, or annotate yours: the first step of `make`.")
_step("train", "Fine-tune the model of a task by running a notebook, whose HTML is the report.")
_step("measure", "Measure the model of a task on its test split, and on what a person labelled.")
_step("trust", "Calibrate the model of a task; promise what the texts by a person allow.")
_step("card", "Lay out the model of a task with its card, to be pushed.")


@command
def review(
    file: Annotated[str, Argument(help="Table of texts: CSV, JSONL or Parquet.")],
    text: Text = "text",
    label: Annotated[str, Option(help="Name of the column of labels.")] = "label",
    several: Annotated[bool, Option("--several", help="A text may have several: 'a|b'.")] = False,
    keywords: Keywords = None,
    model: Annotated[str, Option(help="A model, to decide on its answers.")] = "",
    sample: Annotated[int | None, Option(help="Texts to draw at random, to measure on.")] = None,
    out: Annotated[Path | None, Option(help="Decisions, else FILE.review.csv.")] = None,
    by: Annotated[str, Option(help="Who decides, else this account's name.")] = "",
    report: Annotated[bool, Option("--report", help="Say what was decided, and end.")] = False,
    apply: Annotated[Path | None, Option(help="Write the table as decided, and end.")] = None,
    beside: Annotated[Path | None, Option(help="Another's decisions: how far both agree.")] = None,
    port: Annotated[int | None, Option(help="Port, else the first free from 7860.")] = None,
    seed: Seed = 0,
) -> Any:
    """Decide row by row, on a page: accept, correct, reject, skip, undo; a key for each.

    The doubtful rows come first; with --model the texts that it is least sure of; with --sample a
    draw at random, whose report says how often the labels, or the model, are right. Every decision
    is on disk at once. Ctrl-C ends it; the same command goes on where it was.

    Example:
        cookbook review titles.csv
        cookbook review posts.csv --keywords keywords
        cookbook review headlines.csv --model out/clickbait/model --sample 100
        cookbook review titles.csv --report
        cookbook review titles.csv --apply reviewed.csv
    """
    reviews = cookbook.review
    columns: dict[str, Any] = {"text": text, "label": label, "keywords": keywords}
    path = out or Path(file).with_suffix(".review.csv")
    if beside:
        return reviews.agreement(path, beside, keywords=bool(keywords))
    if apply:
        cookbook.tables.write(reviews.apply(file, path, **columns), apply)
        return apply
    if report:
        return reviews.report(path)
    about: dict[str, Any] = {"several": several, "model": model or None, "sample": sample}
    rows = reviews.queue(file, **columns, **about, seed=seed)
    from cookbook.review_page import build  # gradio takes seconds to load

    names, several = reviews.choices(file, label, keywords, model, several)
    with reviews.open_review(rows, path, names, several=several, by=by) as opened:
        build(opened, Path(file).name).launch(server_port=port)
    raise typer.Exit(130)  # it serves until Ctrl-C
