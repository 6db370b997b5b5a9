"""Let an LLM annotate texts of yours."""

from __future__ import annotations

import csv
import io
import json
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, Field, create_model
from tqdm.auto import tqdm

from cookbook import tables
from cookbook.answers import Journal, Run, Synthesis, fingerprint, json_values, tolerant, validated
from cookbook.llm import Llm, connect, in_order
from cookbook.tables import asset as asset
from cookbook.words import join_keywords, tokens

# Bounded, or a small model may write without end.
Keywords = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=60)]], Field(min_length=1, max_length=8)
]
Phrase = Annotated[str, Field(min_length=2, max_length=120)]


class TechKeywords(BaseModel):
    """What `annotate` asks for by default: the columns that the second article trains on."""

    keywords: Keywords
    topic: Annotated[str, Field(min_length=2, max_length=60)]
    summary: Phrase


def turn(asked: str, said: Any) -> list[dict[str, str]]:
    """Return a question and its right answer, as messages.

    Example:
        >>> [message["role"] for message in turn("A title", {"title": "Tea"})]
        ['user', 'assistant']
    """
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": _json(said)}]


ANNOTATE, ANNOTATE_FORM = asset("annotate.txt"), asset("annotate_form.txt")
TECH_EXAMPLES = tuple(
    (one.pop("text"), TechKeywords(**one)) for one in json.loads(asset("tech_keywords.json"))
)
"""Tech posts with their keywords, topics and summaries, which `annotate` shows the LLM."""


def annotate(
    texts: tables.Table,
    out: str | Path,
    *,
    fields: type[BaseModel] = TechKeywords,
    instruction: str = ANNOTATE,
    examples: Sequence[tuple[str, BaseModel]] | None = None,
    model: str | Llm = "phi3",
    text: str = "text",
    per_call: int = 10,
    temperature: float = 0.2,
    seed: int = 0,
    concurrency: int = 4,
    num_ctx: int = 8192,
    host: str | Sequence[str] | None = None,
    timeout: float = 300,
    give_up_after: int = 50,
) -> Synthesis:
    """Let an LLM annotate texts: keywords, topic and summary, or any fields you define.

    Several texts go into one question; answers are matched to them by an id. What is missing or
    bad is asked twice again, each text alone, and then lies in `<name>.rejected.csv` with its
    reason. A row that stands in `out` with all its cells isn't annotated again.

    Args:
        texts: Any table that `tables.read` takes; all its columns are kept.
        out: CSV to write or to go on with: the columns of `texts`, one per field (a list as
            'a, b, c'), `model`, `prompt_version`, `seed`; '_predicted' goes behind a taken name.
        fields: A pydantic model with the fields to ask for. Bound its strings and lists, or a small
            model may write without end.
        instruction: What each field is to hold, for the LLM to read.
        examples: Texts with their right answers, to go before the question; None for the module's
            own where `fields` is `TechKeywords`, and for none elsewhere.
        model: A model that the Ollama server has pulled, or one on any server, from `llm.connect`.
        text: Column of the texts.
        per_call: Texts per question, 10 as in the article.
        temperature: Low, since the same text deserves the same keywords.
        seed: The first seed.
        concurrency: Questions at once, of each server.
        num_ctx: Tokens of question and answer together. A text that can't fit is rejected.
        host: Address of the server, or several; None for `OLLAMA_HOST`, or this machine's.
        timeout: Seconds that an answer may take.
        give_up_after: Rejections in a row after which the model is said not to be up to it.

    Returns:
        The rows, the rejected ones and the counts.

    Raises:
        ConnectionError, LookupError, TimeoutError, RuntimeError: As `synthesis.generate_texts`.
        ValueError: A column is missing, no row has a text, or a file is of something else.
    """
    if min(per_call, concurrency) < 1 or "id" in fields.model_fields:
        raise ValueError(f"{per_call=}, {concurrency=}: at least 1 each; and no field called 'id'")
    given, rows = _filled(tables.read(texts, [text]), text)
    if examples is None:
        examples = TECH_EXAMPLES if fields is TechKeywords else ()
    llm = connect(model, host, timeout)
    asker = _Asker(llm, fields, instruction, examples, temperature, seed, num_ctx)
    columns = list(given)
    for name in [*fields.model_fields, "model", "prompt_version", "seed"]:
        columns.append(tables.free_name(name, columns))
    rejected = [*given, tables.free_name("answer", columns), *columns[-3:]]
    plan = (llm.model, asker.version)
    run = Run(Path(out), columns, rejected, plan, give_up_after)
    with run.open(len(rows)) as bar:
        left = _left(rows, run)
        if known := len(rows) - len(left):
            bar.update(known)
            tqdm.write(f"{known:,} of {len(rows):,} rows stand in {out} already, cell by cell.")
        place = given.index(text)
        batches = asker.batches({at: rows[at][place] for at in left}, per_call)

        def ask(batch: Batch) -> Found:
            return asker.ask(batch, run.journal)

        at_once = llm.at_once(concurrency)
        with closing(in_order(ask, lambda: next(batches, None), at_once)) as answers:
            for batch, found in answers:
                good, bad = [], []
                for position, (value, why, number) in found.items():
                    if why:
                        bad.append([*rows[position], value, *plan, number, why])
                    else:
                        cells = map(_cell, value.values())
                        good.append([*rows[position], *cells, *plan, number])
                run.add(good, bad, str(value))
                bar.update(len(batch))
    return run.result()


