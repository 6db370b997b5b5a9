"""What a model is and can: load one, whatever it runs on, and ask it many texts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.special import expit, softmax
from tqdm.auto import tqdm

from cookbook import marks, words
from cookbook.runtimes import EXPORTED, Torch, read_network, read_tokenizer
from cookbook.tables import read_json, strings, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Loadable: TypeAlias = "Model | PreTrainedModel | str | Path"

_OF_ONE = ("label_temperature", "sure_from", "sure_about")  # what `trust` measured, of one model


def kind_of(config: Mapping[str, Any]) -> str:
    """Decide from a model's configuration whether it classifies texts, marks words, or writes.

    Args:
        config: The content of `config.json`.

    Returns:
        `"classifier"`, `"marker"` (of keywords, with labels such as O, B and I) or `"writer"` (an
        encoder-decoder that generates).

    Raises:
        ValueError: It does neither: it has no head, is a regression, or lacks labels.

    Example:
        >>> kind_of({"architectures": ["BertForSequenceClassification"]})
        'classifier'
    """
    names = config.get("architectures") or ["none"]
    if any(name.endswith("ForSequenceClassification") for name in names):
        if config.get("problem_type") == "regression":
            raise ValueError("The model is a regression: it has no labels to choose from.")
        label_names(config)
        return "classifier"
    if any(name.endswith("ForTokenClassification") for name in names):
        if {name[:1] for name in label_names(config)} - set("BI") != {"O"}:
            raise ValueError(f"A model that marks has labels O, B… and I…: {label_names(config)}.")
        return "marker"
    writes = ("ForConditionalGeneration", "MarianMTModel", "EncoderDecoderModel")
    if config.get("is_encoder_decoder") and any(name.endswith(writes) for name in names):
        return "writer"
    raise ValueError(
        f"The model (architecture: {names[0]}) has no head that classifies texts, marks words "
        "or writes. Fine-tune it first, as …ForSequenceClassification, …ForTokenClassification or "
        "…ForConditionalGeneration."
    )


def label_names(config: Mapping[str, Any]) -> list[str]:
    """Return a classifier's label names in the order of their ids, as strings.

    Raises:
        ValueError: There are none, an id is left out, or two labels have one name.

    Example:
        >>> label_names({"id2label": {"0": 1, "1": 2}})
        ['1', '2']
    """
    # A configuration with the two labels that transformers takes for granted doesn't list them.
    given = config.get("id2label", {0: "LABEL_0", 1: "LABEL_1"}) or {}
    names = {int(number): str(name) for number, name in given.items()}
    if not names or sorted(names) != list(range(len(set(names.values())))):
        raise ValueError(f"The model has no labels, lacks one, or has one twice: {given}.")
    return [names[number] for number in range(len(names))]


@dataclass(eq=False)
class Model:
    """A loaded model, which answers many texts; what `load` returns.

    Attributes:
        kind: `"classifier"`, `"marker"` or `"writer"`.
        config: Its configuration.
        runtime: What it runs on.
    """

    kind: str
    config: Mapping[str, Any]
    runtime: Any

    @property
    def names(self) -> list[str]:
        """Label names of a classifier, in the order of the columns of `predict`."""
        return label_names(self.config) if self.kind == "classifier" else []

    @property
    def several(self) -> bool:
        """Whether a text may have several labels of a classifier."""
        return self.config.get("problem_type") == "multi_label_classification"

    @cached_property
    def identity(self) -> str:
        """A hash of all that shapes the answers: weights, labels, tokenizer, length."""
        return digest(self.runtime.state())

    def of_kind(self, *kinds: str) -> Model:
        """Return the model, or refuse one of another kind."""
        if self.kind not in kinds:
            uses = {"classifier": "classifies: use classify", "writer": "writes: extract_keywords"}
            uses["marker"] = "marks words: extract_keywords"
            raise ValueError(f"Wanted is a {' or '.join(kinds)}; this model {uses[self.kind]}.")
        return self

    def predict(
        self,
        texts: Iterable[str],
        batch_size: int | None = None,
        threshold: float | None = None,
        **options: Any,
    ) -> Any:
        """Answer texts, in batches of one length, in the order they came.

        Args:
            texts: The texts.
            batch_size: Texts at once; None for what suits the hardware.
            threshold: Of a marker, as for `marks.read_marks`; None for its configuration's
                `keyword_threshold`, or 0.5.
            **options: Of a writer: what `generate` or `translate_batch` takes.

        Returns:
            Probabilities (texts, labels), nan for a blank text, calibrated where the configuration
            has a `label_temperature`; of a marker pairs of a keyword and its score, a list per
            text; of a writer the lines, '' for a blank one.
        """
        texts = strings(texts)
        found = self._answer(texts, batch_size, **options)
        if self.kind != "marker":
            return found
        if threshold is None:
            threshold = self.config.get("keyword_threshold", 0.5)
        pairs = zip(texts, found, strict=True)
        return [marks.read_marks(text, each, threshold) for text, each in pairs]

    def probabilities(self, texts: Iterable[str], batch_size: int | None = None) -> Any:
        """Say how sure the model is of each label, or of each piece of a word.

        Args:
            texts: The texts.
            batch_size: Texts at once; None for what suits the hardware.

        Returns:
            Of a classifier what `predict` returns. Of a marker an array per text of the
            probabilities that a piece begins a keyword and that it goes on, shape (pieces, 2); see
            `marks.of_pieces`.

        Raises:
            ValueError: The model writes.
        """
        return self.of_kind("classifier", "marker")._answer(strings(texts), batch_size)

    def _answer(self, texts: list[str], batch_size: int | None, **options: Any) -> Any:
        asked = [place for place, text in enumerate(texts) if text.strip()]
        rows = self.runtime.encode([texts[place] for place in asked]) if asked else []
        batches: list[list[int]] = []
        for i in sorted((i for i, row in enumerate(rows) if len(row)), key=lambda i: len(rows[i])):
            size = batch_size or min(self.runtime.size, self.runtime.tokens // len(rows[i]))
            if not batches or len(batches[-1]) >= size:
                batches.append([])
            batches[-1].append(i)
        answers = self.runtime.answer(([rows[i] for i in batch] for batch in batches), **options)
        given: list[Any] = [None] * len(rows)
        bar = tqdm(batches, desc="Answer", leave=False, disable=len(batches) < 40)
        for batch, answer in zip(bar, answers, strict=True):
            for i, each in zip(batch, answer, strict=True):
                given[i] = each
        if self.kind == "marker":
            return self._marks(texts, asked, rows, given)
        found: Any = [""] * len(texts)
        if self.kind == "classifier":
            found = np.full((len(texts), len(self.names)), np.nan)
        for place, answer in zip(asked, given, strict=True):
            if answer is not None:
                found[place] = answer
        if self.kind == "writer":
            return found
        found /= self.config.get("label_temperature") or 1.0
        return expit(found) if self.several or len(self.names) == 1 else softmax(found, axis=-1)

    def _marks(self, texts: list[str], asked: list[int], rows: Any, given: Any) -> list[np.ndarray]:
        """Join the logits of each text's windows, and give its pieces their probabilities."""
        begins = np.array([[name[0] == mark for mark in "BI"] for name in label_names(self.config)])
        windows: dict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
        for row, logits in zip(rows, given, strict=True):
            if logits is not None:  # a text without a token
                probable = softmax(logits[: len(row)], axis=-1) @ begins
                windows[asked[row[0, 4]]].append((row[:, 2:4], probable))
        found = [np.zeros((len(words.places(text)), 2)) for text in texts]
        for place, parts in windows.items():
            found[place] = marks.of_pieces(texts[place], *_joined(parts))
        return found


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Join the windows of a text: of each token the marks where it is farthest from an edge."""
    inner = []
    for number, (places, _) in enumerate(parts):
        n: np.ndarray = np.arange(len(places), dtype=float)
        left, right = (n if number else np.inf), (n[::-1] if number < len(parts) - 1 else np.inf)
        inner.append(np.minimum(left, right) * np.ones(len(places)))
    tokens, marks = (np.concatenate(side) for side in zip(*parts, strict=True))
    order = np.lexsort((-np.concatenate(inner), tokens[:, 1], tokens[:, 0]))
    order = order[tokens[order, 0] < tokens[order, 1]]  # no special tokens
    order = order[np.diff(tokens[order], axis=0, prepend=-1).any(axis=1)]
    return tokens[order], marks[order]


def load(
    model: Loadable,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    dtype: str = "float32",
    max_length: int | None = None,
) -> Model:
    """Load a fine-tuned model once, for many calls.

    Args:
        model: A folder, also of `export_onnx` or `export_ctranslate2` (which need no torch), a name
            on the Hub, or a model in memory. What is loaded already comes back as it is.
        tokenizer: Of a model in memory.
        dtype: In torch: `"float32"`, or `"auto"` for the fastest of the hardware.
        max_length: Tokens of a text at most; None for what the model takes.

    Returns:
        An object with `kind`, `names`, `predict` and `identity`.

    Raises:
        FileNotFoundError: There is no such model.
        ValueError: It can't answer: no head, no tokenizer, an adapter, another kind.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, (str, Path)):
        folder = model_folder(model)
        config = read_json(folder / "config.json")
        kind = kind_of(config)
        if any((folder / name).is_file() for name in EXPORTED):
            changed = tuple(path.stat().st_mtime_ns for path in sorted(folder.iterdir()))
            return _exported(folder, max_length, changed)
        tokenizer = tokenizer or read_tokenizer(folder)
        model = read_network(folder, kind, dtype)
    else:
        bases = [base.__name__ for base in type(model).__mro__]
        config = {**model.config.to_dict(), "architectures": bases}
        kind = kind_of(config)
    if tokenizer is None:
        raise ValueError("Pass the tokenizer along with the model, or the model's folder alone.")
    return Model(kind, config, Torch(kind, model, tokenizer, max_length))


