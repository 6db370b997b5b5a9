"""A web page for a fine-tuned model: one text, or a CSV of many.

From the command line: `python -m cookbook.demo MODEL`. It needs gradio, which
`pip install "small-model-cookbook[deploy]"` brings.
"""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import typer

if TYPE_CHECKING:
    import gradio as gr

# In bytes. Two CPU cores answer some 100,000 titles, or 20,000 posts, in a quarter of an hour.
_LARGEST = 5 * 2**20
_SHOWN = 10  # rows of a preview

_TITLES = (
    "You've been peeling garlic wrong, and a chef can prove it",
    "Council approves 40-bed extension to county hospital",
    "Nobody expected what this bus driver did on her last day",
    "Rail freight volumes rise 3% in the second quarter",
)
_POSTS = (
    "After two years on Vercel we moved our Next.js shop to a Hetzner box with Docker and Caddy. "
    "The bill went from 300 to 12 euros a month, and builds use our own cache at last.",
    "Got Home Assistant to talk to the old Zigbee bulbs. A Sonoff dongle and Zigbee2MQTT in a "
    "container did it, no cloud account needed.",
    "Has anyone compared pandas and Polars on a 20 GB Parquet file? DuckDB read it in nine seconds "
    "here and I don't quite believe it.",
)


def build(
    model: str | Path, *, examples: Sequence[str] | None = None, title: str | None = None
) -> gr.Blocks:
    """Make the page; `build(model).launch()` serves it.

    It is made for the kind of model that is found: a sequence classifier answers with the
    probability of every label, a seq2seq model with keywords, marked in the text. Model and
    tokenizer are loaded once. Nothing is asked of other servers: no analytics, no fonts. What is
    uploaded, and what comes of it, is deleted within two hours.

    Args:
        model: The folder of a saved model and tokenizer, or its name on the Hub; or the folder of
            `inference.export_onnx` or `inference.export_ctranslate2`, which needs no torch.
        examples: Texts to click; None for a few that suit the cookbook's two models.
        title: Heading; None for one made of the labels.

    Returns:
        The page. Its `launch` takes what gradio's does; theme, style and the largest upload (5 MB)
        are set, and can be set otherwise there.

    Raises:
        ModuleNotFoundError: gradio isn't installed; says how to install it.
        ValueError: The model neither classifies texts nor writes any.
        OSError: There is no such model; says so.

    Example:
        >>> page = build("out/clickbait/model", title="Clickbait?")  # doctest: +SKIP
        >>> page.launch(inbrowser=True)  # doctest: +SKIP
    """
    gr = _gradio()
    network, tokenizer, classifies = _loaded(model)
    if classifies:
        labels = list(_labelled([""], network, tokenizer).columns[2:])
        heading = f"{' or '.join(labels)}?" if len(labels) < 4 else "Which label?"
        told = f"Says which of these a text is, and how sure it is: {', '.join(labels)}."
        one: Any = _probabilities
        many = _labelled
    else:
        heading = "Keywords of a text"
        told = "Reads a short text and writes its keywords."
        one = _keywords_marked
        many = _keywords_joined
    title = title or heading[0].upper() + heading[1:]
    samples = list(examples or (_TITLES if classifies else _POSTS))

    def answer(text: str) -> Any:
        if not (text or "").strip():
            gr.Info("There is no text yet: type or paste one, or click an example.")
            return None
        return one(text, network, tokenizer)

    def preview(path: str | None) -> tuple[Any, ...]:
        return ("" if path is None else _table(_read(path))), *forget()

    def forget() -> tuple[Any, ...]:
        return gr.update(value=None, visible=False), ""

    def answer_all(
        path: str | None,
        column: str,
        progress: Any = gr.Progress(track_tqdm=True),  # noqa: B008 - where gradio looks for it
    ) -> tuple[Any, ...]:
        if path is None:
            gr.Info("There is no file yet: drop a CSV, or click to choose one.")
            return gr.skip(), gr.skip(), gr.skip()
        frame = _read(path)
        texts = _column(frame, column.strip(), Path(path).name)
        written = texts.str.strip() != ""
        answers = many(list(texts[written]), network, tokenizer)
        answers = answers.set_index(texts.index[written]).reindex(texts.index)
        names = {name: name for name in answers}
        while taken := [name for name in names if names[name] in frame]:
            names |= {name: f"model_{names[name]}" for name in taken}
        answered = frame.join(answers.rename(columns=names))
        # Within gradio's own folder, where it deletes what is old.
        out = Path(tempfile.mkdtemp(dir=upload.GRADIO_CACHE)) / f"{Path(path).stem}_answered.csv"
        quoting: Any = csv.QUOTE_NONNUMERIC  # or a lone carriage return would break a row
        answered.to_csv(out, index=False, quoting=quoting, encoding="utf-8-sig")  # Excel's mark
        summary = f"Texts answered: {written.sum():,}"
        if blank := int((~written).sum()):
            summary += f"; rows without a text, and so without an answer: {blank:,}"
        return _table(answered), gr.update(value=str(out), visible=True), summary + "."

    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(f"<h1>{escape(title)}</h1><p>{escape(told)}</p>", elem_classes="head")
        if classifies:
            result: Any = gr.Label(label="Probability of each label", render=False)
        else:
            result = gr.HTML(
                label="Keywords", show_label=True, container=True, min_height=140, render=False
            )
        with gr.Tab("One text"), gr.Row():
            with gr.Column():
                text = gr.Textbox(label="Text", lines=3 if classifies else 6, max_lines=12)
                button = gr.Button("Classify" if classifies else "Find keywords", variant="primary")
                gr.Examples(
                    [[sample] for sample in samples],
                    text,
                    result,
                    answer,
                    cache_examples=False,
                    run_on_click=True,
                    label="Examples, to click",
                )
            with gr.Column():
                result.render()
        with gr.Tab("Many texts"):
            with gr.Row():
                upload = gr.File(
                    label=f"CSV file, {_LARGEST // 2**20} MB at most",
                    file_types=[".csv"],
                    height=180,
                )
                with gr.Column():
                    column = gr.Textbox("text", label="Name of the column that holds the texts")
                    start = gr.Button("Answer every row", variant="primary")
                    note = gr.HTML(elem_classes="note")
                    download = gr.DownloadButton("Download the CSV with answers", visible=False)
            table = gr.HTML()
        gr.on([button.click, text.submit], answer, text, result, api_name="answer")
        outcome = [table, download, note]
        hidden: dict[str, Any] = {"api_visibility": "private", "show_progress_on": note}
        upload.change(preview, upload, outcome, **hidden)
        start.click(forget, None, [download, note], queue=False, **hidden).then(
            answer_all, [upload, column], outcome, api_name="answer_csv", show_progress_on=note
        )
    fonts = ("system-ui", "sans-serif")  # those of the reader's machine
    page.launch = partial(
        page.launch,
        theme=gr.themes.Default(
            primary_hue="blue",
            font=fonts,
            font_mono=fonts,
        ).set(
            button_primary_background_fill="*primary_700",
            button_primary_background_fill_hover="*primary_800",
        ),
        css=_CSS,
        max_file_size=_LARGEST,
        footer_links=[],
        run_history=False,
    )
    return page


