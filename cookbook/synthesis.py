"""Ask a local LLM, through Ollama, for labelled texts and for annotations.

From the command line: `python -m cookbook.synthesis --help`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import re
import sys
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import filelock
import httpx
import ollama
import pandas as pd
import tenacity
import typer
from pydantic import BaseModel, Field, ValidationError, create_model
from tqdm.auto import tqdm

from cookbook.data import split_keywords, usable
from cookbook.quality import first_duplicate

# --- What is asked -------------------------------------------------------------------------------
# The prompts stand here and nowhere else. A row's `prompt_version` is a hash of all that shapes the
# question, so a changed prompt, definition or example is another version by itself.

WRITE = """You write {kind}s to train a text classifier. Every one of them is {label}:
{definition}
You get a topic and a style, and answer with one {kind} about that topic, as JSON:
{answer}
Nothing else: no introduction, no quotation marks around it, no exclamation mark at its end."""

WRITE_LIST = """You write {kind}s to train a text classifier. Every one of them is {label}:
{definition}
You get a topic and a style, and answer with {n} different {kind}s about that topic, as JSON:
{answer}
Nothing else: no introduction, no quotation marks around them, no exclamation mark at their ends."""

SUBJECT = "Topic: {topic}\nStyle: {style}"

ANNOTATE = """You annotate short texts about technology. For each text give
keywords: three to six names of products, companies, languages, tools or concepts that the text is
about, spelt as in the text, the most important first; no general words such as 'app' or 'tool';
topic: one or two broad topics;
summary: what it is about in at most eight words."""

ANNOTATE_FORM = """{instruction}
The texts come as JSON, each with an id. Answer with JSON only, one entry per text with its id:
{answer}"""


@dataclass(frozen=True)
class Label:
    """A label to write texts for.

    Attributes:
        name: The label as the data set will have it.
        definition: What makes a text belong to it, in a sentence or two, for the LLM to read.
        examples: Pairs of topic and text. Three of them, others each time, go before a question;
            six or more keep the answers from resembling one another.
    """

    name: str
    definition: str
    examples: tuple[tuple[str, str], ...]


CLICKBAIT = (
    Label(
        "clickbait",
        "It teases: it holds back what happened, promises a surprise, an emotion or an easy gain, "
        "and can't be understood without opening the article.",
        (
            ("gardening", "She Buried an Old Sock in the Tomato Bed. Look What Grew"),
            ("money", "The one line on your bank statement you should never ignore"),
            ("health", "Doctors wish you knew this about your morning coffee"),
            ("football", "What the Goalkeeper Whispered After the Final Has Fans in Tears"),
            ("phones", "Why everyone is suddenly putting their phone in the fridge"),
            ("travel", "17 Train Stations That Will Make You Miss Your Train on Purpose"),
            ("school", "This teacher's homework rule is dividing parents everywhere"),
            ("cooking", "You have been boiling pasta wrong all your life"),
            ("animals", "Nobody Expected What This Donkey Did Next"),
            ("space", "The photo from Mars that scientists can't stop talking about"),
            ("cars", "I Drove 800 Miles on One Charge and Learned This the Hard Way"),
            ("history", "Historians finally opened the box, and it changes everything"),
        ),
    ),
    Label(
        "factual",
        "It reports: it says plainly who did what, where or how much, and whoever reads it alone "
        "knows what the article is about.",
        (
            ("gardening", "Dry spring cuts tomato harvest in Andalusia by a fifth"),
            ("money", "Central bank holds interest rate at 3.25 per cent"),
            ("health", "Study of 12,000 nurses links night shifts to poorer sleep"),
            ("football", "Second-half penalty gives Leeds a 1-0 win at Hull"),
            ("phones", "Phone sales in India fell 4% in the third quarter"),
            ("travel", "Night train from Vienna to Paris to Run Three Times a Week"),
            ("school", "Oslo schools to begin half an hour later from August"),
            ("cooking", "How to poach an egg without vinegar"),
            ("animals", "Zoo in Leipzig counts two more red pandas after twin birth"),
            ("space", "Probe Enters Orbit Around Mars After Seven-Month Flight"),
            ("cars", "Volvo recalls 34,000 cars over faulty seat belt sensor"),
            ("history", "Roman coins found under car park in Chester"),
        ),
    ),
)

_TOPICS = """
    a local election; a court case; house prices; inflation; a strike; taxes; a start-up; a
    merger; job interviews; working from home; a power cut; solar panels; electric cars;
    public transport; cycling; air travel; a hurricane; a heatwave; recycling; farming;
    fishing; wildlife; pets; vaccines; sleep; back pain; dieting; mental health; hospitals;
    dentists; pregnancy; childcare; schools; universities; exam results; libraries; a
    museum; archaeology; a royal family; a wedding; dating; friendship; retirement;
    grandparents; home renovation; furniture; cleaning; gardening; baking; restaurants;
    coffee; wine; fashion; make-up; celebrities; a film; a TV series; a pop song; a novel;
    video games; board games; football; tennis; running; swimming; the Olympics; chess;
    smartphones; social media; artificial intelligence; cybersecurity; online shopping;
    banking; insurance; lotteries; crime; firefighters; the army; immigration; a border
    dispute; climate talks; space travel; astronomy; physics; mathematics; the oceans;
    volcanoes; insects; photography; music lessons; languages; camping; hotels; a city
    break; islands; trains; bridges; a new airport"""
TOPICS = tuple(" ".join(topic.split()) for topic in _TOPICS.split(";"))

STYLES = (
    "a plain statement",
    "at most six words",
    "twelve words or more",
    "with a number",
    "as a question",
    "with the name of a person",
    "with the name of a place or a company",
    "in everyday language",
)


class TechKeywords(BaseModel):
    """What `annotate` asks for by default: the columns that the second article trains on."""

    keywords: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=60)]], Field(min_length=1, max_length=8)
    ]
    topic: Annotated[str, Field(min_length=2, max_length=60)]
    summary: Annotated[str, Field(min_length=2, max_length=120)]


# Two annotated texts to go before the question, as the model is to answer.
TECH_EXAMPLES = (
    (
        "Finally moved our side project off Heroku. It runs on a 5 euro VPS with Docker Compose "
        "and Caddy now, and deploys take 20 seconds.",
        TechKeywords(
            keywords=["Heroku", "VPS", "Docker Compose", "Caddy"],
            topic="Hosting",
            summary="Moving a side project off Heroku",
        ),
    ),
    (
        "is there any way to make pandas read a 40GB parquet file without running out of memory? "
        "polars does it but my boss wont switch",
        TechKeywords(
            keywords=["pandas", "parquet", "polars"],
            topic="Data Engineering",
            summary="Reading large parquet files with pandas",
        ),
    ),
)


# --- What comes back -----------------------------------------------------------------------------


@dataclass
class Synthesis:
    """What a run left behind; prints as a summary.

    Attributes:
        path: The CSV with the usable rows. What was rejected lies beside it, in
            `<name>.rejected.csv`, with the reason.
        rows: The usable rows of this model and prompt, those of earlier runs included.
        rejected: The rejected ones, with a column `reason`.
        seconds: How long this run took.
    """

    path: Path
    rows: pd.DataFrame
    rejected: pd.DataFrame
    seconds: float

    @property
    def reasons(self) -> pd.Series:
        """Number of rejected rows per reason, the commonest first."""
        return self.rejected["reason"].value_counts()

    def __str__(self) -> str:
        total = len(self.rows) + len(self.rejected)
        share = len(self.rows) / total if total else 0
        lines = [f"{len(self.rows):,} usable rows in {self.path} ({share:.0%} of {total:,})"]
        if "label" in self.rows:
            lines += [
                f"  {name:<24} {n:>6,}" for name, n in self.rows["label"].value_counts().items()
            ]
        if len(self.rejected):
            lines.append(f"{len(self.rejected):,} rejected, in {_beside(self.path)}")
            lines += [f"  {reason:<24} {n:>6,}" for reason, n in self.reasons.items()]
        return "\n".join(lines)


def generate_texts(
    out: str | Path,
    labels: Sequence[Label] = CLICKBAIT,
    *,
    model: str = "phi3",
    per_label: int = 500,
    kind: str = "title",
    topics: Sequence[str] = TOPICS,
    styles: Sequence[str] = STYLES,
    words: tuple[int, int] = (3, 30),
    tidy: Callable[[str], str] | None = None,
    per_call: int = 1,
    temperature: float = 0.9,
    seed: int = 0,
    concurrency: int = 4,
    host: str | None = None,
    timeout: float = 120,
    give_up_after: int = 50,
) -> Synthesis:
    """Let a local LLM write texts for a classifier: an equal number of usable ones per label.

    Every row has its own place in a grid of topics and styles, the same for every label, its own
    examples and its own seed: without them a small model writes the same few titles again and again
    (with one seed, 1 of 6 was unlike the others). Answers are bound by a JSON schema, tidied alike
    for every label, and filtered; see `Synthesis.reasons`.

    Each row is on disk as soon as it is judged. Killed at any moment, the same call goes on where
    it was: what was asked before, by model, prompt version, label, topic and seed, isn't asked
    again, and a torn line is taken off the end. Rows of another model or prompt in the same file
    stay, count as duplicates, and don't count towards `per_label`.

    Args:
        out: CSV to write or to go on with: `text`, `label`, `topic`, `style`, `model`,
            `prompt_version`, `seed`.
        labels: The labels, each with its definition and examples.
        model: A model that the Ollama server has pulled.
        per_label: Usable texts wanted per label.
        kind: What a text is called in the prompt, such as 'title' or 'support request'.
        topics: What the texts are to be about.
        styles: How they are to be written. The same for every label, or style gives it away.
        words: Fewest and most words of a usable text.
        tidy: Applied to every text; None for the function `tidy` of this module.
        per_call: Texts per question. A list is quicker with a large model, but a small one
            repeats itself in it.
        temperature: Above 0, or the seed has no effect.
        seed: The first seed.
        concurrency: Questions at once. More than the server's `OLLAMA_NUM_PARALLEL` only queue.
        host: Address of the server; None for `OLLAMA_HOST`, or http://127.0.0.1:11434.
        timeout: Seconds that an answer may take.
        give_up_after: Rejections in a row after which the model is said not to be up to it.

    Returns:
        The rows, the rejected ones and the counts.

    Raises:
        ConnectionError: No server is there, or it stays busy; says how to start one.
        LookupError: The server doesn't have the model; names the `ollama pull` to run.
        TimeoutError: An answer took longer than `timeout`, twice.
        RuntimeError: `give_up_after` rejections in a row (quotes the last), the server reports an
            error, or another process is writing `out`.
        ValueError: A parameter can't be right, or `out` has other columns.
    """
    started = time.perf_counter()
    out = Path(out)
    labels = list(labels)
    names = [label.name for label in labels]
    if not labels or len(set(names)) < len(names) or not all(label.examples for label in labels):
        raise ValueError(f"Give each label one name of its own, and examples: {names}")
    if min(per_label, per_call, concurrency) < 1 or not topics or not styles or temperature <= 0:
        raise ValueError(
            f"{per_label=}, {per_call=}, {concurrency=} and {temperature=} must be positive, and "
            "topics and styles must not be empty"
        )
    field = re.sub(r"\W+", "_", kind)
    answer = _list_answer(field, per_call) if per_call > 1 else _one_answer(field)
    template = WRITE_LIST if per_call > 1 else WRITE
    version = _version(template, SUBJECT, kind, labels, per_call)
    copied = [text for label in labels for _, text in label.examples]
    grid = [(topic, style) for topic in topics for style in styles]
    random.Random(0).shuffle(grid)
    client = _client(host, timeout)
    _require_model(client, model)

    def question(label: Label, topic: str, style: str, number: int) -> dict[str, Any]:
        rng = random.Random(f"{label.name} {number}")
        shown = [example for example in label.examples if example[0] != topic]
        form = json.dumps({field + "s": ["…"] * 2} if per_call > 1 else {field: "…"})
        system = template.format(
            kind=kind, label=label.name, definition=label.definition, n=per_call, answer=form
        )
        messages = [{"role": "system", "content": system}]
        for about, text in rng.sample(shown, min(3, len(shown))):
            ask = SUBJECT.format(topic=about, style=rng.choice(styles))
            said = {field + "s": [text]} if per_call > 1 else {field: text}
            messages += [
                {"role": "user", "content": ask},
                {"role": "assistant", "content": json.dumps(said, ensure_ascii=False)},
            ]
        messages.append({"role": "user", "content": SUBJECT.format(topic=topic, style=style)})
        options = {
            "temperature": temperature,
            "seed": number,
            "num_predict": 80 * per_call,
            "num_ctx": 2048 + 80 * per_call,
        }
        return {
            "model": model,
            "messages": messages,
            "format": answer.model_json_schema(),
            "options": options,
        }

    columns = ["text", "label", "topic", "style", "model", "prompt_version", "seed"]
    with (
        _locked(out),
        _Appender(out, columns) as kept,
        _Appender(_beside(out), [*columns, "reason"]) as bad,
    ):
        mine = [_of_plan(file.before, model, version, names) for file in (kept, bad)]
        asked = {(row.label, row.topic, row.seed) for rows in mine for row in rows.itertuples()}
        usable_texts = kept.before["text"].tolist()
        have = Counter({name: int((mine[0]["label"] == name).sum()) for name in names})
        next_number = {name: seed + i for i, name in enumerate(names)}  # no two rows share a seed
        in_flight: Counter[str] = Counter()
        turn = 0

        def next_job() -> tuple[Label, str, str, int] | None:
            """Take labels in turn; a label whose open questions may be enough is passed over."""
            nonlocal turn
            for _ in labels:
                label = labels[turn % len(labels)]
                turn += 1
                if have[label.name] + in_flight[label.name] >= per_label:
                    continue
                while True:
                    number = next_number[label.name]
                    next_number[label.name] += len(labels)
                    topic, style = grid[(number - seed) // len(labels) % len(grid)]
                    if (label.name, topic, number) not in asked:
                        in_flight[label.name] += per_call
                        return label, topic, style, number
            return None

        def ask(job: tuple[Label, str, str, int]) -> tuple[str, str]:
            return _chat(client, question(*job))

        bar = tqdm(total=per_label * len(labels), initial=sum(have.values()), desc=out.name)
        running = 0
        refused = len(mine[1])
        with (
            bar,
            _explained(out, lambda: sum(have.values()), per_label * len(labels)),
            closing(_ahead(ask, next_job, concurrency)) as answers,
        ):
            for (label, topic, style, number), (content, reason) in answers:
                in_flight[label.name] -= per_call
                texts = [] if reason else _texts(answer, content, field, per_call)
                if not texts:
                    texts, reason = [content], reason or "wrong schema"
                for raw in texts:
                    text = raw if reason else (tidy or _tidy)(raw)
                    why = reason or _unusable(text, kind, names, words, copied, usable_texts)
                    where = [label.name, topic, style, model, version, number]
                    if why:
                        bad.write([raw, *where, why])
                        refused, running = refused + 1, running + 1
                    elif have[label.name] < per_label:
                        kept.write([text, *where])
                        usable_texts.append(text)
                        have[label.name], running = have[label.name] + 1, 0
                        bar.update()
                    bar.set_postfix(rejected=refused, refresh=False)
                    if running >= give_up_after:
                        raise _not_up_to_it(model, running, why, raw, out)
    return _finished(out, model, version, started, names)


def annotate(
    texts: str | Path | pd.DataFrame,
    out: str | Path,
    *,
    fields: type[BaseModel] = TechKeywords,
    instruction: str = ANNOTATE,
    examples: Sequence[tuple[str, BaseModel]] | None = None,
    model: str = "phi3",
    text: str = "text",
    per_call: int = 10,
    temperature: float = 0.2,
    seed: int = 0,
    concurrency: int = 4,
    num_ctx: int = 8192,
    host: str | None = None,
    timeout: float = 300,
    give_up_after: int = 50,
) -> Synthesis:
    """Let a local LLM annotate texts: keywords, topic and summary, or any fields you define.

    Several texts go into one question, as the article does it. Every answer is matched to its text
    by an id. Those that are missing, doubled, break the schema, repeat themselves or copy an
    example are asked again in halves, in the end alone with another seed; what stays bad is kept in
    `<name>.rejected.csv` with its reason. Rows are on disk as soon as their batch is answered; see
    `generate_texts` for what a kill and another model mean.

    Args:
        texts: CSV, or DataFrame; all its columns are kept.
        out: CSV to write or to go on with: the columns of `texts`, one per field (a list as
            'a, b, c'), `model`, `prompt_version` and `seed`.
        fields: A pydantic model with the fields to ask for. Bound its strings and lists, or a small
            model may write without end.
        instruction: What each field is to hold, for the LLM to read.
        examples: Texts with their right answers, to go before the question; None for the module's
            own where `fields` is `TechKeywords`, and for none elsewhere.
        model: A model that the Ollama server has pulled.
        text: Column of the texts.
        per_call: Texts per question, 10 as in the article.
        temperature: Low, since the same text deserves the same keywords.
        seed: The first seed.
        concurrency: Questions at once.
        num_ctx: Tokens of question and answer together. A text that can't fit is rejected; Ollama
            would cut it in silence.
        host: Address of the server; None for `OLLAMA_HOST`, or http://127.0.0.1:11434.
        timeout: Seconds that an answer may take.
        give_up_after: Rejections in a row after which the model is said not to be up to it.

    Returns:
        The rows, the rejected ones and the counts.

    Raises:
        ConnectionError, LookupError, TimeoutError, RuntimeError: As `generate_texts`.
        ValueError: A column is missing, or stands in the way of a field; names it.
    """
    started = time.perf_counter()
    out = Path(out)
    frame = texts if isinstance(texts, pd.DataFrame) else pd.read_csv(texts, dtype={text: str})
    if text not in frame:
        raise ValueError(f"There is no column {text!r} among {list(frame.columns)}.")
    names = list(fields.model_fields)
    ours = [*names, "model", "prompt_version", "seed"]
    if taken := [name for name in [*ours, "reason"] if name in frame.columns]:
        raise ValueError(
            f"Column {taken[0]!r} is there already and would be written anew: rename or drop it."
        )
    if min(per_call, concurrency) < 1:
        raise ValueError(f"{per_call=} and {concurrency=} must be at least 1")
    frame = usable(frame, text, label=None)
    if examples is None:
        examples = TECH_EXAMPLES if fields is TechKeywords else ()
    version = _version(ANNOTATE_FORM, instruction, fields.model_json_schema(), examples)
    client = _client(host, timeout)
    _require_model(client, model)
    answer = create_model("Answer", __base__=fields, id=(int, ...))
    schema = answer.model_json_schema()

    system = ANNOTATE_FORM.format(
        instruction=instruction,
        answer=json.dumps(
            {"answers": [{"id": 1, **dict.fromkeys(names, "…")}]}, ensure_ascii=False
        ),
    )
    shown = [{"role": "system", "content": system}]
    if examples:
        asked = [_line(i, string) for i, (string, _) in enumerate(examples, 1)]
        said = [{"id": i, **right.model_dump()} for i, (_, right) in enumerate(examples, 1)]
        shown += [
            {"role": "user", "content": "\n".join(asked)},
            {"role": "assistant", "content": json.dumps({"answers": said}, ensure_ascii=False)},
        ]

    # A token is at least two characters of ordinary text; 240 are left for an answer.
    room = 2 * (num_ctx - 240) - len(str(shown))

    def ask(numbered: list[tuple[int, str]], number: int) -> tuple[dict[int, Any], str, str]:
        """Return the usable answers by id, why the whole is cut short if it is, and the answer."""
        n = len(numbered)
        bound = {"type": "array", "items": _without_defs(schema), "minItems": n, "maxItems": n}
        question = {
            "model": model,
            "messages": [
                *shown,
                {"role": "user", "content": "\n".join(_line(*item) for item in numbered)},
            ],
            "format": {
                "type": "object",
                "properties": {"answers": bound},
                "required": ["answers"],
                **({"$defs": schema["$defs"]} if "$defs" in schema else {}),
            },
            "options": {
                "temperature": temperature,
                "seed": number,
                "num_predict": min(240 * n, num_ctx // 2),
                "num_ctx": num_ctx,
            },
        }
        content, reason = _chat(client, question)
        found, poor = _by_id(answer, content, {i for i, _ in numbered}, examples)
        return found, reason or poor, content

    def work(batch: list[tuple[int, str, int]]) -> list[tuple[int, Any, str, int]]:
        """Return position, fields or raw answer, reason and seed for each text of a batch."""
        if (first := batch[0][1]) and len(batch) == 1 and len(first) > room:
            return [(batch[0][0], "", f"too long for num_ctx={num_ctx}", batch[0][2])]
        done: dict[int, tuple[int, Any, str, int]] = {}
        # Drawn at random, so that no model can get away with counting on.
        ids = random.Random(batch[0][2]).sample(range(10, 100 + len(batch)), len(batch))
        groups = [(list(zip(ids, batch, strict=True)), 0)]
        while groups:
            group, tries = groups.pop()
            number = group[0][1][2] + 1_000_000 * tries
            got, reason, content = ask([(i, string) for i, (_, string, _) in group], number)
            for i, (position, _, _) in group:
                if i in got:
                    done[position] = (position, got[i], "", number)
            left = [item for item in group if item[1][0] not in done]
            if len(left) > 1:
                half = (len(left) + 1) // 2
                groups += [(left[half:], tries), (left[:half], tries)]
            elif left and tries < 2:
                groups.append((left, tries + 1))
            elif left:
                position = left[0][1][0]
                done[position] = (position, content, reason or "wrong schema", number)
        return [done[position] for position, _, _ in batch]

    given = list(frame.columns)
    columns = [*given, *ours]
    with (
        _locked(out),
        _Appender(out, columns) as kept,
        _Appender(_beside(out), [*given, "answer", *ours[-3:], "reason"]) as bad,
    ):
        done: Counter[str] = Counter()
        for file in (kept, bad):
            done.update(_of_plan(file.before, model, version)[text])
        have = len(_of_plan(kept.before, model, version))
        refused = len(_of_plan(bad.before, model, version))
        open_rows: deque[tuple[int, str, int]] = deque()
        for position, string in enumerate(frame[text]):
            if done[string]:
                done[string] -= 1
            else:
                open_rows.append((position, string, seed + position))

        def next_job() -> list[tuple[int, str, int]] | None:
            batch: list[tuple[int, str, int]] = []
            while open_rows and len(batch) < per_call:
                if batch and sum(len(row[1]) for row in batch) + len(open_rows[0][1]) > room / 2:
                    break
                batch.append(open_rows.popleft())
            return batch or None

        running = 0
        bar = tqdm(total=len(frame), initial=have + refused, desc=out.name)
        with (
            bar,
            _explained(out, lambda: have + refused, len(frame)),
            closing(_ahead(work, next_job, concurrency)) as answered,
        ):
            for batch, answers in answered:
                good, poor = [], []
                for position, value, why, number in answers:
                    row = [None if pd.isna(cell) else cell for cell in frame.iloc[position]]
                    if why:
                        poor.append([*row, value, model, version, number, why])
                        running += 1
                    else:
                        cells = [_cell(getattr(value, name)) for name in names]
                        good.append([*row, *cells, model, version, number])
                        running = 0
                kept.write(*good)
                bad.write(*poor)
                have, refused = have + len(good), refused + len(poor)
                bar.set_postfix(usable=have, rejected=refused, refresh=False)
                bar.update(len(batch))
                if running >= give_up_after:
                    raise _not_up_to_it(model, running, poor[-1][-1], poor[-1][len(given)], out)
    return _finished(out, model, version, started)


def tidy(text: str) -> str:
    """Take off what an LLM puts around a text: white space, quotation marks, a final stop or '!'.

    For every label alike. Models end clickbait in '!' and nothing else (65% against 0% in one run),
    and a classifier trained on that has learnt to look for the sign.

    Example:
        >>> tidy(' "Nobody saw this coming!" '), tidy("Is it over?")
        ('Nobody saw this coming', 'Is it over?')
    """
    text = " ".join(unicodedata.normalize("NFC", text).split())
    before = None
    while text != before:
        before = text
        text = re.sub(r"[\s.!…,;:]+$", "", text)
        inside = text[1:-1]
        # '"A" or "B"' isn't wrapped; the apostrophe in "'It's over'" is no quotation mark.
        if (text[:1] + text[-1:]) in _QUOTES and not re.search(
            r"(?<!\w)[{0}]|[{0}](?!\w)".format(re.escape(text[0] + text[-1])), inside
        ):
            text = inside.strip()
    return text


_tidy = tidy  # `generate_texts` has a parameter of that name
_QUOTES = ('""', "''", "“”", "‘’", "„“", "«»", "``", "**")
# How a model talks about its answer instead of giving it.
_META = re.compile(
    r"^(sure|certainly|of course|here('s| is| are)\b.*:|title\s*:|style\s*:|topic\s*:|as an ai)"
    r"|\bas an ai\b|\blanguage model\b|^\W*(…|\.\.\.)\W*$|\[[^\]]*\]|<[^>]*>|\{|\}|\n|\\n",
    re.IGNORECASE,
)


def _unusable(
    text: str,
    kind: str,
    labels: Sequence[str],
    words: tuple[int, int],
    copied: Sequence[str],
    earlier: Sequence[str],
) -> str:
    """Say why a text can't be used, or '' where it can."""
    count = len(text.split())
    if count < words[0]:
        return "too short"
    if count > words[1]:
        return "too long"
    named = [rf"\b{re.escape(name)}\s+{re.escape(kind)}" for name in labels]
    if _META.search(text) or any(re.search(name, text, re.IGNORECASE) for name in named):
        return "meta text"
    if first_duplicate(text, copied, 80) is not None:
        return "copied example"
    if (first := first_duplicate(text, earlier)) is not None:
        same = text.casefold() == earlier[first].casefold()
        return "duplicate" if same else "near duplicate"
    return ""


