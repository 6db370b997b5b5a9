"""The page on which a person decides, by keys or clicks: `cookbook review FILE`."""

from __future__ import annotations

import threading
from functools import partial
from html import escape
from typing import Any

from cookbook import extra, tables, words
from cookbook.review import Review

with extra("deploy"):
    import gradio as gr

_BY_KEY = 9  # labels that have a key of their own


def build(review: Review, title: str = "Review") -> gr.Blocks:
    """Make the page of a review; `build(review).launch()` serves it.

    Keys: Enter accepts what stands there (or saves what was changed), 1 to 9 choose a label, x
    rejects the text, s skips it, u takes the last decision back.

    Args:
        review: From `open_review`.
        title: Heading.
    """
    deciding = threading.Lock()  # two keys at once
    keywords, names = not review.names, review.names
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        state, card = gr.HTML(elem_id="pace"), gr.HTML(elem_id="row")
        shown: list[Any] = [state, card]
        value: Any = gr.State("")
        if keywords:
            about: dict[str, Any] = {"multiselect": True, "allow_custom_value": True}
            value = gr.Dropdown(
                [], label="Keywords; click a word above to add it", elem_id="chips", **about
            )
            clicked = gr.Textbox(elem_id="clicked", label="A word that was clicked")  # unseen
            clicked.change(partial(_with_word, review), [value, clicked], value, queue=False)
            shown.append(value)
        elif review.several:
            value = gr.CheckboxGroup(names, label="Labels", elem_id="labels")
            shown.append(value)
        act = partial(_act, review, deciding, keywords)
        if names and not review.several:
            with gr.Row():
                for number, name in enumerate(names[:_BY_KEY], 1):
                    button = gr.Button(f"{name}  [{number}]", elem_id=f"key-{number}")
                    button.click(partial(act, "correct", name), None, shown, queue=False)
        with gr.Row():
            for told, decision, key in (
                ("Accept  [Enter]", "correct" if keywords or review.several else "accept", "Enter"),
                ("Reject  [x]", "reject", "x"),
                ("Skip  [s]", "skip", "s"),
                ("Undo  [u]", "undo", "u"),
            ):
                button = gr.Button(
                    told, elem_id=f"key-{key}", variant="primary" if key == "Enter" else "secondary"
                )
                takes = value if decision == "correct" else None
                button.click(partial(act, decision), takes, shown, queue=False)
        if len(names) > _BY_KEY and not review.several:
            other = gr.Dropdown(names, label="Another label", value=None)
            # Emptied, so that the same label can be chosen for the next text too.
            other.input(
                lambda name: [*act("correct", name), None], other, [*shown, other], queue=False
            )
        page.load(partial(_show, review, keywords), None, shown, queue=False)
    font = ("system-ui", "sans-serif")
    theme = gr.themes.Default(primary_hue="blue", font=font, font_mono=font)
    page.launch = partial(
        page.launch,
        theme=theme,
        css=tables.asset("page.css"),
        head=f"<script>{tables.asset('review.js')}</script>",
        footer_links=[],
        run_history=False,
    )
    return page


def _act(
    review: Review, deciding: threading.Lock, keywords: bool, decision: str, value: Any = None
) -> list[Any]:
    with deciding:
        if decision == "undo":
            review.undo()
        else:
            if isinstance(value, list):
                value = words.join_keywords(value) if keywords else "|".join(value)
            review.decide(decision, value)
        return _show(review, keywords)


def _show(review: Review, keywords: bool) -> list[Any]:
    """Return what the page shows of the current row."""
    row, left = review.current, len(review.todo)
    told = f"{len(review.rows) - left:,} of {len(review.rows):,} decided, {left:,} left"
    if review.pace:
        told += f"; {review.pace:.0f} a minute"
    if row is None:
        nothing = "<h2>Nothing is left to decide.</h2>"
        return [told, nothing, *([[]] if keywords or review.several else [])]
    was = "" if keywords else f"<p><strong>{escape(row['was'].replace('|', ', '))}</strong></p>"
    why = f"<p>{escape(row['why'])}</p>" if row["why"] else ""
    text = escape(row["text"])
    if keywords:  # each word can be clicked
        pieces = words.mark(row["text"], words.tokens(row["text"]))
        marked = (
            f"<span data-word>{escape(p)}</span>" if is_word else escape(p) for p, is_word in pieces
        )
        text = "".join(marked)
    shown: list[Any] = [told, f"<blockquote>{text}</blockquote>{was}{why}"]
    if keywords:
        chips = words.split_keywords(row["was"])
        shown.append(gr.update(value=chips, choices=chips))
    elif review.several:
        shown.append([name for name in row["was"].split("|") if name])
    return shown


def _with_word(review: Review, chips: list[str] | None, clicked: str) -> Any:
    """Add the word that was clicked; the next word of a name joins it."""
    word = str(clicked or "").partition(" ")[2]  # the time of the click goes before it
    chips, text = list(chips or []), (review.current or {"text": ""})["text"]
    joined = [f"{chips[-1]}{gap}{word}" for gap in (" ", "")] if chips and word else []
    if found := [name for name in joined if name in text]:
        chips[-1] = found[0]
    elif word:
        chips = words.split_keywords([*chips, word])
    return gr.update(value=chips, choices=chips)