def _gradio() -> Any:
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The page needs {error.name}. Run: pip install 'small-model-cookbook[deploy]'"
        ) from error
    return gradio


def _loaded(model: str | Path) -> tuple[Any, Any, bool]:
    """Return the model, its tokenizer and whether it is a classifier.

    What was exported stays the folder it is, without a tokenizer: `inference` keeps it in memory.
    """
    for name, classifies in {"model.onnx": True, "model.bin": False}.items():
        if (Path(model) / name).is_file():
            return Path(model), None, classifies
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    from cookbook import inference

    try:
        config = AutoConfig.from_pretrained(model)
    except OSError as error:
        raise OSError(
            f"{model} is no folder of a saved model, nor could it be loaded from the Hugging Face "
            f"Hub: {error}"
        ) from error
    kinds = config.architectures or ["model of unknown kind"]
    classifies = kinds[0].endswith("ForSequenceClassification")
    if not classifies and not config.is_encoder_decoder:
        raise ValueError(
            f"{model} is a {kinds[0]}. The page takes what the notebooks save: a sequence "
            "classifier, or a seq2seq model that writes keywords."
        )
    kind: Any = AutoModelForSequenceClassification if classifies else AutoModelForSeq2SeqLM
    return *inference._loaded(model, None, kind), classifies


# --- Answers -------------------------------------------------------------------------------------


def _probabilities(text: str, network: Any, tokenizer: Any) -> dict[str, float]:
    answers = _labelled([text], network, tokenizer).drop(columns=["label", "score"])
    return {str(label): float(share) for label, share in answers.iloc[0].items()}


def _labelled(texts: list[str], network: Any, tokenizer: Any) -> pd.DataFrame:
    from cookbook import inference

    return inference.classify(texts, network, tokenizer).drop(columns="text").round(4)


def _keywords_joined(texts: list[str], network: Any, tokenizer: Any) -> pd.DataFrame:
    from cookbook import inference

    found = inference.extract_keywords(texts, network, tokenizer)
    return pd.DataFrame({"keywords": ["; ".join(keywords) for keywords in found]})


def _keywords_marked(text: str, network: Any, tokenizer: Any) -> str:
    """Return HTML: the keywords as chips, and the text with them marked."""
    from cookbook import inference

    (keywords,) = inference.extract_keywords([text], network, tokenizer)
    if not keywords:
        return '<p class="answer">The model finds no keyword in this text.</p>'
    chips = "".join(f"<li>{escape(keyword)}</li>" for keyword in keywords)
    marked = f'<p class="marked">{_marked(text, keywords)}</p>'
    return f'<div class="answer"><ul class="chips">{chips}</ul>{marked}</div>'