def _not_up_to_it(model: str, running: int, why: str, answer: Any, out: Path) -> RuntimeError:
    return RuntimeError(
        f"{model} isn't up to this: {running} rejections in a row, the last for {why!r}: "
        f"{str(answer)[:200]!r}. Try a larger model, or fewer texts a call; {_beside(out)} has all."
    )


# --- Asking --------------------------------------------------------------------------------------


def _client(host: str | None, timeout: float) -> ollama.Client:
    return ollama.Client(host=host, timeout=timeout)


def _require_model(client: ollama.Client, model: str) -> None:
    try:
        client.show(model)
    except ollama.ResponseError as error:
        if error.status_code == 404:
            raise LookupError(
                f"The Ollama server doesn't have {model!r}. Run: ollama pull {model}"
            ) from error
        raise RuntimeError(f"The Ollama server answers {error.status_code}: {error}") from error
    except (ConnectionError, httpx.TransportError) as error:
        raise ConnectionError(_NO_SERVER.format(_address(client))) from error


_NO_SERVER = (
    "No Ollama server answers at {}. Start one with: ollama serve (to install it: "
    "https://ollama.com/download), or name another with host= or OLLAMA_HOST."
)


def _address(client: ollama.Client) -> str:
    return str(client._client.base_url)


def _may_pass(error: BaseException) -> bool:
    """Whether to try again: the server is busy or starting, or the connection broke."""
    if isinstance(error, ollama.ResponseError):
        return error.status_code in (429, 500, 502, 503, 504)
    return isinstance(error, (ConnectionError, httpx.TransportError))


