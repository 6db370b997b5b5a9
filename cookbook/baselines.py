"""What you would take instead of a fine-tuned small model; `compare` says how much worse it is.

Classifiers (the commonest label, TF-IDF, frozen embeddings, SetFit, fastText, an LLM) and ways to
find keywords (word counts, spaCy, YAKE, KeyBERT). Most need
`pip install "small-model-cookbook[compare]"`, and say so in a ModuleNotFoundError. Settings are
those that did best on the validation splits of the shipped data.
"""

from __future__ import annotations

import json
import pickle
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tqdm.auto import tqdm

from cookbook import data, extra, sentence_encoders, tables
from cookbook.annotation import asset, turn
from cookbook.keyword_baselines import keybert_keywords as keybert_keywords
from cookbook.keyword_baselines import nltk_keywords as nltk_keywords
from cookbook.keyword_baselines import spacy_keywords as spacy_keywords
from cookbook.keyword_baselines import stop_words as stop_words
from cookbook.keyword_baselines import yake_keywords as yake_keywords
from cookbook.label_cells import one_hot
from cookbook.llm import Answer, Journal, Llm, connect, in_order, json_values
from cookbook.words import fold


@dataclass(frozen=True)
class Classifier:
    """Anything that gives each text a label, a fine-tuned model among them.

    `Classifier("MiniLM", lambda texts: inference.classify(texts, model)["label"])` is one. What a
    function loads within is timed too.

    Attributes:
        name: What tables and pictures call it.
        predict: A function from texts to one label name each, '' where it has none; where a text
            may have several, to lists of them.
        size: Bytes on disk; None where nobody knows.
        note: How it was made, in a few words.
        probabilities: Where there are some: a function from texts to a row each, a column per
            label.
    """

    name: str
    predict: Callable[[Sequence[str]], list[Any]]
    size: int | None = None
    note: str = ""
    probabilities: Callable[[Sequence[str]], np.ndarray] | None = None


def majority(labels: Sequence[Any]) -> Classifier:
    """Give every text the commonest label: what a score has to beat to mean anything.

    Args:
        labels: Labels of the training texts.

    Raises:
        ValueError: There is no label.

    Example:
        >>> majority(["a", "b", "b"]).predict(["a text"])
        ['b']
    """
    names = data.label_names(labels).dropna()
    if names.empty:
        raise ValueError("There is no label to take the commonest of.")
    commonest = names.mode()[0]
    note = f"always {commonest!r}, {names.eq(commonest).mean():.0%} of the training texts"
    return Classifier("majority", lambda texts: [commonest] * len(texts), size=0, note=note)


def tfidf(
    texts: Sequence[str], labels: Sequence[Any], lowercase: bool = True, C: float = 30
) -> Classifier:
    """Train TF-IDF with logistic regression: a second of work, and often hard to beat.

    Args:
        texts: Training texts.
        labels: A label per text; or a list of them, for one regression a label.
        lowercase: False tells 'Trick' from 'trick'.
        C: Inverse of the strength of regularisation.

    Returns:
        The classifier; its `probabilities` have a column per label, sorted by name.

    Raises:
        ValueError: A text or a label is missing; names its position.

    Example:
        >>> trained = tfidf(["You won't believe it", "Bank cuts rate"], ["bait", "fact"])
        >>> trained.predict(["Rate cut"])
        ['fact']
    """
    vectorizer = TfidfVectorizer(
        lowercase=lowercase, ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]"
    )
    pipeline, predict = _regression(vectorizer, texts, labels, C)
    return Classifier(
        "TF-IDF" if lowercase else "TF-IDF, cased",
        predict,
        size=len(pickle.dumps(pipeline)),
        note="words and pairs of words, logistic regression",
        probabilities=lambda new: pipeline.predict_proba(list(new)),
    )


def embeddings(
    texts: Sequence[str],
    labels: Sequence[Any],
    model: str | Path = sentence_encoders.MINILM,
    *,
    C: float = 10,
) -> Classifier:
    """Train logistic regression on the vectors of a sentence encoder that nobody fine-tunes.

    Args:
        texts: Training texts.
        labels: As for `tfidf`.
        model: A SentenceTransformer: name on the Hub, or folder. It is loaded once.
        C: Inverse of the strength of regularisation.

    Returns:
        The classifier, with `probabilities` as those of `tfidf`.

    Raises:
        ValueError: A text or a label is missing; names its position.
        OSError: There is no such model, or the Hub is out of reach.
    """
    note = f"vectors of {model}, logistic regression"
    return _on_vectors(
        "frozen embeddings", sentence_encoders.load(str(model)), texts, labels, C, note
    )


