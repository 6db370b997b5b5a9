"""Let an LLM write labelled texts; `annotate` lets it annotate texts of yours."""

from __future__ import annotations

import json
import random
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import count, cycle, product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, create_model

from cookbook import tables
from cookbook.annotation import ANNOTATE as ANNOTATE
from cookbook.annotation import TechKeywords as TechKeywords
from cookbook.annotation import annotate as annotate
from cookbook.annotation import asset, turn
from cookbook.answers import Answer, Run, fingerprint, read_json
from cookbook.answers import Synthesis as Synthesis
from cookbook.llm import Llm, connect, in_order
from cookbook.quality import first_duplicate
from cookbook.words import ENDS, tokens


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


SUBJECT = "Topic: {topic}\nStyle: {style}"
# A row's `prompt_version` is a hash of all that shapes the question, so that a changed prompt,
# definition or example is another version by itself.
WRITE, WRITE_LIST = asset("write.txt"), asset("write_list.txt")
TOPICS, STYLES = (tuple(asset(f"{name}.txt").splitlines()) for name in ("topics", "styles"))
"""What titles are written about, and in which manner, unless told otherwise."""
CLICKBAIT = tuple(
    Label(one["name"], one["definition"], tuple(map(tuple, one["examples"])))
    for one in json.loads(asset("clickbait.json"))
)
"""The labels `clickbait` and `factual` with their definitions and examples."""
_COLUMNS = ("text", "label", "topic", "style", "model", "prompt_version", "seed")


def tidy(text: str) -> str:
    """Take off what an LLM puts around a text: white space, quotation marks, a final stop or '!'.

    For every label alike, or a classifier learns to look for the sign.

    Example:
        >>> tidy(' "Nobody saw this coming!" '), tidy("Is it over?"), tidy("「終わり。」")
        ('Nobody saw this coming', 'Is it over?', '終わり')
    """
    text = " ".join(unicodedata.normalize("NFC", text).split())
    before = None
    while text != before:
        before = text
        text = re.sub(_FINAL, "", text)
        ends, inside = text[:1] + text[-1:], text[1:-1]
        # '"A" or "B"' isn't wrapped; the apostrophe in "'It's over'" is no quotation mark.
        if ends in _PAIRS.split() and not set(ends) & set(re.sub(r"\b['’]\b", "", inside)):
            text = inside.strip()
    return text


_FINAL = rf"[\s,;:，、；：،؛{re.sub('[?？؟]', '', ENDS)}]+$"
_PAIRS = "\"\" '' `` ** “” „“ „” ‘’ «» »« ‹› 「」 『』 《》 〈〉 【】 ＂＂"