def _chat(client: ollama.Client, question: dict[str, Any]) -> tuple[str, str]:
    """Return the answer, and '' or the reason why it can't be used."""
    timeout = client._client.timeout.read or 0
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        wait=tenacity.wait_random_exponential(multiplier=0.25, max=30),
        stop=tenacity.stop_after_attempt(6) | tenacity.stop_after_delay(2 * timeout),
        reraise=True,
    )
    try:
        response = retry(client.chat, keep_alive="15m", **question)
    except httpx.TimeoutException as error:
        raise TimeoutError(
            f"{question['model']} took longer than {timeout:.0f} s for an answer, twice. Raise "
            "timeout=, lower concurrency=, or take a smaller model."
        ) from error
    except ollama.ResponseError as error:
        if error.status_code == 503:
            raise ConnectionError(
                f"The Ollama server at {_address(client)} stays busy (503). Lower concurrency=, or "
                "raise its OLLAMA_MAX_QUEUE."
            ) from error
        if error.status_code == 404:
            raise LookupError(f"Run: ollama pull {question['model']}") from error
        raise RuntimeError(f"The Ollama server answers {error.status_code}: {error}") from error
    except (ConnectionError, httpx.TransportError) as error:
        raise ConnectionError(_NO_SERVER.format(_address(client))) from error
    except (ValueError, ValidationError) as error:  # no JSON, or none of Ollama's
        return str(error)[:500], "garbled answer"
    content = response.message.content or ""
    if response.done_reason == "length":
        return content, "truncated"
    if not response.done:  # as after many repeated tokens
        return content, "ended early"
    return content, ""


