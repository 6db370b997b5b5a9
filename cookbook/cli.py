"""The command `cookbook`: the package's work without a line of Python. See `cookbook --help`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

import cookbook  # whose modules load where a command needs them
from cookbook import task_commands as task_commands
from cookbook.commands import (
    BaseUrl,
    Concurrency,
    Host,
    Key,
    Keywords,
    Kind,
    Llm,
    Model,
    Out,
    Repo,
    Seed,
    Text,
    Timeout,
    command,
)
from cookbook.commands import app as app


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


@command
def titles(
    model: Llm = "phi3",
    per_label: Annotated[int, Option(help="Usable titles wanted per label.")] = 500,
    out: Out = Path("titles.csv"),
    topics: Annotated[Path | None, Option(help="Text file with a topic on a line.")] = None,
    per_call: Annotated[int, Option(help="Titles per question; 1 is the most varied.")] = 1,
    temperature: Annotated[float, Option(help="Above 0; higher is more varied.")] = 0.9,
    seed: Seed = 0,
    concurrency: Concurrency = 4,
    host: Host = None,
    base_url: BaseUrl = None,
    key: Key = "OPENAI_API_KEY",
    timeout: Timeout = 120,
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
    options["topics"] = cookbook.tables.lines_of(topics) if topics else cookbook.synthesis.TOPICS
    return cookbook.synthesis.generate_texts(**options)


def _server(options: dict[str, Any]) -> dict[str, Any]:
    """Connect with an OpenAI-compatible server; the rest is named as the function's parameters."""
    base_url, key = options.pop("base_url"), options.pop("key")
    options["host"] = options["host"] or None
    if base_url:
        about = {"timeout": options["timeout"], "base_url": base_url, "key": key}
        options["model"] = cookbook.llm.connect(options["model"], **about)
    return options


@command
def annotate(
    texts: Annotated[str, Option("--in", help="Table with a column of texts.")],
    model: Llm = "phi3",
    out: Out = Path("annotated.csv"),
    text: Text = "text",
    per_call: Annotated[int, Option(help="Texts per question.")] = 10,
    seed: Seed = 0,
    concurrency: Concurrency = 4,
    host: Host = None,
    base_url: BaseUrl = None,
    key: Key = "OPENAI_API_KEY",
    timeout: Timeout = 300,
) -> Any:
    """Let an LLM give texts keywords, a topic and a summary.

    All columns of the table are kept. What couldn't be annotated lies beside the result, in
    NAME.rejected.csv, with the reason. It can be stopped at any time; the same command goes on
    where it was.

    Example:
        cookbook annotate --model phi3 --in posts.csv --out annotated.csv
    """
    return cookbook.synthesis.annotate(**_server(locals()))


@command
def check(
    file: Annotated[str, Argument(help="Table of labelled texts; or a task, for its step.")],
    text: Text = "text",
    label: Annotated[str, Option(help="Name of the column of labels.")] = "label",
    several: Annotated[bool, Option("--several", help="A text may have several: 'a|b'.")] = False,
    keywords: Keywords = None,
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


@command
def answer(
    source: Annotated[str, Argument(help="Table of texts (CSV, JSONL, Parquet), or many of them.")],
    target: Annotated[str, Argument(help="File to write; of many the folder, or its address.")],
    model: Model,
    text: Text = "text",
    encoding: Annotated[str, Option(help="Of a CSV that isn't UTF-8, such as cp1252.")] = "",
    ray: Annotated[str | None, Option(help="Of many: a Ray cluster's address.")] = None,
) -> Any:
    """Answer every text of a table, or of a folder of them, with a model.

    All columns are kept, and the answers added: label, score and a column per label, or keywords.
    It can be stopped at any time; the same command goes on where it was. Many tables are a folder,
    a pattern in quotation marks, or an address (s3://, gs://, hf://); one that can't be read is set
    aside, and the exit status is 1.

    Example:
        cookbook answer titles.csv answered.csv out/clickbait/model
        cookbook answer "s3://mine/2026/*.parquet" s3://mine/answered out/clickbait/int8 --ray auto
    """
    options: dict[str, Any] = {"text": text, **({"encoding": encoding} if encoding else {})}
    if not (cookbook.lake.is_lake(source) or ray):
        return cookbook.inference.answer_file(source, target, model, **options)
    done = cookbook.lake.answer_lake(source, target, model, ray=ray, **options)
    typer.echo(done)
    raise typer.Exit(int(not done.ok))


@command
def notebooks(
    folder: Annotated[Path, Argument(help="Folder to write; made where it is missing.")],
) -> Any:
    """Copy the notebooks out of the package, to be opened and changed.

    What is there already and differs is left alone, and then nothing is copied.

    Example:
        cookbook notebooks my_notebooks
    """
    return "\n".join(map(str, cookbook.data.copy_notebooks(folder)))


@command
def page(
    model: Model,
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


@command
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


@command
def push(
    source: Annotated[str, Argument(help="A model's folder, a table, or a model's name.")],
    repo_id: Repo = None,
    kind: Annotated[Kind, Option(help="A space is a model's page.")] = "model",
    provenance: Annotated[str, Option(help="Of a data set: who wrote it, and how.")] = "",
    keywords: Keywords = None,
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