def generate_texts(
    out: str | Path,
    labels: Sequence[Label] = CLICKBAIT,
    *,
    model: str | Llm = "phi3",
    per_label: int = 500,
    kind: str = "title",
    language: str | None = None,
    topics: Sequence[str] = TOPICS,
    styles: Sequence[str] = STYLES,
    words: tuple[int, int] = (3, 30),
    tidy: Callable[[str], str] | None = tidy,
    per_call: int = 1,
    temperature: float = 0.9,
    seed: int = 0,
    concurrency: int = 4,
    host: str | Sequence[str] | None = None,
    timeout: float = 120,
    give_up_after: int = 50,
) -> Synthesis:
    """Let an LLM write texts for a classifier: an equal number of usable ones per label.

    Every row has its own place in a grid of topics and styles, the same for every label, and its
    own examples and seed. Killed at any moment, the same call goes on where it was: answers stand
    in `<name>.answers.csv`. Rows of another model or prompt stay in the file, and don't count.

    Args:
        out: CSV to write or to go on with: `text`, `label`, `topic`, `style`, `model`,
            `prompt_version`, `seed`.
        labels: The labels, each with its definition and examples.
        model: A model that the Ollama server has pulled, or one on any server, from `llm.connect`.
        per_label: Usable texts wanted per label.
        kind: What a text is called in the prompt, such as 'title' or 'support request'.
        language: The language to write in, such as 'Swedish'; None for that of the examples.
        topics: What the texts are to be about.
        styles: How they are to be written. The same for every label, or style gives it away.
        words: Fewest and most words of a usable text.
        tidy: Applied to every text; None leaves it as it is.
        per_call: Texts per question. A small model repeats itself in a list.
        temperature: Above 0, or the seed has no effect.
        seed: The first seed.
        concurrency: Questions at once, a server. More than its `OLLAMA_NUM_PARALLEL` only queue.
        host: Address of the server, or several; None for `OLLAMA_HOST`, or this machine's.
        timeout: Seconds that an answer may take.
        give_up_after: Rejections in a row after which the model is said not to be up to it.

    Returns:
        The rows, the rejected ones and the counts.

    Raises:
        ConnectionError, LookupError, PermissionError, TimeoutError: As `llm.connect`, `Llm.ask`.
        RuntimeError: Too many rejections in a row, another run is writing `out`, or as `Llm.ask`.
        ValueError: A parameter can't be right, or a file isn't of such a run; it stays as it is.
    """
    names = [label.name for label in labels]
    if min(per_label, per_call, concurrency) < 1 or not topics or not styles or temperature <= 0:
        raise ValueError(
            f"{per_label=}, {per_call=}, {concurrency=} and {temperature=} must be positive, and "
            "topics and styles must not be empty"
        )
    if len(set(names)) < max(len(names), 1) or not all(label.examples for label in labels):
        raise ValueError(f"Give each label one name of its own, and examples: {names}")
    llm = connect(model, host, timeout)
    form = _Form(labels, kind, styles, words, per_call, temperature, llm.digest, language)
    run = Run(Path(out), _COLUMNS, _COLUMNS, (llm.model, form.version), give_up_after)
    with run.open(per_label * len(labels)) as bar:
        kept, refused = run.rows()
        asked = set(pd.concat([kept, refused])[["label", "topic", "seed"]].itertuples(index=False))
        jobs = {
            label.name: _jobs(label, topics, styles, count(seed + i, len(labels)), asked)
            for i, label in enumerate(labels)
        }
        have, in_flight = Counter(kept["label"]), Counter[str]()
        bar.update(sum(have[name] for name in names))
        earlier = run.kept.before["text"].tolist()

        def next_job() -> Job | None:
            """Give out a question for the label with fewest texts, open questions counted in."""
            name = min(names, key=lambda name: have[name] + in_flight[name])
            if have[name] + in_flight[name] >= per_label:
                return None
            in_flight[name] += per_call
            return next(jobs[name])

        def ask(job: Job) -> Answer:
            return llm.ask(*form.question(*job), run.journal)

        with closing(in_order(ask, next_job, llm.at_once(concurrency))) as answers:
            for (label, topic, style, number), answer in answers:
                good, bad = form.judge(answer, tidy or str, earlier)
                good = good[: per_label - have[label.name]]
                have[label.name] += len(good)
                in_flight[label.name] -= per_call
                bar.update(len(good))
                row = (label.name, topic, style, *run.plan, number)
                rejected = [(text, *row, why) for text, why in bad]
                run.add([(text, *row) for text in good], rejected, answer.content)
    return run.result()


def more_like(
    mistakes: Any,
    out: str | Path,
    labels: Sequence[Label] = CLICKBAIT,
    *,
    groups: int = 4,
    per_label: int = 10,
    held_out: Iterable[str] = (),
    text: str = "text",
    **options: Any,
) -> pd.DataFrame:
    """Let an LLM write in the manner of texts that a model has wrong, or isn't sure of.

    They are grouped by what they have in common on their surface, and each group is shown as the
    manner to write in, for every label alike, or the manner would give the label away.

    Args:
        mistakes: Table of mistakes on the validation split, or of unlabelled texts that the model
            isn't sure of. Never of what it is measured on.
        out: CSV to write or to go on with, as for `generate_texts`.
        labels: The labels, each with its definition and examples.
        groups: Into how many groups.
        per_label: Usable texts wanted per group and label.
        held_out: Texts that are measured on: the test split's, a challenge set's, real ones.
        text: Column of the texts.
        **options: Of `generate_texts`.

    Returns:
        The rows of `generate_texts`, with `like`: a text of the group. Near copies of the mistakes
        and of `held_out` are left out; a warning counts them.

    Raises:
        ValueError: A mistake is (nearly) one of `held_out`: that would be training on the test.
    """
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    shown = tables.read(mistakes, [text])[text].drop_duplicates().tolist()
    unseen = list(held_out)
    for one in shown:
        if (place := first_duplicate(one, unseen)) is not None:
            raise ValueError(
                f"{one!r} is (nearly) {unseen[place]!r}, which is measured on: take mistakes on "
                "the validation split."
            )
    groups = min(groups, len(set(map(str.lower, shown))))  # what the vectors see
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit_transform(shown)
    found = KMeans(groups, random_state=0, n_init=3).fit_predict(vectors)
    rows = []
    for group in range(groups):
        alike = [one for one, number in zip(shown, found, strict=True) if number == group][:6]
        manner = "\nWrite in the manner of these, on the topic given, copying none of them:\n"
        manner += "\n".join(f"- {one}" for one in alike)
        wanted = [replace(label, definition=label.definition + manner) for label in labels]
        run = generate_texts(out, wanted, per_label=per_label, **options)
        rows.append(run.rows.assign(like=alike[0]))
    table = pd.concat(rows, ignore_index=True)
    copies = [first_duplicate(one, [*shown, *unseen], 80) is not None for one in table["text"]]
    if any(copies):
        told = f"{sum(copies)} of {len(copies)} texts are near copies of what they were to be like"
        warnings.warn(f"{told}, or of what is measured on, and left out.", stacklevel=2)
    return table[~np.array(copies, bool)].reset_index(drop=True)