def setfit(
    texts: Sequence[str],
    labels: Sequence[Any],
    model: str | Path = sentence_encoders.MINILM,
    *,
    steps: int = 150,
    batch_size: int = 16,
    seed: int = 0,
) -> Classifier:
    """Train SetFit (Tunstall et al. 2022, https://arxiv.org/abs/2209.11055), made for few labels.

    A sentence encoder learns from pairs of texts which of them share a label; then its vectors are
    given to logistic regression. There are as many pairs as the square of the texts, so no more are
    made than fill the steps, from as many texts, drawn at random. The regression gets all texts.

    Args:
        texts: Training texts.
        labels: As for `tfidf`.
        model: As for `embeddings`.
        steps: Training steps; few pairs are gone through again and again.
        batch_size: Pairs a step.
        seed: Seed of the training. The caller's random numbers stay as they are.

    Returns:
        The classifier, with `probabilities` as those of `tfidf`.

    Raises:
        ValueError: A text or a label is missing, or no pair of texts differs in its labels.
        OSError: There is no such model, or the Hub is out of reach.
    """
    given, sets = _training_rows(texts, labels)
    encoder = sentence_encoders.tune(str(model), given, sets, steps, batch_size, seed)
    note = f"{model} fine-tuned on {steps * batch_size:,} pairs, logistic regression"
    return _on_vectors("SetFit", encoder, texts, labels, 1, note)


def fasttext(
    texts: Sequence[str], labels: Sequence[Any], *, seed: int = 0, **options: Any
) -> Classifier:
    """Train fastText (Joulin et al. 2017, https://aclanthology.org/E17-2068).

    Texts are lower-cased and punctuation is set apart. One thread: with more no two runs are alike.

    Args:
        texts: Training texts.
        labels: A label per text.
        seed: Seed of the training.
        **options: For `fasttext.train_supervised`, in place of `epoch=25`, `lr=0.5`, `dim=16`,
            `wordNgrams=2` and `bucket=100_000`; `minn=3, maxn=6` adds subwords.

    Raises:
        ValueError: A text or a label is missing; names its position.
    """
    with extra("compare"):
        import fasttext as library
    texts, given = _training_rows(texts, data.label_names(labels).tolist())
    names = sorted(set(chain.from_iterable(given)))
    settings = {"epoch": 25, "lr": 0.5, "dim": 16, "wordNgrams": 2, "bucket": 100_000, **options}
    with tempfile.TemporaryDirectory() as folder:
        rows, saved = Path(folder) / "rows.txt", Path(folder) / "model.bin"
        # Numbers for the names, which may hold spaces; `_spaced` keeps '__label__' out of texts.
        lines = [
            f"__label__{names.index(own)} {_spaced(text)}\n"
            for text, (own,) in zip(texts, given, strict=True)
        ]
        rows.write_text("".join(lines), encoding="utf-8")
        model = library.train_supervised(str(rows), seed=seed, thread=1, verbose=0, **settings)
        model.save_model(str(saved))
        size = saved.stat().st_size

    def predict(new: Sequence[str]) -> list[str]:
        found, _ = model.predict([_spaced(text) for text in new])
        return [names[int(best[0].removeprefix("__label__"))] for best in found]

    return Classifier("fastText", predict, size, f"words and sequences of them: {settings}")


CLASSIFY, CLASSIFY_SEVERAL = asset("classify.txt"), asset("classify_several.txt")


def llm(
    model: str | Llm,
    labels: Sequence[str] | Mapping[str, str],
    *,
    question: str = "You get a text. Which of these labels fits it?",
    examples: Sequence[tuple[str, Any]] = (),
    several: bool = False,
    concurrency: int = 1,
    num_ctx: int = 2048,
    host: str | Sequence[str] | None = None,
    timeout: float = 120,
    journal: str | Path | None = None,
) -> Classifier:
    """Ask an LLM, a local one through Ollama, for every label: zero-shot, or with examples.

    What can't be read is the label '', wrong everywhere, or of several none; a warning counts it.

    Args:
        model: A model that the Ollama server has pulled, or one on any server, from `llm.connect`.
        labels: The label names, or names with a sentence that says what belongs there.
        question: What is asked; the labels follow it.
        examples: Pairs of text and label, or list of labels, to go before every question.
        several: Whether a text may have several labels.
        concurrency: Questions at once, of each server.
        num_ctx: Tokens of prompt and answer; a text that might not fit is cut.
        host: As for `cookbook.llm.connect`, whose errors are raised.
        timeout: Seconds that an answer may take.
        journal: A file of answers, from which a killed run goes on; what is there takes no time.

    Raises:
        ValueError: Fewer than two labels, an example with another label, or no room for a text.
    """
    names = tables.strings(labels)
    if len(set(names)) < max(2, len(names)):
        raise ValueError(f"Give at least two labels, each with a name of its own: {labels!r}")
    field = "labels" if several else "label"
    given = [label if several else [label] for _, label in examples]
    if unknown := set(chain.from_iterable(given)) - set(names):
        raise ValueError(f"Examples have other labels than {names}: {sorted(unknown)}")
    meanings = labels if isinstance(labels, Mapping) else dict.fromkeys(names)
    listed = [f"- {name}: {told}" if told else f"- {name}" for name, told in meanings.items()]
    form = json.dumps({field: ["…"] if several else "…"}, ensure_ascii=False)
    asked = CLASSIFY_SEVERAL if several else CLASSIFY
    system = asked.format(question=question, labels="\n".join(listed), answer=form)
    shown = [{"role": "system", "content": system}]
    for text, label in examples:
        shown += turn(text, {field: label})
    num_predict = 32 + (sum if several else max)(map(len, names))
    # Two characters a token at worst; Ollama would drop the beginning of the prompt in silence.
    room = 2 * (num_ctx - num_predict) - len(str(shown))
    if room < 200:
        raise ValueError(f"{num_ctx=} leaves no room for a text: raise it, or give fewer examples.")
    options = {"temperature": 0, "num_predict": num_predict, "num_ctx": num_ctx}
    one: dict[str, Any] = {"type": "string", "enum": names}
    shape = {"type": "array", "items": one, "maxItems": len(names)} if several else one
    schema = {"type": "object", "properties": {field: shape}, "required": [field]}
    server = connect(model, host, timeout)

    read = _label_reader(names, several)

    def predict(new: Sequence[str]) -> list[Any]:
        left = iter(tables.strings(new))
        with Journal(journal) if journal else nullcontext() as kept:

            def ask(text: str) -> Answer:
                messages = [*shown, {"role": "user", "content": text[:room]}]
                return server.ask(messages, schema, options, kept)

            work = in_order(ask, lambda: next(left, None), server.at_once(concurrency))
            answers = [answer for _, answer in tqdm(work, server.model, len(new), leave=False)]
        found = [read(answer.content) for answer in answers]
        if "" in found:
            first = answers[found.index("")]
            warnings.warn(
                f"{found.count('')} of {len(found)} answers of {server.model} couldn't be read and "
                f"count as wrong, the first of them {(first.content or first.reason)[:200]!r}.",
                stacklevel=2,
            )
        return [each or [] for each in found] if several else found

    shots = f"{len(examples)} examples" if examples else "zero-shot"
    return Classifier(f"{server.model}, {shots}", predict, server.size, "asked through a server")


