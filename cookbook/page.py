"""A web page for a fine-tuned model: one text, or a table of many.

From the command line: `cookbook page MODEL`. It needs gradio, which
`pip install "small-model-cookbook[deploy]"` brings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from cookbook import extra, inference, tables, words

with extra("deploy"):
    import gradio as gr

_LARGEST = "5 MB"  # two CPU cores answer some 100,000 titles in a quarter of an hour
_SHOWN = 10  # rows of a preview
_PROBABLE = "Probability of each label"
_DOUBT = "not sure: let a person decide"


def build(
    model: str | Path, *, examples: Sequence[str] | None = None, title: str | None = None
) -> gr.Blocks:
    """Make the page; `build(model).launch()` serves it.

    A classifier answers with the probability of every label, a model that writes with keywords,
    marked in the text; one that has a `sure_from` (see `trust`) says of what it isn't sure. No
    other server is asked for anything; uploads and answers are deleted within two hours.

    Args:
        model: A model's folder, its name on the Hub, or an exported folder, which needs no torch.
        examples: Texts to click; None for a few of the cookbook's two models.
        title: Heading; None for one made of the labels.

    Raises:
        ValueError, OSError: As `inference.load`.
    """
    loaded = inference.load(model)
    box = partial(gr.HTML, show_label=True, container=True, min_height=140, render=False)
    if loaded.kind == "classifier":
        names = loaded.names
        heading = f"{' or '.join(names)}?" if len(names) < 4 else "Which label?"
        listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if names[20:] else "")
        told = f"Says which of these a text is, and how sure it is: {listed}."
        verb, samples = "Classify", "page_titles.txt"
        result: Any = gr.Label(num_top_classes=_SHOWN, label=_PROBABLE, render=False)
        if loaded.several:
            result = box(label=_PROBABLE)
    else:
        heading = "Keywords of a text"
        does = {"marker": "marks", "writer": "writes"}[loaded.kind]
        told = f"Reads a text and {does} its keywords."
        verb, samples = "Find keywords", "page_posts.txt"
        result = box(label="Keywords")
    title = title or heading[0].upper() + heading[1:]
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(f"<h1>{escape(title)}</h1><p>{escape(told)}</p>", elem_classes="head")
        with gr.Tab("One text"), gr.Row():
            answer = partial(_answer, loaded)
            _one_text(answer, verb, result, examples or tables.asset(samples).splitlines())
        with gr.Tab("Many texts"):
            _many_texts(partial(_answer_all, loaded))
    fonts = ("system-ui", "sans-serif")  # those of the reader's machine
    page.launch = partial(
        page.launch,
        theme=gr.themes.Default(primary_hue="blue", font=fonts, font_mono=fonts),
        css=tables.asset("page.css"),
        max_file_size=_LARGEST,
        footer_links=[],
        run_history=False,
    )
    return page


# --- What stands on the page ---------------------------------------------------------------------


def _one_text(answer: Callable[..., Any], verb: str, result: Any, samples: Sequence[str]) -> None:
    with gr.Column():
        text = gr.Textbox(label="Text", lines=5, max_lines=12)
        button = gr.Button(verb, variant="primary")
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
    gr.on([button.click, text.submit], answer, text, result, api_name="answer")


def _many_texts(answer_all: Callable[..., Any]) -> None:
    with gr.Row():
        upload = gr.File(label=f"CSV file (or JSONL, Parquet), {_LARGEST} at most", height=180)
        with gr.Column():
            column = gr.Textbox("text", label="Name of the column that holds the texts")
            start = gr.Button("Answer every row", variant="primary")
            note = gr.HTML(elem_classes="note")
            download = gr.DownloadButton("Download the CSV with answers", visible=False)
    outcome = [gr.HTML(), download, note]
    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress_on": note}
    upload.change(_preview, upload, outcome, **hidden)
    start.click(_forget, None, [download, note], queue=False, **hidden).then(
        answer_all, [upload, column], outcome, api_name="answer_csv", show_progress_on=note
    )


# --- What it does --------------------------------------------------------------------------------


def _answer(model: Any, text: str) -> Any:
    if not (text or "").strip():
        gr.Info("There is no text yet: type or paste one, or click an example.")
        return None
    least = model.config.get("sure_from")
    if model.kind != "classifier":
        scored = model.kind == "marker" and least is not None
        (found,) = inference.extract_keywords([text], model, scores=scored)
        doubted = {keyword for keyword, score in found if score < least} if scored else set()
        return _marked(text, words.split_keywords(found), doubted)
    answer = inference.classify([text], model).iloc[0]
    scores = answer.iloc[-len(model.names) :]
    shown: Any = dict(zip(model.names, map(float, scores), strict=True))
    if model.several:
        shown = _held(answer, model.names)
    if least is None:
        return shown
    return gr.update(value=shown, label=_PROBABLE if answer["sure"] else f"{_PROBABLE}: {_DOUBT}")


def _held(answer: pd.Series, names: Sequence[str]) -> str:
    """Return HTML: the labels that hold as chips, and the likeliest of the others."""
    scores = answer[list(names)].astype(float).sort_values(ascending=False)
    told = {str(name): f"{escape(str(name))} {score:.2f}" for name, score in scores.items()}
    chips = "".join(f"<li>{told.pop(name)}</li>" for name in list(told) if name in answer["label"])
    others = ", ".join([*told.values()][:_SHOWN])
    first = f'<ul class="chips">{chips}</ul>' if chips else "<p>None of the labels holds.</p>"
    return f'<div class="answer">{first}<p>Less likely: {others}</p></div>'


def _marked(text: str, keywords: Sequence[str], doubted: Collection[str] = ()) -> str:
    """Return HTML: the keywords as chips, and the text with them marked."""
    if not keywords:
        return '<p class="answer">The model finds no keyword in this text.</p>'
    chips = "".join(
        f"<li>{escape(keyword)}{' (not sure)' if keyword in doubted else ''}</li>"
        for keyword in keywords
    )
    marked = "".join(
        f"<mark>{escape(piece)}</mark>" if found else escape(piece)
        for piece, found in words.mark(text, keywords)
    )
    return f'<div class="answer"><ul class="chips">{chips}</ul><p class="marked">{marked}</p></div>'


def _forget() -> tuple[Any, str]:
    """Take away the answers to an earlier question."""
    return gr.update(value=None, visible=False), ""


def _preview(path: str | None) -> tuple[Any, ...]:
    if path is None:
        return "", *_forget()
    with _explained(path):
        return _table(tables.read(path)), *_forget()


def _answer_all(
    model: Any,
    path: str | None,
    column: str,
    progress: Any = gr.Progress(track_tqdm=True),  # noqa: B008 - where gradio looks for it
) -> Any:
    if path is None:
        gr.Info("There is no file yet: drop a CSV, or click to choose one.")
        return gr.skip()
    with _explained(path):
        frame = tables.read(path)
        if (column := column.strip()) not in frame:
            names = ", ".join(map(repr, frame))
            raise ValueError(
                f"{path} has no column {column!r}. It has: {names}. Name the one with the texts."
            )
        (answered,) = inference.answer_chunks([frame], model, text=column)
    added = answered.columns[len(frame.columns) :]
    answered = answered.round(dict.fromkeys(added, 4))
    # Within gradio's own folder, where it deletes what is old.
    out = Path(tempfile.mkdtemp(dir=Path(path).parent), f"{Path(path).stem}_answered.csv")
    tables.write(answered, out, "utf-8-sig")  # with the mark that Excel looks for
    blank = answered[added[0]].isna().sum()
    summary = f"Texts answered: {len(frame) - blank:,}"
    if blank:
        summary += f"; rows without a text, and so without an answer: {blank:,}"
    return _table(answered), gr.update(value=str(out), visible=True), f"{summary}."


def _table(frame: pd.DataFrame) -> str:
    """Return the first rows as HTML; a cell is shown as it is, tags and all."""
    with pd.option_context("display.max_colwidth", 200):
        rows = frame.head(_SHOWN).to_html(index=False, border=0, na_rep="")
    told = f"<p>First {min(_SHOWN, len(frame))} of {len(frame):,} rows</p>"
    return f'<div class="rows">{told}{rows}</div>'


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Show in the page, which takes HTML, what is wrong with a file, by the name that it had."""
    try:
        yield
    except (OSError, ValueError) as error:
        told = escape(str(error).replace(path, Path(path).name), quote=False)
        raise gr.Error(told, duration=30, print_exception=False) from error
