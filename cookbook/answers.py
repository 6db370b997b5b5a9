"""What an LLM answered: kept in a journal, read whatever stands around it, and written as rows."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_origin

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError, create_model, field_validator
from tqdm.auto import tqdm

from cookbook.tables import Appender, free_name
from cookbook.words import split_keywords

Model = TypeVar("Model", bound=BaseModel)
Row = Sequence[Any]


NO_ANSWER = "garbled answer"  # the reason where what came is another's than the model's


class Answer(NamedTuple):
    """What came back: the text, '' or the reason why it can't be whole, and what was counted.

    Attributes:
        content: The text.
        reason: '', or why it can't be whole.
        input_tokens: Tokens read; 0 where the server doesn't tell.
        output_tokens: Tokens written; 0 where the server doesn't tell.
    """

    content: str
    reason: str
    input_tokens: int = 0
    output_tokens: int = 0


class Journal:
    """Answers by a hash of their question, in a CSV that a kill can't spoil; see `Appender`.

    Example:
        >>> from tempfile import mkdtemp
        >>> with Journal(f"{mkdtemp()}/answers.csv") as journal:
        ...     journal.add("a hash", Answer("{}", ""))
        ...     journal.answers["a hash"].content
        '{}'
    """

    def __init__(self, path: str | Path) -> None:
        self._file = Appender(path, ["question", *Answer._fields], added=2)
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> Journal:
        """Lock the file and read it."""
        before = self._file.__enter__().before.to_numpy().tolist()
        self.answers = {
            key: Answer(content, reason, *(int(tokens or 0) for tokens in counts))
            for key, content, reason, *counts in before
        }
        return self

    def __exit__(self, *about: object) -> None:
        """Close the file and let others at it."""
        self._file.__exit__(*about)

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer; it is on disk when this returns."""
        with self._one_at_a_time:
            self._file.write([key, *answer])
            self.answers[key] = answer


def fingerprint(*parts: Any) -> str:
    """Return a short hash of JSON values.

    Example:
        >>> fingerprint("phi3", {"seed": 1}) == fingerprint("phi3", {"seed": 2})
        False
    """
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def read_json(content: str, model: type[Model]) -> Model:
    """Read the JSON in an answer, whatever stands around it; the last that fits.

    Raises:
        ValueError: None fits. The message is short, and names the field at fault.

    Example:
        >>> class Title(BaseModel):
        ...     title: str
        >>> read_json('Sure! Here it is: {"title": "Tea"} Anything else?', Title)
        Title(title='Tea')
    """
    reason = ""
    for value in reversed(json_values(content)):
        try:
            return validated(value, tolerant(model))
        except ValueError as error:
            reason = reason or str(error)
    raise ValueError(reason or "no JSON")


def json_values(content: str) -> list[Any]:
    """Return the objects and lists in an answer, without its thoughts, in their order.

    Example:
        >>> json_values('<think>{"a": 0} or so?</think> ```json {"a": 1}``` [2]')
        [{'a': 1}, [2]]
    """
    text = re.split(r"</(?:think|thinking|thought|reasoning)>", content, flags=re.IGNORECASE)[-1]
    decoder = json.JSONDecoder(strict=False)  # a line break within a string is none of our worry
    values: list[Any] = []
    place = 0
    while found := re.compile(r"[{\[]").search(text, place):
        try:
            value, place = decoder.raw_decode(text, found.start())
            values.append(value)
        except (ValueError, RecursionError):
            place = found.start() + 1
    return values


