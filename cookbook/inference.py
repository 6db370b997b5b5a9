"""Many texts to labels or keywords."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    StoppingCriteria,
)

from cookbook.data import split_keywords

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def classify(
    texts: Sequence[str],
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    batch_size: int = 64,
    max_length: int | None = None,
) -> pd.DataFrame:
    """Label many texts.

    Texts are sorted by length first, so that a batch has next to no padding, and returned in the
    order they came. Probabilities are those of `pipeline("text-classification", top_k=None)`.

    Args:
        texts: The texts.
        model: A fine-tuned classifier, its folder, or its name on the Hub.
        tokenizer: Its tokenizer; None where `model` is a folder or a name.
        batch_size: Texts at once.
        max_length: Tokens at most; None for what the tokenizer allows.

    Returns:
        One row per text: `text`, `label`, `score` (probability of that label, 0 to 1) and one
        column of probabilities per label.

    Raises:
        ValueError: A text is no string (names its position), or the tokenizer is missing.
        OSError: There is no such model; says so.
    """
    texts = list(texts)
    _require_strings(texts)
    network, tokenizer = _loaded(model, tokenizer, AutoModelForSequenceClassification)
    order = np.argsort([len(text) for text in texts], kind="stable")
    names = [network.config.id2label[i] for i in range(network.config.num_labels)]
    probabilities = np.zeros((len(texts), len(names)))
    was_training = network.training
    network.eval()
    starts = range(0, len(texts), batch_size)
    with torch.inference_mode():
        for start in tqdm(starts, desc="Classify", leave=False, disable=len(starts) < 20):
            rows = order[start : start + batch_size]
            batch = tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            ).to(network.device)
            logits = network(**batch).logits.float()
            probabilities[rows] = torch.softmax(logits, dim=-1).cpu().numpy()
    network.train(was_training)
    best = probabilities.argmax(axis=1) if texts else np.array([], dtype=int)
    return pd.DataFrame(
        {
            "text": texts,
            "label": [names[i] for i in best],
            "score": probabilities.max(axis=1) if texts else [],
            **{name: probabilities[:, i] for i, name in enumerate(names)},
        }
    )


def worst_mistakes(answers: pd.DataFrame, labels: Sequence[str], n: int = 10) -> pd.DataFrame:
    """List the mistakes that the model was surest of: often a wrong label, or a gap in the data.

    Args:
        answers: What `classify` returned.
        labels: The true label name of each text.
        n: Mistakes at most.

    Returns:
        Columns `text`, `label` (true), `predicted`, `score`, the surest mistake first.

    Example:
        >>> import pandas as pd
        >>> answers = pd.DataFrame({"text": ["A", "B"], "label": ["x", "x"], "score": [0.9, 0.8]})
        >>> worst_mistakes(answers, ["x", "y"])["text"].tolist()
        ['B']
    """
    table = answers[["text", "label", "score"]].rename(columns={"label": "predicted"})
    table.insert(1, "label", list(labels))
    wrong = table[table["label"] != table["predicted"]]
    return wrong.sort_values("score", ascending=False).head(n).reset_index(drop=True)


def extract_keywords(
    texts: Sequence[str],
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    batch_size: int = 32,
    max_length: int | None = None,
    present_only: bool = True,
    **generation: Any,
) -> list[list[str]]:
    """Write keywords for many texts with a fine-tuned seq2seq model.

    Texts are sorted by length first, so that a batch has next to no padding, and answered in the
    order they came. Every keyword that stands in its text gets the text's spelling, and so does one
    that is nearly there ('ubiquititi' becomes 'Ubiquiti'); any other is dropped, unless asked for:
    a small model that writes what isn't there is mostly wrong (dropping it costs the few
    abstractions that it gets right). Repeats are taken out, and
    writing stops at the third one: what follows would be more of the same, and the whole batch
    would wait for it; so it does within a keyword of more than 16 tokens. With
    `present_only=False` the model writes on undisturbed, up to the limit of its
    `generation_config`, as a plain `generate` does.

    Args:
        texts: The texts; an empty one has no keywords.
        model: A fine-tuned seq2seq model, its folder, or its name on the Hub.
        tokenizer: Its tokenizer; None where `model` is a folder or a name.
        batch_size: Texts at once.
        max_length: Tokens of a text at most, the rest is not read; None for what the model takes.
        present_only: Whether to keep only keywords that stand in the text.
        **generation: Passed to `model.generate`, for instance `num_beams=4`.

    Returns:
        A list of keywords per text.

    Raises:
        ValueError: A text is no string (names its position), or the tokenizer is missing.
        OSError: There is no such model; says so.
    """
    texts = list(texts)
    _require_strings(texts)
    network, tokenizer = _loaded(model, tokenizer, AutoModelForSeq2SeqLM)
    limits = [tokenizer.model_max_length, getattr(network.config, "max_position_embeddings", None)]
    # Some tokenizers state no limit, which transformers expresses as 1e30; some models have none.
    known = [limit for limit in limits if isinstance(limit, int) and limit < 1e6]
    max_length = max_length or min(known, default=None)
    written: list[list[str]] = [[] for _ in texts]
    order = [i for i in np.argsort([len(text) for text in texts]) if texts[i].strip()]
    starts = range(0, len(order), batch_size)
    separators = tokenizer(",;", add_special_tokens=False)["input_ids"]
    stop = {"stopping_criteria": [_Repeats(separators)]} if present_only else {}
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for start in tqdm(starts, desc="Extract keywords", leave=False, disable=len(starts) < 10):
            rows = order[start : start + batch_size]
            batch = tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=max_length is not None,
                max_length=max_length,
                return_token_type_ids=False,
                return_tensors="pt",
            ).to(network.device)
            answers = network.generate(**batch, **{"use_cache": True, **stop, **generation})
            lines = tokenizer.batch_decode(answers, skip_special_tokens=True)
            for row, line in zip(rows, lines, strict=True):
                written[row] = _spelt(split_keywords(line), texts[row], present_only)
    network.train(was_training)
    return written


class _Repeats(StoppingCriteria):
    """Stop a text at its third keyword that was written before, or at one that is far too long."""

    def __init__(self, separators: list[int], longest: int = 16) -> None:
        self.separators, self.longest = set(separators), longest

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        stuck = [self._stuck(ids) for ids in input_ids.tolist()]
        return torch.tensor(stuck, device=input_ids.device)

    def _stuck(self, ids: list[int]) -> bool:
        keywords: list[tuple[int, ...]] = [()]
        for token in ids:
            if token in self.separators:
                keywords.append(())
            else:
                keywords[-1] += (token,)
        *finished, begun = keywords
        return len(finished) - len(set(finished)) >= 3 or len(begun) > self.longest


def restore_case(keyword: str, text: str) -> str | None:
    """Give a keyword the spelling that it has in the text.

    White space around punctuation doesn't matter, since tokenizers that lower-case write
    'next. js' for 'Next.js'.

    Args:
        keyword: As a model wrote it.
        text: The text it is about.

    Returns:
        The first stretch of the text that is the keyword but for case, accents and white space, one
        in the same case before others; None where there is none.

    Example:
        >>> restore_case("next. js", "We moved to Next.js 14."), restore_case("vue", "Revue")
        ('Next.js', None)
    """
    pieces = re.findall(r"\w+|[^\w\s]", _folded(keyword))
    if not pieces:
        return None
    pattern = r"\s*".join(map(re.escape, pieces))
    # 'C' doesn't stand in 'C++', nor '.NET' in 'ASP.NET'.
    whole = re.compile(rf"(?<![\w]){pattern}(?![\w+#])" if pieces[-1][-1].isalnum() else pattern)
    folded = _folded(text)
    match = whole.search(folded) or re.compile(whole.pattern, re.IGNORECASE).search(folded)
    return " ".join(text[slice(*match.span())].split()) if match else None


def _folded(text: str) -> str:
    """Take the accents off, which lower-casing tokenizers do; every character keeps its place."""
    return "".join(unicodedata.normalize("NFD", character)[0] for character in text)


def top_keywords(
    keywords: Iterable[Sequence[str]], n: int | None = 20, versions: bool = False
) -> pd.DataFrame:
    """Count keywords over many texts, different spellings of one thing together.

    'nextjs', 'Next.js' and 'next.js 14' count as one, and so do 'LLM' and 'LLMs', shown in the
    commonest spelling; 'C', 'C++' and 'C#' stay apart. A text counts once, however often it names
    a thing.

    Args:
        keywords: Keywords per text, such as `extract_keywords` returns.
        n: Rows at most; None for all.
        versions: Whether to count versions ('Python 3.12') apart from the thing itself.

    Returns:
        One row per keyword, the commonest first: `keyword`, `texts` (number of texts), `share` (of
        the texts, 0 to 1) and `spellings` (how it was written, the commonest first; without the
        version unless `versions`).

    Example:
        >>> top_keywords([["Next.js", "Go"], ["nextjs"], ["next.js 14"]])["texts"].tolist()
        [3, 1]
    """
    spellings: dict[str, Counter[str]] = {}
    counts: Counter[str] = Counter()
    total = 0
    for phrases in keywords:
        if isinstance(phrases, str):
            raise ValueError(
                f"Keywords are one string, not a list: {phrases!r}. Split them first, for instance "
                "with cookbook.data.split_keywords."
            )
        total += 1
        seen: dict[str, str] = {}
        for phrase in phrases:
            name = phrase if versions else _VERSION.sub("", phrase)
            if key := _canonical(name):
                seen.setdefault(key, name)
        counts.update(seen.keys())
        for key, name in seen.items():
            spellings.setdefault(key, Counter())[name] += 1
    rows = []
    for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]:
        written = [name for name, _ in spellings[key].most_common()]
        rows.append((written[0], count, count / total, written))
    return pd.DataFrame(rows, columns=["keyword", "texts", "share", "spellings"])


# ' 14', ' v2.1', ' 3.12-rc1' at the end of a name; what stands before it is the thing itself.
_VERSION = re.compile(r"(?<=\S)\s+v?\d+(\.\d+|\.x)*(-?(alpha|beta|rc)\.?\d*)?$", re.IGNORECASE)


def _canonical(name: str) -> str:
    name = re.sub(r"(?<=[A-Z])s$", "", name)  # 'LLMs' is 'LLM', 'Windows' isn't 'Window'
    return re.sub(r"[^\w+#]|_", "", name.casefold())


def _spelt(keywords: list[str], text: str, present_only: bool) -> list[str]:
    found = []
    for keyword in keywords:
        spelling = restore_case(keyword, text)
        if spelling is None and present_only:
            spelling = _nearest(keyword, text)
        if spelling or not present_only:
            found.append(spelling or keyword)
    return split_keywords(found)


def _nearest(keyword: str, text: str, similarity: float = 80) -> str | None:
    """Return the one to four words of the text that a miswritten keyword is most like.

    Small models stutter on names that they have never seen, 'ubiquititi' for 'Ubiquiti'. Four
    characters of five in common made F1@M 0.02 to 0.03 higher on validation posts, hard cases and
    real texts alike; less brought no more.
    """
    from rapidfuzz import fuzz, process

    words = [match.span() for match in re.finditer(r"\w[\w.+#/'-]*[\w+#]|\w", text)]
    spans = [text[words[i][0] : end] for i in range(len(words)) for _, end in words[i : i + 4]]
    spans = [span for span in spans if not re.search(r"[,;:.!?)]\s", span)]
    folded = [_folded(span).casefold() for span in spans]
    best = process.extractOne(
        _folded(keyword).casefold(), folded, scorer=fuzz.ratio, score_cutoff=similarity
    )
    return " ".join(spans[best[2]].split()) if best else None


def _require_strings(texts: list[str]) -> None:
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"Text {row} is {text!r}, which is no string.")


def _loaded(
    model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, kind: Any
) -> tuple[Any, PreTrainedTokenizerBase]:
    network: Any = model
    if isinstance(model, (str, Path)):
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        network = kind.from_pretrained(model)
    if tokenizer is None:
        raise ValueError("Pass the tokenizer along with the model, or the model's folder alone.")
    return network, tokenizer
