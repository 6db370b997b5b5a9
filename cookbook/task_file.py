"""What a `task.toml` says."""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    create_model,
    model_validator,
)

from cookbook import extra
from cookbook.annotation import Keywords, Phrase
from cookbook.labels import refuse_reserved

# What a model starts as, by the code of a language; "" for the others.
BASE_MODELS = {
    "en": "distilbert/distilbert-base-uncased",
    "sv": "KBLab/bert-base-swedish-cased",
    "da": "Maltehb/danish-bert-botxo",
    "nb": "NbAiLab/nb-bert-base",
    "nn": "NbAiLab/nb-bert-base",
    "no": "NbAiLab/nb-bert-base",
    "fi": "TurkuNLP/bert-base-finnish-cased-v1",
    "": "distilbert/distilbert-base-multilingual-cased",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskLlm(_Strict):
    """The table `[llm]` of a task; see `llm.connect`."""

    model: str
    host: str | list[str] | None = None
    base_url: str | list[str] | None = None
    key: str = "OPENAI_API_KEY"
    concurrency: int = Field(4, ge=1)
    timeout: float = Field(120, gt=0)
    temperature: float | None = Field(None, gt=0)
    per_call: int | None = Field(None, ge=1)
    price: tuple[float, float] | None = None


class TaskLabel(_Strict):
    """A table `[labels.NAME]` of a task."""

    definition: str = Field(min_length=3)
    examples: list[tuple[str, str]] = Field(min_length=1)


class Task(_Strict):
    """What a `task.toml` says; `cookbook new` writes one with a comment to each line."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    kind: str = "text"
    language: str = "en"
    per_label: int = Field(300, ge=1)
    texts: Path | None = None
    several: bool = False
    unlabelled: Path | None = None
    measured: Path | None = None
    sure: float = Field(0.98, gt=0, lt=1)
    topics: Path | None = None
    base_model: str = ""
    epochs: float = Field(2, gt=0)
    learning_rate: float = Field(1e-4, gt=0)
    least: int = Field(30, ge=2)
    seed: int = 0
    llm: TaskLlm | None = None
    labels: dict[str, TaskLabel] = {}
    fields: dict[str, str] = {}
    examples: list[dict[str, Any]] = []
    _folder: Path = PrivateAttr(Path())

    @property
    def folder(self) -> Path:
        """Where everything goes: a folder of the task's name, beside its file."""
        return self._folder

    @property
    def column(self) -> str:
        """The column that is learnt."""
        return "keywords" if self.fields else "label"

    @property
    def columns(self) -> dict[str, Any]:
        """What is learnt, as `data.load_splits` and `data.usable` are told."""
        return {"label": None, "keywords": "keywords"} if self.fields else {"several": self.several}

    @property
    def in_language(self) -> str | None:
        """The English name of the language; None for English."""
        import langcodes

        name = langcodes.Language.get(self.language).display_name()
        return None if name == "English" else name

    @cached_property
    def answer(self) -> type[BaseModel]:
        """What the LLM says of a text: its keywords, and what else is asked for."""
        shapes: dict[str, Any] = dict.fromkeys(self.fields, (Phrase, ...))
        return create_model("Fields", **(shapes | {"keywords": (Keywords, ...)}))

    @model_validator(mode="after")
    def _is_whole(self) -> Task:
        if self.fields:
            self._asks_for_keywords()
        elif self.texts is None and (len(self.labels) < 2 or self.llm is None):
            raise ValueError("give two labels or more and [llm], or texts of your own with labels")
        refuse_reserved(self.labels)
        try:
            validate_repo_id(f"your-name/{self.name}")
        except HFValidationError:
            raise ValueError(f"the Hub takes no model called {self.name!r}") from None
        return self

    def _asks_for_keywords(self) -> None:
        if self.labels or self.several:
            raise ValueError("give [labels] or [fields], not both; several is about labels")
        if "keywords" not in self.fields or {"text", "id"} & set(self.fields):
            raise ValueError("[fields] needs keywords, which are learnt, and no text and no id")
        if self.texts is None:
            raise ValueError("[fields] needs texts: an LLM annotates yours, or you have keywords")
        for number, given in enumerate(self.examples, 1):
            if set(given) != {"text", *self.fields}:
                wanted = ", ".join(["text", *self.fields])
                raise ValueError(f"example {number} needs {wanted}, and has {', '.join(given)}")
            try:
                self.answer(**{name: given[name] for name in self.fields})
            except ValidationError as error:
                raise ValueError(f"example {number}: {_fault(error.errors()[0])}") from None


def read_task(path: str | Path) -> Task:
    """Read a task, and say what is wrong with it: an unknown key, a label without examples.

    Args:
        path: A file such as `cookbook new` writes. Paths in it count from its folder.

    Raises:
        ValueError: A line can't be read, or a value isn't what it should be; names it.
        FileNotFoundError: There is no such file, or none that it names.
    """
    with extra("run"):
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib

    path = Path(path)
    text = path.read_text("utf-8-sig")
    try:
        task = Task(**tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        bare = re.search(r'(?m)^\s*\[+[^"\'\]#]*[^\x00-\x7f"\'\]][^"\'\]]*\]', text)
        hint = f': put quotes around the name in {bare[0].strip()}, as "å"' if bare else ""
        raise ValueError(f"{path} is no TOML: {error}{hint}") from None
    except ValidationError as error:
        told = [_fault(one) for one in error.errors(include_url=False)]
        raise ValueError(f"{path}: {'; '.join(told)}.") from None
    known = _language(task.language, path)
    files = ("texts", "unlabelled", "measured", "topics")
    found = {name: path.parent / here for name in files if (here := getattr(task, name))}
    for name, here in found.items():
        if not (here.is_file() or (name == "unlabelled" and here.is_dir())):
            raise FileNotFoundError(f"{path}: {name} = {str(here)!r} isn't there.")
    base = task.base_model or _base_model(known)
    whole = task.model_copy(update={**found, "language": known, "base_model": base})
    whole._folder = path.absolute().parent / task.name
    return whole


def _language(given: str, path: Path) -> str:
    with extra("run"):
        import langcodes
    if langcodes.tag_is_valid(given):
        return given
    told = f"{path}: nobody knows the language {given!r}. "
    try:
        found = langcodes.find(given)
    except LookupError:
        raise ValueError(f"{told}Write a code, such as sv or ja.") from None
    if given.casefold() not in (found.display_name().casefold(), found.autonym().casefold()):
        raise ValueError(f"{told}Is it {found.display_name()!r} ({found})?")
    return str(found)


def _base_model(language: str) -> str:
    """Choose what a model starts as: one of the language, or one of a hundred of them."""
    import langcodes

    return BASE_MODELS.get(str(langcodes.Language.get(language).language), BASE_MODELS[""])


def _fault(error: Any) -> str:
    """Say in a line what is wrong with a task, and what was meant."""
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        *above, key = error["loc"]
        kind: Any = {"llm": TaskLlm, "labels": TaskLabel}.get(str(above[0]) if above else "", Task)
        meant = get_close_matches(str(key), kind.model_fields, 1)
        return f"nobody knows {where!r}" + (f"; is it {meant[0]!r}?" if meant else "")
    told = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {told}" if where else told