Job = tuple[Label, str, str, int]  # label, topic, style and seed of a question


def _jobs(
    label: Label, topics: Sequence[str], styles: Sequence[str], seeds: Iterator[int], asked: Any
) -> Iterator[Job]:
    """Yield a label's open questions: other seeds than another label's, the same topics."""
    grid = list(product(topics, styles))
    random.Random(0).shuffle(grid)
    for (topic, style), seed in zip(cycle(grid), seeds, strict=False):
        if (label.name, topic, seed) not in asked:
            yield label, topic, style, seed


@dataclass
class _Form:
    """What is asked about a topic in a style, and what is taken for an answer."""

    labels: Sequence[Label]
    kind: str
    styles: Sequence[str]
    words: tuple[int, int]
    per_call: int
    temperature: float
    digest: str
    language: str | None

    def __post_init__(self) -> None:
        several = self.per_call > 1
        self.template = WRITE_LIST if several else WRITE
        self.field = re.sub(r"\W+", "_", self.kind).strip("_") + "s" * several
        shape: Any = Annotated[str, Field(min_length=3, max_length=400)]
        if several:
            shape = Annotated[list[shape], Field(min_length=1, max_length=self.per_call)]
        self.answer = create_model("Answer", **{self.field: (shape, ...)})  # type: ignore[call-overload]
        names = "|".join(re.escape(label.name) for label in self.labels)
        meta = asset("meta_text.txt").replace("KIND", re.escape(self.kind))
        self.meta = re.compile(meta.replace("LABEL", names))
        self.copied = [text for label in self.labels for _, text in label.examples]
        shaping = {**asdict(self), "words": None, "prompt": [self.template, SUBJECT]}
        if not self.language:  # so that what was written before languages could be chosen counts
            del shaping["language"]
        self.version = fingerprint(shaping)[:8]

    def question(self, label: Label, topic: str, style: str, seed: int) -> tuple[Any, Any, Any]:
        rng = random.Random(f"{label.name} {seed}")

        def said(*texts: str) -> Any:
            return {self.field: texts if self.per_call > 1 else texts[0]}

        system = self.template.format(
            kind=self.kind,
            label=label.name,
            definition=label.definition,
            n=self.per_call,
            answer=json.dumps(said("…", "…")),
        )
        system += f"\nWrite in {self.language}." if self.language else ""
        messages = [{"role": "system", "content": system}]
        shown = [example for example in label.examples if example[0] != topic]
        for about, text in rng.sample(shown, min(3, len(shown))):
            messages += turn(SUBJECT.format(topic=about, style=rng.choice(self.styles)), said(text))
        messages.append({"role": "user", "content": SUBJECT.format(topic=topic, style=style)})
        room = 80 * self.per_call
        options = {"temperature": self.temperature, "seed": seed, "num_predict": room}
        options["num_ctx"] = 2048 + room
        return messages, self.answer.model_json_schema(), options

    def judge(
        self, answer: Answer, tidy: Callable[[str], str], earlier: list[str]
    ) -> tuple[list[str], list[tuple[str, str]]]:
        """Return the usable texts of an answer, and the others with their reasons.

        The usable ones are put to the earlier ones.
        """
        try:
            if answer.reason:
                raise ValueError(answer.reason)
            said = getattr(read_json(answer.content, self.answer), self.field)
        except ValueError as error:
            return [], [(answer.content, str(error))]
        good, bad = [], []
        for raw in said if self.per_call > 1 else [said]:
            text = tidy(raw)
            if why := self.fault(text, earlier):
                bad.append((raw, why))
            else:
                good.append(text)
                earlier.append(text)
        return good, bad

    def fault(self, text: str, earlier: Sequence[str]) -> str:
        """Say why a text can't be used, or '' where it can."""
        spaced, count = len(text.split()), len(tokens(text))
        if max(spaced, count) < self.words[0]:
            return "too short"
        if (spaced + count) / 2 > self.words[1]:  # a word of Chinese is some two characters
            return "too long"
        if self.meta.search(text):
            return "meta text"
        if first_duplicate(text, self.copied, 80) is not None:
            return "copied example"
        if (first := first_duplicate(text, earlier)) is not None:
            same = text.casefold() == earlier[first].casefold()
            return "duplicate" if same else "near duplicate"
        return ""