def _label_reader(names: Sequence[str], several: bool) -> Callable[[str], Any]:
    """Make a function from an answer to its label, or list of labels; '' where it has none."""
    # Read more freely than asked for: a server that the schema doesn't bind writes 'Clickbait'.
    spelt = {fold(name): name for name in names}

    def named(said: Any) -> str:
        said = str(said).strip()
        return said if said in names else spelt.get(fold(said), "")

    def read(content: str) -> Any:
        objects = [value for value in json_values(content) if isinstance(value, dict)]
        if not several:
            return named(objects[-1].get("label")) if objects else ""
        said = objects[-1].get("labels") if objects else None
        found = dict.fromkeys(filter(None, map(named, said if isinstance(said, list) else [])))
        return list(found) if found or said == [] else ""

    return read


def _several(labels: Sequence[Any]) -> bool:
    return any(isinstance(label, (list, tuple, set, np.ndarray)) for label in labels)


def _training_rows(texts: Sequence[str], labels: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """Return the texts and the labels of each, one as a list of one."""
    texts = tables.strings(texts)
    sets = data.label_sets(labels) if _several(labels) else data.label_names(labels)
    if len(texts) != len(sets) or not texts:
        raise ValueError(f"{len(texts)} texts and {len(sets)} labels: one label per text needed.")
    if sets.isna().any():
        raise ValueError(f"Text {sets.isna().argmax()} has no label: leave it out, or label it.")
    return texts, [[own] if isinstance(own, str) else own for own in sets]


def _regression(
    features: Any, texts: Sequence[str], labels: Sequence[Any], C: float
) -> tuple[Any, Callable[[Sequence[str]], list[Any]]]:
    """Fit logistic regression, one a label where a text may have several; return what predicts."""
    texts, sets = _training_rows(texts, labels)
    names, several = sorted(set(chain.from_iterable(sets))), _several(labels)
    regression: Any = LogisticRegression(C=C, max_iter=1000)
    if several:
        regression = OneVsRestClassifier(regression)
    targets = one_hot(sets, names) if several else [own for (own,) in sets]
    pipeline = make_pipeline(features, regression).fit(texts, targets)

    def predict(new: Sequence[str]) -> list[Any]:
        found = pipeline.predict(list(new)) if len(new) else np.array([])
        if not several:
            return found.tolist()
        return [[name for name, one in zip(names, row, strict=True) if one] for row in found]

    return pipeline, predict


def _on_vectors(
    name: str, encoder: Any, texts: Sequence[str], labels: Sequence[Any], C: float, note: str
) -> Classifier:
    """Train logistic regression on the vectors of an encoder."""
    vectors = FunctionTransformer(encoder.encode, kw_args={"show_progress_bar": False})
    pipeline, predict = _regression(vectors, texts, labels, C)
    size = sum(weights.numel() * weights.element_size() for weights in encoder.parameters())
    return Classifier(name, predict, size, note, lambda new: pipeline.predict_proba(list(new)))


def _spaced(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+|[^\w\s]|_", text.lower()))