@lru_cache(maxsize=4)
def _exported(folder: Path, max_length: int | None, changed: tuple[int, ...]) -> Model:
    """Load an exported model; a second call for the same files costs nothing."""
    config = read_json(folder / "config.json")
    runtime = next(made for name, made in EXPORTED.items() if (folder / name).is_file())
    kind = kind_of(config)
    return Model(kind, config, runtime(kind, folder, config, max_length))


def configure(folder: str | Path, **settings: Any) -> Path:
    """Write settings into a model's `config.json`, whole or not at all; whatever loads it obeys.

    Args:
        folder: The model's, or that of an export.
        **settings: By name, such as `label_thresholds`; None takes one out.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: There is no `config.json`.
    """
    path = Path(folder, "config.json")
    if not path.is_file():
        raise FileNotFoundError(f"There is no model in {folder}: no config.json.")
    changed = read_json(path) | settings
    kept = {name: value for name, value in changed.items() if settings.get(name, 0) is not None}
    write_json(path, kept, 2)
    return Path(folder)


def inherit(config: Any, teacher: Any) -> None:
    """Give a student's configuration what its teacher's says, and take out what holds of one model.

    Args:
        config: The student's, which may have come with another model's weights.
        teacher: The teacher's.
    """
    if hasattr(teacher, "keyword_threshold"):
        config.keyword_threshold = teacher.keyword_threshold
    for name in filter(vars(config).__contains__, _OF_ONE):
        delattr(config, name)


def digest(parts: Iterable[Any]) -> str:
    """Hash bytes, and files by their content."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            part = np.memmap(part, mode="r") if part.stat().st_size else b""
        found.update(part)
    return found.hexdigest()


def model_folder(model: str | Path) -> Path:
    """Return a model's folder, fetched from the Hub where it is a name there.

    Raises:
        FileNotFoundError: There is no such model.
        ValueError: It is an adapter.
    """
    folder = Path(model)
    if isinstance(model, str) and not folder.exists() and not folder.is_absolute():
        from huggingface_hub import snapshot_download

        try:  # without what is there for other frameworks
            others = ["*.h5", "*.msgpack", "*.ot", "*.gguf", "*/*"]
            folder = Path(snapshot_download(model, ignore_patterns=others))
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"There is no folder {model!r}, and the Hub has no such model: {error}"
            ) from error
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{model} holds an adapter (LoRA), not a whole model. Merge it into its base model "
            "(PEFT's merge_and_unload), save that with its tokenizer, and name that folder."
        )
    if not (folder / "config.json").is_file():
        below = [f" Did you mean {path.parent}?" for path in folder.glob("*/config.json")][:1]
        raise FileNotFoundError(f"There is no model in {model}: no config.json.{''.join(below)}")
    return folder
