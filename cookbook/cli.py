"""The command `cookbook`: the package's work without a line of Python. See `cookbook --help`."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import wraps
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

import cookbook  # whose modules load where a command needs them

app = typer.Typer(
    help="""Write data with a local LLM, check it, and use the small models made from it.

    \b
    cookbook titles --per-label 500 --out titles.csv
    cookbook check titles.csv
    cookbook page out/clickbait/model
    cookbook answer titles.csv answered.csv out/clickbait/model

    `cookbook COMMAND --help` says more. Exit status: 0 done, 1 an error, 2 a command that was
    mistyped, 130 stopped with Ctrl-C.""",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_Task = Annotated[Path, Argument(help="A file such as `cookbook new` writes.")]
_Model = Annotated[str, Argument(help="A saved or exported model, or its name on the Hub.")]
_Text = Annotated[str, Option(help="Name of the column of texts.")]
_Keywords = Annotated[str | None, Option(help="Column of keywords, in place of labels.")]
_Llm = Annotated[str, Option(help="An Ollama model; get it with: ollama pull MODEL")]
_Host = Annotated[list[str] | None, Option(help="Ollama's address, else OLLAMA_HOST; repeatable.")]
_BaseUrl = Annotated[list[str] | None, Option(help="An OpenAI-compatible server; repeatable.")]
_Key = Annotated[str, Option(help="Environment variable that holds that server's key.")]
_Repo = Annotated[str | None, Argument(help="your-name/its-name; none for a laid-out folder.")]
_Kind = Literal["model", "dataset", "space"]
_Out = Annotated[Path, Option(help="CSV to write, or to go on with.")]
_Concurrency = Annotated[int, Option(help="Questions at once; see OLLAMA_NUM_PARALLEL.")]
_Timeout = Annotated[float, Option(help="Seconds that an answer may take.")]
_Seed = Annotated[int, Option(help="The first seed.")]


def main() -> None:
    """Run the command line; after an error or Ctrl-C, questions under way aren't waited for."""
    if not sys.stderr.isatty():  # a log, say: a line a minute, not one a tick
        for name in ("DELAY", "MININTERVAL", "MAXINTERVAL"):
            os.environ.setdefault(f"TQDM_{name}", "60")
    try:
        app()
    except SystemExit as end:
        if end.code:
            sys.stdout.flush()
            os._exit(int(end.code))
        raise


def _command(work: Callable[..., Any]) -> Callable[..., None]:
    """Make a command that prints what a function returns; errors and warnings are a line each."""

    @app.command(help=cleandoc(work.__doc__ or "").replace("Example:", "\b\nExample:"))
    @wraps(work)
    def run(**options: Any) -> None:
        def tell(message: str) -> None:
            # What functions call `text=` is an option here.
            message = re.sub(rf"\b({'|'.join(options)})=(?=[,.\s])", r"--\1", message)
            typer.echo(" ".join(message.split()), err=True)

        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: tell(f"Warning: {message}")
            try:
                typer.echo(work(**options))
            except typer.Exit:
                raise
            except Exception as error:  # whoever typed a command wants no traceback
                fault = isinstance(error, (AttributeError, IndexError, KeyError, TypeError))
                tell(f"Error: {error!r}" if fault else f"Error: {error}")
                raise typer.Exit(1) from None

    return run


@_command
def titles(
    model: _Llm = "phi3",
    per_label: Annotated[int, Option(help="Usable titles wanted per label.")] = 500,
    out: _Out = Path("titles.csv"),
    topics: Annotated[Path | None, Option(help="Text file with a topic on a line.")] = None,
    per_call: Annotated[int, Option(help="Titles per question; 1 is the most varied.")] = 1,
    temperature: Annotated[float, Option(help="Above 0; higher is more varied.")] = 0.9,
    seed: _Seed = 0,
    concurrency: _Concurrency = 4,
    host: _Host = None,
    base_url: _BaseUrl = None,
    key: _Key = "OPENAI_API_KEY",
    timeout: _Timeout = 120,
) -> Any:
    """Let an LLM write clickbait and factual titles.

    As many of one kind as of the other. The CSV has the columns text, label, topic, style, model,
    prompt_version and seed. What was rejected lies beside it, in NAME.rejected.csv, with the
    reason. It can be stopped at any time; the same command goes on where it was.

    Example:
        cookbook titles --model phi3 --per-label 500 --out titles.csv
        cookbook titles --topics topics.txt --out mine.csv
        cookbook titles --model gpt-4o --base-url https://api.openai.com/v1
    """
    options = _server(locals())
    options["topics"] = _lines(topics) if topics else cookbook.synthesis.TOPICS
    return cookbook.synthesis.generate_texts(**options)


