"""What a word is: split keyword cells, find, mend, mark, count and compare names in any script."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process

# Signs around a quotation, and at the end of a sentence, in any script.
QUOTES = '"“”„‟«»「」『』﹁﹂﹃﹄《》〈〉〝〞〟＂｢｣'
ENDS = ".!?…‥。．！？｡؟۔।॥"


def _signs(*kinds: str) -> str:
    """List the characters of these Unicode categories: `re` has no class for them."""
    signs = map(chr, [*range(0x3100), *range(0xA000, 0x12000)])
    return re.escape("".join(c for c in signs if unicodedata.category(c).startswith(kinds)))


# Thai, Lao, Myanmar, Khmer, Kana, Han, which put no space between words: each sign stands alone.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_HANGUL = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
# Marks belong to the letter before them, and so do joiners and soft hyphens within a word.
_MARK = f"[{_signs('M')}\u00ad\u200c\u200d\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
_LETTER = rf"[^\W{_UNSPACED}{_HANGUL}]"
_RUN = rf"{_LETTER}+(?:{_MARK}+{_LETTER}*)*"
_DOT = r"(?:(?<![\w.])\.(?=[^\W\d_]))?"  # of '.NET'
_SIGN = r"(?:\+\++|#|\+(?!\w))?"  # of 'C++', 'C#', 'Disney+'
_ALONE = rf"(?=\w)[{_UNSPACED}]{_MARK}*"

WORD = rf"[{_HANGUL}]+|{_ALONE}|{_DOT}{_RUN}(?:(?:[+#]+[./-]?|[./&\u2010\u2011-]){_RUN})*{_SIGN}"
"""Pattern of a word for `re`; 'C++', 'Next.js', '.NET', 'CI/CD' and 'Wi-Fi' are one each."""

DOTTED = rf"{_RUN}(?:\.{_RUN})+"
"""Pattern of a name with dots within, such as 'Next.js' and '2.1.0'."""

_WORDS = re.compile(WORD)
_EMOJI = rf"[\U0001f1e6-\U0001f1ff]{{2}}|[^\w\s](?:{_MARK}|(?<=\u200d)[^\w\s])*"
# Korean puts particles behind a noun without a space, so its syllables stand alone in matching.
_SYLLABLE = r"[\u1100-\u115f]+[\u1160-\u11ff]*|[\u3130-\u318f\uac00-\ud7a3]"
_PIECES = re.compile(rf"{_SYLLABLE}|{_ALONE}|{_DOT}{_RUN}{_SIGN}|{_EMOJI}|\S")
_UNSEEN = re.compile(r"[\u00ad\u200b\u200c\u2060\ufe00-\ufe0f\ufeff®™℠]|\u200d(?=\w|$)")
_ALIKE = str.maketrans(dict.fromkeys("’‘‛ʼ´＇", "'") | dict.fromkeys("‐‑‒–—―−", "-") | {"İ": "i"})
# Punctuation, but for the '#' of 'C#', the dot of '.NET' and what stands between two digits.
_NOISE = re.compile(
    rf"[{_signs('P', 'Cc', 'Cf')}_](?<!\w#)(?:(?<!\.)|(?<=[\w.]\.)|(?![^\W\d_]))"
    r"(?:(?<!\d[.,:/-])|(?!\d)|(?<=,)(?=\d{3}(?!\d)))"
)
# ' 14', ' v2.1', ' 3.12-rc1' at the end of a name; what stands before it is the thing itself.
_VERSION = re.compile(r"(?<=\S)\s+v?\d+(\.\d+|\.x)*(-?(alpha|beta|rc)\.?\d*)?$", re.IGNORECASE)
# What tokenizers that lower-case put into 'C++', 'C#' and '.NET'.
_APART = re.compile(r"\s+(?=#|\+\s*\+|\+$)|(?<=\+)\s+(?=\+)|(?<![\w.]\.)(?<=\.)\s+(?=[^\W\d_])")
# A comma between two digits is part of a name, '2,4-D'.
_BREAK = r"[;\n|，；、｜،؛]|(?<!\d),|,(?!\d)"
_FIELD = re.compile(
    rf'(?:^|{_BREAK})(?:\s*"((?:[^"]|"")*)"\s*(?={_BREAK}|$)|(.*?)(?={_BREAK}|$))', re.DOTALL
)


@lru_cache(maxsize=1 << 14)
def fold(text: str) -> str:
    """Return the form in which two spellings of one text are equal.

    Case, full-width forms, ligatures, composed and decomposed accents, typographic apostrophes and
    hyphens, and characters that nobody sees make no difference; accents and vowel signs do.

    Example:
        >>> fold("Ｃａｆｅ\u0301 Straße") == fold("CAFÉ STRASSE")
        True
    """
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", _UNSEEN.sub("", text.translate(_ALIKE))).casefold()
    return unicodedata.normalize("NFKC", text)


def normalise(text: str) -> str:
    """Fold a text and drop its punctuation and extra white space; signs of names and emoji stay.

    Example:
        >>> normalise("  You WON'T believe C#! ")
        'you wont believe c#'
    """
    return " ".join(_NOISE.sub(" ", fold(text).replace("'", "")).split())


def tokens(text: str) -> list[str]:
    """Return the words of a text as they stand, each with the signs that belong to a name.

    Scripts that put no space between words (Han, Kana, Thai, Lao, Khmer, Myanmar) give one sign a
    word.

    Example:
        >>> tokens("Use C++, .NET or Next.js."), tokens("新しいGPU")
        (['Use', 'C++', '.NET', 'or', 'Next.js'], ['新', 'し', 'い', 'GPU'])
    """
    return _WORDS.findall(text)


def pieces(text: str) -> list[str]:
    """Return what matching compares: folded runs of letters and single signs.

    Example:
        >>> pieces("Next.js isn't C++")
        ['next', '.', 'js', 'isn', "'", 't', 'c++']
    """
    return [piece for piece, _ in places(text)]


@lru_cache(maxsize=1 << 12)
def places(text: str) -> list[tuple[str, tuple[int, int]]]:
    """Return each of the `pieces` of a text, and where it stands.

    Example:
        >>> places("In C++")
        [('in', (0, 2)), ('c++', (3, 6))]
    """
    found = [(fold(match[0]), match.span()) for match in _PIECES.finditer(text)]
    return [place for place in found if place[0]]


def positions(wanted: Sequence[str], source: Sequence[str]) -> list[int]:
    """Say where the pieces of a name stand one after the other among those of a text.

    Example:
        >>> positions(["b", "c"], ["a", "b", "c"])
        [1]
    """
    n = len(wanted)
    return [i for i in range(len(source) - n + 1) if n and source[i : i + n] == wanted]


def split_keywords(cell: object, unique: bool = True) -> list[str]:
    """Turn a cell of keywords into a list, whatever way they are written down.

    A string separated by commas, semicolons (also full-width and Arabic ones), '|' or line breaks,
    where a comma between digits or double quotes is part of its keyword; a list or array; the same
    as text of Python, JSON or numpy; pairs of a keyword and its score.

    Args:
        cell: What a column of keywords holds in one row, or what a model wrote.
        unique: False keeps repeated and empty keywords too, to check what was written.

    Returns:
        The keywords in their order; the first spelling of repeated ones; [] where there are none.

    Example:
        >>> split_keywords("Go; Redis;go"), split_keywords('["C++", null]'), split_keywords(None)
        (['Go', 'Redis'], ['C++'], [])
    """
    parts = [" ".join(part.split()) for part in _members(cell)]
    if not unique:
        return parts
    kept: dict[str, str] = {}
    for part in filter(None, parts):
        kept.setdefault(fold(part), part)
    return list(kept.values())


def join_keywords(keywords: object) -> str:
    """Write keywords as one cell, 'Go, Redis', that `split_keywords` reads back.

    Example:
        >>> join_keywords(["Go", "Redis, Inc", "2,4-D"])
        'Go, "Redis, Inc", 2,4-D'
    """
    cells = []
    for name in split_keywords(keywords):
        plain = name[0] not in '[("' and split_keywords(name) == [name]
        cells.append(name if plain else '"' + name.replace('"', '""') + '"')
    return ", ".join(cells)


def _members(cell: object) -> Iterator[str]:
    if isinstance(cell, str):
        listed = _listed(cell.strip())
        parts = ((quoted.replace('""', '"') or plain) for quoted, plain in _FIELD.findall(cell))
        yield from parts if listed is None else _members(listed)
    elif isinstance(cell, (list, tuple, np.ndarray)):
        for member in cell:
            yield from [member] if isinstance(member, str) else _members(member)


def _listed(text: str) -> object:
    """Read the text of a list or tuple; None where it is something else."""
    if text[:1] + text[-1:] not in ("[]", "()"):
        return None
    # Arrays as text have no commas, "['Go' 'Redis']", and scores are np.float64(0.5).
    python = re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", re.sub(r"np\.\w+\(([^()]*)\)", r"\1", text))
    for read, written in ((json.loads, text), (ast.literal_eval, python)):
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return read(written)
    return None


def _bare(text: str) -> str:
    """Fold a text and take accents off, as lower-casing tokenizers do; never a vowel sign."""
    apart = unicodedata.normalize("NFD", fold(text))
    return unicodedata.normalize(
        "NFC", re.sub("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f]", "", apart)
    )


def _found(keyword: str, text: str, inflected: bool = False) -> list[tuple[int, int]]:
    """Return where a keyword stands, in its own spelling alone where the text has it."""
    source, wanted = pieces(text), pieces(_APART.sub("", keyword.strip()))
    found = positions(wanted, source)
    # Who writes no accents may mean those of the text; who writes them means these.
    if not found and wanted == list(map(_bare, wanted)):
        found = positions(wanted, list(map(_bare, source)))
    if not found and inflected:
        found = positions(stems(keyword.strip()), stems(text))
    ends = [span for _, span in places(text)]
    there = [(ends[i][0], ends[i + len(wanted) - 1][1]) for i in found]
    return [span for span in there if text[slice(*span)] == keyword] or there


@lru_cache(10_000)
def stems(text: str) -> tuple[str, ...]:
    """Return the `pieces` of a text without their endings (Porter's stemmer of NLTK).

    Example:
        >>> stems("Diffusion policies")
        ('diffus', 'polici')
    """
    return tuple(map(_stemmer(), pieces(text)))


@cache
def _stemmer() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer  # a second to import, so not before it is needed

    return cache(PorterStemmer().stem)


def restore_case(keyword: str, text: str) -> str | None:
    """Give a keyword the spelling that it has in the text.

    White space around signs, case, and accents that the keyword lacks don't matter; whole words do,
    where the script has words.

    Args:
        keyword: As a model wrote it.
        text: The text it is about.

    Returns:
        The first stretch of the text that is the keyword, one in the same spelling before others;
        None where there is none.

    Example:
        >>> restore_case("next. js", "We moved to Next.js 14."), restore_case("vue", "Revue")
        ('Next.js', None)
    """
    found = _found(keyword, text)
    return " ".join(text[slice(*found[0])].split()) if found else None


@lru_cache(maxsize=64)
def _stretches(text: str, words: int) -> dict[str, str]:
    """Return the runs of up to so many words of a text, and the form of each to compare."""
    spans = [match.span() for match in _WORDS.finditer(text)]
    runs = [
        text[start:end] for i, (start, _) in enumerate(spans) for _, end in spans[i : i + words]
    ]
    return {run: _bare(run) for run in runs if not re.search(r"[,;:.!?)]\s|[，；、。！？]", run)}


def mend(keyword: str, text: str, similarity: float = 80) -> str | None:
    """Return the few words of the text that a miswritten keyword is most like.

    Small models stutter on names that they have never seen, 'ubiquititi' for 'Ubiquiti'.

    Args:
        keyword: As a model wrote it.
        text: The text it is about.
        similarity: From 0 to 100, rapidfuzz's ratio that must be reached.

    Returns:
        The words as they stand in the text; None where nothing is like the keyword.

    Example:
        >>> mend("ubiquititi", "My Ubiquiti router")
        'Ubiquiti'
    """
    stretches = _stretches(text, max(4, len(tokens(keyword)) + 1))
    best = process.extractOne(_bare(keyword), stretches, scorer=fuzz.ratio, score_cutoff=similarity)
    return " ".join(best[2].split()) if best else None


def spelt(keywords: Iterable[str], text: str, present_only: bool = True) -> list[str]:
    """Spell keywords as the text does: found in it, else mended, else dropped.

    Args:
        keywords: As a model wrote them.
        text: The text they are about.
        present_only: False keeps what isn't in the text, as it was written.

    Returns:
        The keywords, each once.

    Example:
        >>> spelt(["redis", "kafka"], "Redis is fast"), spelt(["kafka"], "Redis", False)
        (['Redis'], ['kafka'])
    """
    found = [
        restore_case(keyword, text) or (mend(keyword, text) if present_only else keyword)
        for keyword in keywords
    ]
    return split_keywords(found)


def spans(text: str, keywords: Iterable[str], inflected: bool = False) -> list[tuple[int, int]]:
    """Return where keywords stand in a text: every place, the longest first, none over another.

    Args:
        text: The text.
        keywords: Those to find, as `restore_case` finds them.
        inflected: Whether one that stands nowhere may have another ending there.

    Returns:
        First character and the one after the last of each, in the order of the text.

    Example:
        >>> spans("C or C++", ["C", "C++", "Go"])
        [(0, 1), (5, 8)]
    """
    found = {span for keyword in keywords for span in _found(keyword, text, inflected)}
    kept: list[tuple[int, int]] = []
    for start, stop in sorted(found, key=lambda span: (span[0] - span[1], span)):
        if all(stop <= begin or end <= start for begin, end in kept):
            kept.append((start, stop))
    return sorted(kept)


def mark(text: str, keywords: Iterable[str]) -> list[tuple[str, bool]]:
    """Cut a text where keywords stand in it; see `spans`.

    Returns:
        The pieces, which join to the text, and whether each is a keyword.

    Example:
        >>> mark("C or C++", ["C", "C++"])
        [('C', True), (' or ', False), ('C++', True)]
    """
    cut, end = [], 0
    for start, stop in spans(text, keywords):
        cut += [(text[end:start], False), (text[start:stop], True)]
        end = stop
    return [piece for piece in [*cut, (text[end:], False)] if piece[0]]


def canonical(name: str) -> str:
    """Return what two spellings of one name have in common, such as 'nextjs' and 'Next.js'.

    Signs that tell names apart stay ('C#', '.NET'), and so does what stands between digits.

    Example:
        >>> canonical("Next.js"), canonical(".NET"), canonical("LLMs"), canonical("Java 1.8")
        ('nextjs', '.net', 'llm', 'java1.8')
    """
    folded = fold(re.sub(r"(?<=[A-Z]{2})s$", "", name.strip()))
    key = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", _NOISE.sub("", folded.replace("'", "")))
    return key or "".join(folded.split())


def top_keywords(
    keywords: Iterable[Sequence[str]],
    n: int | None = 20,
    versions: bool = False,
    dates: Iterable[object] | None = None,
    by: str = "week",
) -> pd.DataFrame:
    """Count keywords over many texts, different spellings of one thing together.

    'nextjs', 'Next.js' and 'next.js 14' count as one, and so do 'LLM', 'LLMs' and 'llms', or
    'GPT-4' and 'GPT 4'; 'C', 'C++' and 'C#' stay apart. A text counts once.

    Args:
        keywords: Keywords per text, such as `extract_keywords` returns.
        n: Rows at most; None for all.
        versions: Whether to count versions ('Python 3.12') apart from the thing itself.
        dates: The date of each text, to see what rises and falls.
        by: The period to count by: 'day', 'week', 'month', 'quarter' or 'year'.

    Returns:
        One row per keyword, the commonest first: `keyword` (its commonest spelling), `texts`,
        `share` (of the texts, 0 to 1) and `spellings`. With dates also the share in each period
        (columns are `pd.Period`), and by how much the last one differs from all before: `change`,
        and its interval, `low` to `high` (Newcombe 1998, method 10; 95% over all rows together).

    Raises:
        ValueError: The keywords of a text are one string, or dates are of one period only, or
            not one a text.

    Example:
        >>> top_keywords([["Next.js", "Go"], ["nextjs"], ["next.js 14"]])["texts"].tolist()
        [3, 1]
    """
    texts = []
    for row, phrases in enumerate(keywords):
        if isinstance(phrases, str):
            raise ValueError(
                f"Keywords of text {row} are one string, not a list: {phrases!r}. Split them "
                "first, for instance with cookbook.words.split_keywords."
            )
        texts.append(split_keywords(list(phrases)))
    found = {phrase for phrases in texts for phrase in phrases}
    # A number that somebody writes without a space, 'GPT-4', is no version but part of the name.
    whole = {canonical(phrase) for phrase in found if versions or not _VERSION.search(phrase)}
    names = {p: p if canonical(p) in whole else _VERSION.sub("", p) for p in found}
    # Where somebody writes 'LLMs', 'llms' is a plural too.
    plurals = {fold(name) for name in names.values() if re.search(r"[A-Z]{2}s$", name)}
    keys = {p: canonical(n[:-1] if fold(n) in plurals else n) for p, n in names.items()}
    spellings: dict[str, Counter[str]] = {}
    for phrases in texts:
        # Reversed, so that the first spelling of each stays.
        for key, name in {keys[p]: names[p] for p in reversed(phrases)}.items():
            spellings.setdefault(key, Counter())[name] += 1
    common = sorted(spellings.items(), key=lambda item: (-item[1].total(), item[0]))[:n]
    rows = []
    for _, counts in common:
        written = [name for name, _ in counts.most_common()]
        rows.append((written[0], counts.total(), counts.total() / len(texts), written))
    table = pd.DataFrame(rows, columns=["keyword", "texts", "share", "spellings"])
    if dates is None or table.empty:
        return table
    said = [{keys[phrase] for phrase in phrases} for phrases in texts]
    having = pd.DataFrame({key: [key in each for each in said] for key, _ in common})
    return table.join(_by_period(having, dates, by))


def _by_period(having: pd.DataFrame, dates: Iterable[object], by: str) -> pd.DataFrame:
    """Return the shares of each column of yes and no by period, and how the last differs."""
    from scipy.stats import binomtest  # a second to import

    days = pd.to_datetime(pd.Series(list(dates), having.index), format="mixed", utc=True)
    periods = days.dt.tz_localize(None).dt.to_period(by[0].upper())
    if periods.isna().any():
        told = f"{periods.isna().sum()} of {len(periods)} texts have no date, and count in no {by}."
        warnings.warn(told, stacklevel=3)
    last = (periods == periods.max())[periods.notna()]
    if last.all():
        raise ValueError(f"All texts are of one {by}: nothing can rise or fall.")
    shares = having.groupby(periods).mean().T.reset_index(drop=True)
    # Newcombe's interval of a difference comes from Wilson's of the two shares. Divided among the
    # rows, or one in twenty keywords would rise by chance.
    sides = []
    for now in (True, False):
        part = having[periods.notna()][last == now]
        tests = [binomtest(int(k), len(part)) for k in part.sum()]
        ends = [test.proportion_ci(1 - 0.05 / len(tests), "wilson") for test in tests]
        sides.append((part.mean().to_numpy(), *np.array(ends).T))
    (new, new_low, new_high), (old, old_low, old_high) = sides
    shares["change"] = new - old
    shares["low"] = new - old - np.hypot(new - new_low, old_high - old)
    shares["high"] = new - old + np.hypot(new_high - new, old - old_low)
    return shares