Job = TypeVar("Job")
Result = TypeVar("Result")


def _ahead(
    work: Callable[[Job], Result], next_job: Callable[[], Job | None], concurrency: int
) -> Generator[tuple[Job, Result]]:
    """Work on several jobs at once; yield each with its result, in the order they were given out.

    What `next_job` gives out may depend on what was made of earlier results; None means nothing
    for the moment. The order doesn't depend on who is first, so a run is the same every time.
    """
    pool = ThreadPoolExecutor(concurrency)
    waiting: deque[tuple[Job, Future[Result]]] = deque()
    try:
        while True:
            # Twice as many as are worked on, so that one slow answer doesn't hold up the others.
            while len(waiting) < 2 * concurrency and (job := next_job()) is not None:
                waiting.append((job, pool.submit(work, job)))
            if not waiting:
                return
            job, future = waiting.popleft()
            yield job, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _one_answer(field: str) -> type[BaseModel]:
    length = Field(min_length=8, max_length=400)
    return create_model("Answer", **{field: (Annotated[str, length], ...)})  # type: ignore[call-overload]


def _list_answer(field: str, n: int) -> type[BaseModel]:
    items = Annotated[str, Field(min_length=8, max_length=400)]
    bound = Field(min_length=1, max_length=n)
    return create_model("Answers", **{field + "s": (Annotated[list[items], bound], ...)})  # type: ignore[call-overload]