def _server(options: dict[str, Any]) -> dict[str, Any]:
    """Connect with an OpenAI-compatible server; the rest is named as the function's parameters."""
    base_url, key = options.pop("base_url"), options.pop("key")
    options["host"] = options["host"] or None
    if base_url:
        about = {"timeout": options["timeout"], "base_url": base_url, "key": key}
        options["model"] = cookbook.llm.connect(options["model"], **about)
    return options


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} isn't UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    return [line.strip() for line in lines if line.strip()]


@_command
def annotate(
    texts: Annotated[str, Option("--in", help="Table with a column of texts.")],
    model: _Llm = "phi3",
    out: _Out = Path("annotated.csv"),
    text: _Text = "text",
    per_call: Annotated[int, Option(help="Texts per question.")] = 10,
    seed: _Seed = 0,
    concurrency: _Concurrency = 4,
    host: _Host = None,
    base_url: _BaseUrl = None,
    key: _Key = "OPENAI_API_KEY",
    timeout: _Timeout = 300,
) -> Any:
    """Let an LLM give texts keywords, a topic and a summary.

    All columns of the table are kept. What couldn't be annotated lies beside the result, in
    NAME.rejected.csv, with the reason. It can be stopped at any time; the same command goes on
    where it was.

    Example:
        cookbook annotate --model phi3 --in posts.csv --out annotated.csv
    """
    return cookbook.synthesis.annotate(**_server(locals()))


@_command
def check(
    file: Annotated[str, Argument(help="Table of labelled texts; or a task, for its step.")],
    text: _Text = "text",
    label: Annotated[str, Option(help="Name of the column of labels.")] = "label",
    several: Annotated[bool, Option("--several", help="A text may have several: 'a|b'.")] = False,
    keywords: _Keywords = None,
) -> Any:
    """Say what is wrong with a data set.

    Giveaways, duplicates and contradictions; with --keywords, what makes these no good targets.
    Exit status: 0 where no problem was found, 1 where there is one.

    Example:
        cookbook check titles.csv
        cookbook check posts.csv --text body --keywords tags
    """
    if file.endswith(".toml"):
        return cookbook.tasks.make(file, ["check"])
    if keywords:
        report = cookbook.quality.check_keywords(file, text=text, keywords=keywords)
    else:
        report = cookbook.quality.check(file, text=text, label=label, several=several)
    typer.echo(report)
    raise typer.Exit(int(not report.ok))


@_command
def answer(
    source: Annotated[str, Argument(help="Table of texts: CSV, JSONL or Parquet.")],
    target: Annotated[Path, Argument(help="File to write: .csv, .jsonl or .parquet.")],
    model: _Model,
    text: _Text = "text",
) -> Any:
    """Answer every text of a table with a model.

    All columns are kept, and the answers added: label, score and a column per label, or keywords.
    It can be stopped at any time; the same command goes on where it was.

    Example:
        cookbook answer titles.csv answered.csv out/clickbait/model
    """
    return cookbook.inference.answer_file(**locals())