def _marked(text: str, keywords: Sequence[str]) -> str:
    """Escape a text for HTML and mark the keywords wherever they stand in it."""
    # The longest first, so that 'Next.js 14' isn't marked as 'Next.js'; no 'C' within 'C++'.
    spelt = [
        r"\s+".join(map(re.escape, keyword.split()))
        + (r"(?![\w+#])" if keyword[-1].isalnum() else "")
        for keyword in sorted(keywords, key=len, reverse=True)
    ]
    pieces = re.split(rf"(?<!\w)({'|'.join(spelt)})", text)
    return "".join(
        f"<mark>{escape(piece)}</mark>" if i % 2 else escape(piece)
        for i, piece in enumerate(pieces)
    )


# --- Files ---------------------------------------------------------------------------------------


def _read(path: str) -> pd.DataFrame:
    """Read an uploaded CSV, every cell as it stands; say what is wrong with it in the page."""
    file = Path(path)
    if file.stat().st_size > _LARGEST:
        raise _told(f"{file.name} is larger than {_LARGEST // 2**20} MB. Cut it into parts.")
    try:
        with file.open(encoding="utf-8-sig") as lines:
            head = lines.readline()
        frame = pd.read_csv(
            file,
            sep=";" if ";" in head and "," not in head else ",",  # Excel's, in half of Europe
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
        )
    except pd.errors.EmptyDataError:
        raise _told(f"{file.name} is empty. Its first line should name the columns.") from None
    except UnicodeDecodeError as error:
        raise _told(
            f"{file.name} isn't UTF-8 (byte {error.start}). Save it again as 'CSV UTF-8'."
        ) from None
    except (pd.errors.ParserError, ValueError) as error:
        raise _told(f"{file.name} isn't a regular CSV: {error}") from None
    if not isinstance(frame.index, pd.RangeIndex):  # pandas took the first cells for an index
        raise _told(
            f"{file.name} has rows with more cells than the header {_named(frame)}. Put a text "
            "with a comma in it between double quotes."
        )
    if frame.empty:
        raise _told(f"{file.name} has the columns {_named(frame)}, but no rows.")
    return frame.fillna("")  # of rows that end early


def _column(frame: pd.DataFrame, column: str, name: str) -> pd.Series:
    if column not in frame:
        raise _told(
            f"{name} has no column {column!r}. It has: {_named(frame)}. Name the one that holds "
            "the texts."
        )
    return frame[column]


def _table(frame: pd.DataFrame) -> str:
    """Return the first rows as HTML; a cell is shown as it is, tags and all."""
    with pd.option_context("display.max_colwidth", 200):
        rows = frame.head(_SHOWN).to_html(index=False, border=0, na_rep="", escape=True)
    told = f"<p>First {min(_SHOWN, len(frame))} of {len(frame):,} rows</p>"
    return f'<div class="rows">{told}{rows}</div>'


def _named(frame: pd.DataFrame) -> str:
    return ", ".join(map(repr, frame.columns))


def _told(message: str) -> Exception:
    """Make an error that the page shows; the message is escaped, for the page takes HTML."""
    error: Exception = _gradio().Error(
        escape(message, quote=False), duration=30, print_exception=False
    )
    return error


_CSS = """
.gradio-container { max-width: 960px !important; width: 100% !important; margin: 0 auto; }
.gradio-container main { width: 100%; }
.head h1 { margin: 0.5rem 0 0; }
.gallery-item { text-align: left; }
.answer { padding: 2.25rem 0.75rem 0.5rem; }
.answer .chips { display: flex; flex-wrap: wrap; gap: 0.5rem; margin: 0 0 1rem; padding: 0; }
.answer .chips li { list-style: none; margin: 0; padding: 0.2rem 0.75rem; border-radius: 1rem;
  background: var(--primary-100); color: var(--primary-900); font-weight: 600; }
.answer .marked { white-space: pre-wrap; overflow-wrap: anywhere; }
.answer mark { background: var(--primary-100); color: var(--primary-900); padding: 0 0.15rem;
  border-radius: 0.2rem; }
.note { min-height: 4.5rem; }
.rows { overflow-x: auto; }
.rows .dataframe :is(thead, tbody, tr) { border: 0 !important; }
.rows .dataframe { width: 100%; border: 0 !important; border-collapse: collapse; }
.rows .dataframe tr > * { padding: 0.4rem 0.75rem; text-align: left; vertical-align: top; border: 0;
  border-bottom: 1px solid var(--border-color-primary); overflow-wrap: normal; }
.rows .dataframe th { white-space: nowrap; }
"""

# --- Command line --------------------------------------------------------------------------------

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def _serve(
    model: Annotated[
        str, typer.Argument(help="Folder of a saved or exported model, or its name on the Hub.")
    ],
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; the first free one from 7860 on.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for the whole network.")
    ] = "127.0.0.1",
    share: Annotated[bool, typer.Option(help="Make a public address, through gradio.")] = False,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    example: Annotated[list[str] | None, typer.Option(help="A text to click; repeatable.")] = None,
) -> None:
    """Serve a web page for a fine-tuned classifier or keyword model. Ctrl-C ends it."""
    try:
        page = build(model, examples=example, title=title)
        page.launch(server_name=host, server_port=port, share=share)
    except (ImportError, OSError, ValueError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
