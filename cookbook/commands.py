"""What the commands share: the app, how a command is made, and options that several have."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import wraps
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

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
Task = Annotated[Path, Argument(help="A file such as `cookbook new` writes.")]
Model = Annotated[str, Argument(help="A saved or exported model, or its name on the Hub.")]
Text = Annotated[str, Option(help="Name of the column of texts.")]
Keywords = Annotated[str | None, Option(help="Column of keywords, in place of labels.")]
Llm = Annotated[str, Option(help="An Ollama model; get it with: ollama pull MODEL")]
Host = Annotated[list[str] | None, Option(help="Ollama's address, else OLLAMA_HOST; repeatable.")]
BaseUrl = Annotated[list[str] | None, Option(help="An OpenAI-compatible server; repeatable.")]
Key = Annotated[str, Option(help="Environment variable that holds that server's key.")]
Repo = Annotated[str | None, Argument(help="your-name/its-name; none for a laid-out folder.")]
Kind = Literal["model", "dataset", "space"]
Out = Annotated[Path, Option(help="CSV to write, or to go on with.")]
Concurrency = Annotated[int, Option(help="Questions at once, a server; see OLLAMA_NUM_PARALLEL.")]
Timeout = Annotated[float, Option(help="Seconds that an answer may take.")]
Seed = Annotated[int, Option(help="The first seed.")]


def command(work: Callable[..., Any]) -> Callable[..., None]:
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