@_command
def teach(
    models: Annotated[list[str], Argument(help="Fine-tuned models of one kind; or a task.")],
    unlabelled: Annotated[str, Option(help="Table of texts: CSV, JSONL or Parquet.")] = "",
    labelled: Annotated[str, Option(help="Table of labelled texts, which teach and watch.")] = "",
    measured: Annotated[list[str] | None, Option(help="Texts to stay unseen; repeatable.")] = None,
    out: Annotated[Path, Option(help="Folder for the rounds.")] = Path("taught"),
    base: Annotated[str, Option(help="What a student starts as, else the first model.")] = "",
    sample: Annotated[int, Option(help="Unlabelled texts to take, at random.")] = 8000,
    rounds: Annotated[int, Option(help="Rounds at most.")] = 2,
    sure: Annotated[float, Option(help="From which a text teaches, but in the last round.")] = 0.8,
    epochs: Annotated[float, Option(help="Of each student.")] = 3,
    learning_rate: Annotated[float, Option(help="Of each student.")] = 5e-5,
    text: _Text = "text",
    label: Annotated[str, Option(help="Name of the column of labels.")] = "label",
    keywords: _Keywords = None,
    seed: _Seed = 0,
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


@_command
def new(
    path: Annotated[Path, Argument(help="File to write.")] = Path("task.toml"),
) -> Any:
    """Write a task to fill in: what a model is to tell apart, and what is at hand.

    Example:
        cookbook new help-desk.toml
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already: name another file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(cookbook.annotation.asset("task.toml") + "\n", "utf-8")
    return path


@_command
def make(
    task: _Task,
    only: Annotated[list[str] | None, Option(help="A step to do alone; repeatable.")] = None,
    estimate: Annotated[
        bool, Option("--estimate", help="Ask ten questions, and work it out.")
    ] = False,
) -> Any:
    """Make a measured model of a task: from a file of labels to a card, step by step.

    write (an LLM writes the texts or annotates yours, or yours are taken), check, train (a notebook
    is run; its HTML is the report), teach (with unlabelled texts), measure, export (int8), card.
    Each step is a command of its own too. It can be stopped at any time; the same command goes on
    where it was, and what hasn't changed isn't done again.

    Example:
        cookbook new help-desk.toml
        cookbook make help-desk.toml --estimate
        cookbook make help-desk.toml
        cookbook train help-desk.toml
    """
    if estimate:
        return cookbook.tasks.estimate(task)
    return cookbook.tasks.make(task, only or cookbook.tasks.STEPS)


@_command
def write(task: _Task) -> Any:
    """Let an LLM write the texts of a task, or annotate yours: the first step of `make`.

    Example:
        cookbook write help-desk.toml
    """
    return cookbook.tasks.make(task, ["write"])


@_command
def train(task: _Task) -> Any:
    """Fine-tune the model of a task by running a notebook, whose HTML is the report.

    Example:
        cookbook train help-desk.toml
    """
    return cookbook.tasks.make(task, ["train"])


@_command
def measure(task: _Task) -> Any:
    """Measure the model of a task on its test split, and on what a person labelled.

    Example:
        cookbook measure help-desk.toml
    """
    return cookbook.tasks.make(task, ["measure"])


@_command
def card(task: _Task) -> Any:
    """Lay out the model of a task with its card, to be pushed.

    Example:
        cookbook card help-desk.toml
    """
    return cookbook.tasks.make(task, ["card"])


@_command
def page(
    model: _Model,
    port: Annotated[int | None, Option(help="Port, else the first free from 7860.")] = None,
    host: Annotated[str, Option(help="0.0.0.0 for the whole network.")] = "127.0.0.1",
    share: Annotated[bool, Option(help="Make a public address, through gradio.")] = False,
    title: Annotated[str | None, Option(help="Heading of the page.")] = None,
    example: Annotated[list[str] | None, Option(help="A text to click; repeatable.")] = None,
) -> None:
    """Serve a web page for a classifier or keyword model. Ctrl-C ends it.

    Example:
        cookbook page out/clickbait/model
        cookbook page you/clickbait --title "Bait?" --example "A title" --example "Another"
    """
    served = cookbook.page.build(model, examples=example, title=title)
    served.launch(server_name=host, server_port=port, share=share)
    raise typer.Exit(130)  # it serves until Ctrl-C


@_command
def export(
    model: Annotated[str, Argument(help="A saved model, or its name on the Hub; or a task.")],
    folder: Annotated[Path | None, Argument(help="Folder to write.")] = None,
    int8: Annotated[bool, Option(help="Smaller and faster, and nearly as exact.")] = True,
) -> Any:
    """Export a model so that it answers without torch.

    One that classifies or marks becomes ONNX, one that writes CTranslate2.

    Example:
        cookbook export out/clickbait/model out/clickbait/onnx
        cookbook export out/clickbait/model out/clickbait/exact --no-int8
    """
    if model.endswith(".toml"):
        return cookbook.tasks.make(model, ["export"])
    if folder is None:
        raise ValueError("A folder to write is missing: cookbook export MODEL FOLDER")
    loaded = cookbook.inference.load(model)
    if loaded.kind != "writer":
        return cookbook.export.export_onnx(loaded, folder, int8=int8)
    quantization = "int8" if int8 else None
    return cookbook.export.export_ctranslate2(loaded, folder, quantization=quantization)


@_command
def push(
    source: Annotated[str, Argument(help="A model's folder, a table, or a model's name.")],
    repo_id: _Repo = None,
    kind: Annotated[_Kind, Option(help="A space is a model's page.")] = "model",
    provenance: Annotated[str, Option(help="Of a data set: who wrote it, and how.")] = "",
    keywords: _Keywords = None,
    license: Annotated[str | None, Option(help="The Hub's name of it, as cc0-1.0.")] = None,
    private: Annotated[bool | None, Option("--private", help="Only you see it.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Only lay out the folder.")] = False,
) -> Any:
    """Push a model, a data set or a page to the Hub.

    It is laid out with a card in a folder, to_push, and pushed from there. With --dry-run you can
    look at it first, and change the card; then push that folder.

    Example:
        cookbook push out/clickbait/model you/clickbait --license mit --dry-run
        cookbook push to_push/models/clickbait
        cookbook push titles.csv you/titles --kind dataset --provenance "Written by phi3."
        cookbook push you/clickbait you/page --kind space
    """
    hub = cookbook.hub
    if repo_id is None:
        folder = Path(source)
    elif kind == "model":
        folder = hub.stage_model(source, repo_id, license=license)
    elif kind == "space":
        folder = hub.stage_page(source, repo_id, license=license)
    elif provenance:
        columns = {"label": None if keywords else "label", "keywords": keywords}
        about = {"provenance": provenance, "license": license}
        folder = hub.stage_dataset(source, repo_id, **columns, **about)
    else:
        raise ValueError("Say with provenance= who wrote the data, and how.")
    return folder if dry_run else hub.push(folder, private=private)


if __name__ == "__main__":
    main()