def _filled(frame: pd.DataFrame, text: str) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the columns, and the rows with a text as a CSV holds them."""
    file = io.StringIO(newline="")
    write_row = tables.csv_writer(file)
    for row in frame.itertuples(index=False, name=None):
        write_row(row)
    file.seek(0)
    place = frame.columns.tolist().index(text)
    rows = [tuple(row) for row in csv.reader(file) if row[place].strip()]
    if blank := len(frame) - len(rows):
        told = f"{blank:,} of {len(frame):,} rows have no text in {text!r}"
        if not rows:
            raise ValueError(f"{told}: there is nothing to annotate.")
        warnings.warn(f"{told} and are left out.", stacklevel=3)
    return frame.columns.tolist(), rows


def _left(rows: Sequence[tuple[str, ...]], run: Run) -> list[int]:
    """Return the positions of the rows that don't stand in the files yet."""
    there = Counter(tuple(row[: len(rows[0])]) for part in run.rows() for row in part.to_numpy())
    left = []
    for position, row in enumerate(rows):
        there[row] -= 1
        if there[row] < 0:
            left.append(position)
    return left


Batch = dict[int, str]  # texts by their position
# By position: the fields or the raw answer, why it can't be used, and the seed.
Found = dict[int, tuple[Any, str, int]]


@dataclass
class _Asker:
    """Asks about batches of texts."""

    llm: Llm
    fields: type[BaseModel]
    instruction: str
    examples: Sequence[tuple[str, BaseModel]]
    temperature: float
    seed: int
    num_ctx: int

    def __post_init__(self) -> None:
        self.copied = [right.model_dump(mode="json") for _, right in self.examples]
        self.answer = create_model("Answer", __base__=tolerant(self.fields), id=(int, ...))
        form = {"answers": [{"id": 1, **dict.fromkeys(self.fields.model_fields, "…")}]}
        system = ANNOTATE_FORM.format(instruction=self.instruction, answer=_json(form))
        self.shown = [{"role": "system", "content": system}]
        if self.examples:
            said = [{"id": i, **values} for i, values in enumerate(self.copied, 1)]
            asked = _lines(enumerate((text for text, _ in self.examples), 1))
            self.shown += turn(asked, {"answers": said})
        # A token is at least two characters of ordinary text; 240 are left for an answer.
        self.room = 2 * (self.num_ctx - 240) - len(str(self.shown))
        schema = self.fields.model_json_schema()
        self.version = fingerprint(self.shown, schema, self.temperature, self.llm.digest)[:8]

    def batches(self, texts: Batch, per_call: int) -> Iterator[Batch]:
        """Yield the texts in batches that leave room for an answer."""
        batch: Batch = {}
        for position, text in texts.items():
            size = sum(map(len, batch.values())) + len(text)
            if batch and (len(batch) == per_call or size > self.room / 2):
                yield batch
                batch = {}
            batch[position] = text
        if batch:
            yield batch

    def ask(self, batch: Batch, journal: Journal) -> Found:
        """Ask about all at once, and twice again about each that is left, alone."""
        done: Found = {}
        groups = [batch]
        for attempt in range(3):
            for group in groups:
                number = self.seed + next(iter(group)) + 1_000_000 * attempt
                done |= self._answers(group, number, journal)
            groups = [{position: batch[position]} for position in batch if done[position][1]]
        return done

    def _answers(self, group: Batch, number: int, journal: Journal) -> Found:
        n = len(group)
        if n == 1 and len(*group.values()) > self.room:
            return dict.fromkeys(group, ("", f"too long for num_ctx={self.num_ctx}", number))
        # Ids are drawn at random so that no model can get away with counting on.
        ids = random.Random(number).sample(range(10, 100 + n), n)
        asked = _lines(zip(ids, group.values(), strict=True))
        several: Any = Annotated[list[self.answer], Field(min_length=n, max_length=n)]  # type: ignore[name-defined]
        schema = create_model("Answers", answers=(several, ...)).model_json_schema()
        options = {"temperature": self.temperature, "seed": number, "num_ctx": self.num_ctx}
        options["num_predict"] = min(240 * n, self.num_ctx // 2)
        messages = [*self.shown, {"role": "user", "content": asked}]
        answer = self.llm.ask(messages, schema, options, journal)
        found, poor = self._by_id(answer.content)
        missing = (answer.content, answer.reason or poor)
        return {
            position: (*((found[i], "") if i in found else missing), number)
            for i, position in zip(ids, group, strict=True)
        }

    def _by_id(self, content: str) -> tuple[dict[int, dict[str, Any]], str]:
        """Return the usable answers by id, and why another isn't; one that comes twice is none."""
        entries: list[Any] = []
        for value in json_values(content):
            listed = value.get("answers", value) if isinstance(value, dict) else value
            entries += listed if isinstance(listed, list) else [listed]
        poor = "no answer with its id" if entries else "no JSON"
        found: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for entry in entries:
            try:
                valid: Any = validated(entry, self.answer)
            except ValueError as error:
                poor = str(error)
                continue
            values = valid.model_dump(mode="json", exclude={"id"})
            if values in self.copied:
                poor = "copied example"
            elif any(map(_stutters, values.values())):
                poor = "repeats itself"
            else:
                found[valid.id].append(values)
        return {i: values[0] for i, values in found.items() if len(values) == 1}, poor


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(texts: Iterable[tuple[int, str]]) -> str:
    return "\n".join(_json({"id": i, "text": text}) for i, text in texts)


def _stutters(value: Any) -> bool:
    """Whether a list says each item twice or more on average, or a string its words; or nothing."""
    if isinstance(value, str):
        value = tokens(value.casefold())
        return not value or len(value) > 2 * len(set(value))
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return len(value) > 1.5 * len({item.casefold() for item in value})
    return False


def _cell(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return join_keywords(value)
    return " ".join(value.split()) if isinstance(value, str) else value