def _texts(answer: type[BaseModel], content: str, field: str, per_call: int) -> list[str]:
    try:
        parsed = answer.model_validate_json(content)
    except ValidationError:
        return []
    return getattr(parsed, field + "s") if per_call > 1 else [getattr(parsed, field)]


def _by_id(
    answer: type[BaseModel],
    content: str,
    wanted: set[int],
    examples: Sequence[tuple[str, BaseModel]],
) -> tuple[dict[int, Any], str]:
    """Return the usable answers by id, and why another isn't; one that comes twice is none."""
    try:
        entries = json.loads(content)["answers"]
    except (ValueError, TypeError, KeyError):
        return {}, ""
    copied = [right.model_dump() for _, right in examples]
    found: dict[int, Any] = {}
    seen: Counter[int] = Counter()
    poor = ""
    for entry in entries if isinstance(entries, list) else []:
        try:
            valid: Any = answer.model_validate(entry)
        except ValidationError:
            continue
        seen[valid.id] += 1
        values = valid.model_dump(exclude={"id"})
        if values in copied:
            poor = "copied example"
        elif any(map(_stutters, values.values())):
            poor = "repeats itself"
        elif valid.id in wanted:
            found[valid.id] = valid
    return {i: valid for i, valid in found.items() if seen[i] == 1}, poor