def validated(value: Any, model: type[Model]) -> Model:
    """Make a model of a JSON value.

    Raises:
        ValueError: It doesn't fit; names the field at fault.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(map(str, fault["loc"])) or "it"
        raise ValueError(f"wrong schema: {field}: {fault['msg']}") from error


@lru_cache
def tolerant(model: type[Model]) -> type[Model]:
    """Return a model that takes other types too: 'a, b' for a list, 7 or a list for a string.

    Example:
        >>> class Post(BaseModel):
        ...     tags: list[str]
        >>> tolerant(Post)(tags="Redis, 7")
        Post(tags=['Redis', '7'])
    """
    bases: Any = (model, _Tolerant)
    return create_model(model.__name__, __base__=bases)


class _Tolerant(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    @field_validator("*", mode="before")
    @classmethod
    def _of_another_type(cls, given: Any, info: Any) -> Any:
        wanted = cls.model_fields[info.field_name].annotation
        if isinstance(given, str) and get_origin(wanted) is list:
            return split_keywords(given)
        return ", ".join(map(str, given)) if isinstance(given, list) and wanted is str else given


@dataclass
class Synthesis:
    """What a run left behind; prints as a summary.

    Attributes:
        path: The CSV with the usable rows. What was rejected lies beside it, in
            `<name>.rejected.csv`, with the reason.
        rows: The usable rows of this model and prompt, those of earlier runs included.
        rejected: The rejected ones; the last column is the reason.
        seconds: How long this run took.
        input_tokens: Tokens that all questions so far had, of other models and prompts too, for
            `economics.api_cost`; what the server didn't tell is missing.
        output_tokens: Tokens of the answers.
        questions: How many of them there are.
    """

    path: Path
    rows: pd.DataFrame
    rejected: pd.DataFrame
    seconds: float
    input_tokens: int = 0
    output_tokens: int = 0
    questions: int = 0

    @property
    def reasons(self) -> pd.Series:
        """Number of rejected rows per reason, the commonest first."""
        return self.rejected.iloc[:, -1].value_counts()

    def __str__(self) -> str:
        rows, bad = len(self.rows), len(self.rejected)
        share = rows / max(rows + bad, 1)
        lines = [f"{rows:,} usable rows in {self.path} ({share:.0%} of {rows + bad:,})"]
        if "label" in self.rows:
            labels = self.rows["label"].value_counts()
            lines += [f"  {name:<24} {n:>6,}" for name, n in labels.items()]
        if bad:
            lines.append(f"{bad:,} rejected, in {beside(self.path, 'rejected')}")
            lines += [f"  {reason:<24} {n:>6,}" for reason, n in self.reasons.items()]
        if self.output_tokens:
            lines.append(f"{self.input_tokens:,} tokens read, {self.output_tokens:,} written")
        return "\n".join(lines)


@dataclass
class Run:
    """The files of a run: usable rows, rejected ones, answers. Gives up in time.

    Attributes:
        out: The CSV of usable rows; the other files lie beside it.
        columns: Its columns; the last three are model, version and seed.
        rejected: Columns of the rejected rows, the reason apart; the last three as well.
        plan: Model and version, by which the rows of this run are known.
        give_up_after: Rejections in a row after which the model is said not to be up to it.
    """

    out: Path
    columns: Sequence[str]
    rejected: Sequence[str]
    plan: tuple[str, str]
    give_up_after: int

    def __post_init__(self) -> None:
        if self.out.suffix.lower() != ".csv":
            raise ValueError(f"{self.out} grows row by row, as a CSV: end its name in .csv")
        reason = free_name("reason", self.rejected)
        self.kept = Appender(self.out, self.columns)
        self.bad = Appender(beside(self.out, "rejected"), [*self.rejected, reason])
        self.journal = Journal(beside(self.out, "answers"))
        self.in_a_row = 0

    @contextmanager
    def open(self, total: int) -> Iterator[tqdm[Any]]:
        """Lock the files, look at them, refuse them or open them; yield the bar."""
        started = time.perf_counter()
        with self.kept, self.bad, self.journal, tqdm(total=total, desc=self.out.name) as bar:
            try:
                yield bar
            except BaseException as error:
                tqdm.write(
                    f"Stopped ({type(error).__name__}). What is done is in {self.out}; to go on, "
                    "run the same again."
                )
                raise
        self.seconds = time.perf_counter() - started

    def add(self, good: Sequence[Row], bad: Sequence[Row], said: str) -> None:
        """Write what an answer gave: usable rows, and rejected ones that end in the reason.

        Raises:
            RuntimeError: Too many in a row were rejected.
        """
        self.kept.write(*good)
        self.bad.write(*bad)
        self.in_a_row = 0 if good else self.in_a_row + len(bad)
        if self.in_a_row >= self.give_up_after:
            raise RuntimeError(
                f"{self.plan[0]} isn't up to this: {self.in_a_row} rejections in a row, the last "
                f"for {bad[-1][-1]!r}: {said[:200]!r}. Try a larger model, or one that doesn't "
                f"think; fewer texts a call, or other words= or topics. All are in {self.bad.path}."
            )

    def rows(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of this plan that stood in the files: the usable and the rejected."""
        *plan, seed = self.columns[-3:]

        def ours(rows: pd.DataFrame) -> pd.DataFrame:
            rows = rows[(rows[plan] == list(self.plan)).all(axis=1)]
            return rows.astype({seed: int}).reset_index(drop=True)

        return ours(self.kept.before), ours(self.bad.before)

    def result(self) -> Synthesis:
        """Return what stands in the files now."""
        with self.kept, self.bad, self.journal:
            answers = list(self.journal.answers.values())
        tokens = sum(a.input_tokens for a in answers), sum(a.output_tokens for a in answers)
        return Synthesis(self.out, *self.rows(), self.seconds, *tokens, len(answers))


def beside(out: Path, what: str) -> Path:
    """Return the name of another file of the same run.

    Example:
        >>> beside(Path("titles.csv"), "rejected").name
        'titles.rejected.csv'
    """
    return out.with_name(f"{out.stem}.{what}.csv")