def _stutters(value: Any) -> bool:
    """Whether a list says each item twice or more on average, or a string its words; or nothing."""
    if isinstance(value, str):
        value = re.findall(r"\w+", value.casefold())
        return not value or len(value) > 2 * len(set(value))
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return len(value) > 1.5 * len({item.casefold() for item in value})
    return False


def _line(number: int, text: str) -> str:
    return json.dumps({"id": number, "text": text}, ensure_ascii=False)


def _without_defs(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "$defs"}


def _cell(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return ", ".join(split_keywords([str(part) for part in value]))
    return " ".join(value.split()) if isinstance(value, str) else value


def _version(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


# --- Files that a kill can't spoil ---------------------------------------------------------------


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}.rejected{out.suffix}")


class _Appender:
    """A CSV that grows row by row; what stood in it before is in `before`."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.path, self.columns = path, columns

    def __enter__(self) -> _Appender:
        whole = _whole_rows(self.path.read_bytes()) if self.path.is_file() else 0
        if whole:
            with self.path.open("rb+") as file:
                file.truncate(whole)  # a line that a kill tore
            self.before = _read(self.path)
            if list(self.before.columns) != self.columns:
                raise ValueError(
                    f"{self.path} has the columns {list(self.before.columns)}, not {self.columns}. "
                    "Name another file."
                )
            self.before["seed"] = self.before["seed"].astype(int)
        else:
            self.before = pd.DataFrame(columns=self.columns)
        self.file = self.path.open(
            "r+" if self.path.is_file() else "w", encoding="utf-8", newline=""
        )
        self.file.truncate(whole)
        self.file.seek(0, os.SEEK_END)
        self.writer = csv.writer(self.file, lineterminator="\n")
        if not whole:
            self.write(self.columns)
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, *rows: Sequence[Any]) -> None:
        self.writer.writerows(rows)
        self.file.flush()


def _whole_rows(raw: bytes) -> int:
    """Return the number of bytes up to the end of the last whole row."""
    end = position = quotes = 0
    for line in raw.splitlines(keepends=True):
        position += len(line)
        quotes += line.count(b'"')  # odd within a quoted cell, which may span lines
        if line.endswith(b"\n") and quotes % 2 == 0:
            end = position
    return end


def _read(path: Path) -> pd.DataFrame:
    """Read a file of ours back; a title such as 'None' or '007' stays as it is."""
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def _of_plan(
    rows: pd.DataFrame, model: str, version: str, labels: Sequence[str] | None = None
) -> pd.DataFrame:
    mine = (rows["model"] == model) & (rows["prompt_version"] == version)
    if labels is not None:
        mine &= rows["label"].isin(list(labels))
    return rows[mine]


def _finished(
    out: Path, model: str, version: str, started: float, labels: Sequence[str] | None = None
) -> Synthesis:
    rows, rejected = (
        _of_plan(_read(path).astype({"seed": int}), model, version, labels)
        for path in (out, _beside(out))
    )
    return Synthesis(
        out,
        rows.reset_index(drop=True),
        rejected.reset_index(drop=True),
        time.perf_counter() - started,
    )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
    try:
        with lock:
            yield
    except filelock.Timeout as error:
        raise RuntimeError(
            f"Another process is writing {out}. Wait for it, or name another file."
        ) from error


@contextmanager
def _explained(out: Path, have: Callable[[], int], wanted: int) -> Iterator[None]:
    """Say, when it stops early, what is there and how to go on."""
    try:
        yield
    except BaseException as error:
        tqdm.write(
            f"Stopped at {have():,} of {wanted:,}; all of it is in {out}. To go on, run the same "
            f"again. ({type(error).__name__})"
        )
        raise


# --- Command line --------------------------------------------------------------------------------

app = typer.Typer(
    help="Let a local LLM, served by Ollama, write training texts or annotate texts of yours. Both "
    "can be stopped at any time (Ctrl-C, or a kill); the same command goes on where it was.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_Model = Annotated[str, typer.Option(help="An Ollama model; get it with: ollama pull MODEL")]
_Host = Annotated[
    str | None, typer.Option(help="Address of the server, else OLLAMA_HOST or this machine's.")
]
_Concurrency = Annotated[int, typer.Option(help="Questions at once; see OLLAMA_NUM_PARALLEL.")]
_Timeout = Annotated[float, typer.Option(help="Seconds that an answer may take.")]
_Seed = Annotated[int, typer.Option(help="The first seed.")]


@app.command("titles")
def _titles(
    model: _Model = "phi3",
    per_label: Annotated[int, typer.Option(help="Usable titles wanted per label.")] = 500,
    out: Annotated[Path, typer.Option(help="CSV to write, or to go on with.")] = Path("titles.csv"),
    topics: Annotated[
        Path | None, typer.Option(help="Text file with a topic per line, instead of the built-in.")
    ] = None,
    per_call: Annotated[int, typer.Option(help="Titles per question; 1 is the most varied.")] = 1,
    temperature: Annotated[float, typer.Option(help="Above 0; higher is more varied.")] = 0.9,
    seed: _Seed = 0,
    concurrency: _Concurrency = 4,
    host: _Host = None,
    timeout: _Timeout = 120,
) -> None:
    """Write clickbait and factual titles, an equal number of each, into a CSV.

    The CSV has the columns text, label, topic, style, model, prompt_version and seed. What was
    rejected lies beside it, in NAME.rejected.csv, with the reason.
    """
    subjects: Sequence[str] = TOPICS
    if topics is not None:
        subjects = [line.strip() for line in topics.read_text("utf-8").splitlines() if line.strip()]
    _run(
        lambda: generate_texts(
            out,
            model=model,
            per_label=per_label,
            topics=subjects,
            per_call=per_call,
            temperature=temperature,
            seed=seed,
            concurrency=concurrency,
            host=host,
            timeout=timeout,
        )
    )


@app.command("annotate")
def _annotate(
    source: Annotated[Path, typer.Option("--in", help="CSV with a column of texts.")],
    model: _Model = "phi3",
    out: Annotated[Path, typer.Option(help="CSV to write, or to go on with.")] = Path(
        "annotated.csv"
    ),
    text: Annotated[str, typer.Option(help="Name of the column of texts.")] = "text",
    per_call: Annotated[int, typer.Option(help="Texts per question.")] = 10,
    seed: _Seed = 0,
    concurrency: _Concurrency = 4,
    host: _Host = None,
    timeout: _Timeout = 300,
) -> None:
    """Give every text of a CSV keywords, a topic and a summary.

    All columns of the CSV are kept. What couldn't be annotated lies beside the result, in
    NAME.rejected.csv, with the reason.
    """
    _run(
        lambda: annotate(
            source,
            out,
            model=model,
            text=text,
            per_call=per_call,
            seed=seed,
            concurrency=concurrency,
            host=host,
            timeout=timeout,
        )
    )


def _run(work: Callable[[], Synthesis]) -> None:
    try:
        typer.echo(work())
        return
    except (OSError, LookupError, RuntimeError, ValueError) as error:
        typer.echo(f"Error: {error}", err=True)
        status = 1
    except KeyboardInterrupt:
        status = 130
    # An ordinary exit would wait for the questions under way; there is nothing left to lose.
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    app()
