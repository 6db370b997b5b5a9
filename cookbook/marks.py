"""From the tokens that a model marks to the pieces of words, and from those to keywords."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from cookbook.words import DOTTED, fold, places, spans


def token_places(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return where tokens stand, shape (tokens, 2), without the space that some begin with.

    Example:
        >>> token_places("to Go", [(0, 2), (2, 5)]).tolist()
        [[0, 2], [3, 5]]
    """
    return np.array(
        [(stop - len(text[start:stop].lstrip()), stop) for start, stop in offsets], np.int64
    ).reshape(-1, 2)


def of_pieces(text: str, tokens: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Give each piece of a text (see `words.places`) the marks of its tokens.

    It is as far inside a keyword as its tokens are on average; whether it begins one, the first of
    them says.

    Args:
        text: The text.
        tokens: First character and the one after the last of each token, shape (tokens, 2).
        marks: Probabilities of B (a keyword begins) and I (it goes on), shape (tokens, 2).

    Returns:
        The same of each piece, shape (pieces, 2); 0 where it has no token.

    Example:
        >>> of_pieces("In Go", np.array([[0, 2], [3, 5]]), np.array([[0.1, 0], [0.9, 0]])).tolist()
        [[0.1, 0.0], [0.9, 0.0]]
    """
    ends = _ends(text)
    first = tokens[:, 1].searchsorted(ends[:, 0], "right")
    last = tokens[:, 0].searchsorted(ends[:, 1], "left")
    sums = np.vstack([np.zeros((1, 2)), np.cumsum(marks, axis=0)])
    inside = ((sums[last] - sums[first]) / np.maximum(last - first, 1)[:, None]).sum(axis=1)
    opening = np.vstack([marks, np.zeros((1, 2))])[first]
    whole = opening.sum(axis=1)
    begins = inside * np.divide(opening[:, 0], whole, np.zeros(len(ends)), where=whole > 0)
    return np.column_stack([begins, inside - begins])


def to_tokens(text: str, tokens: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Give each token the marks of its piece: the way back from `of_pieces`, for any tokenizer.

    Args:
        text: The text.
        tokens: First character and the one after the last of each token, shape (tokens, 2).
        marks: Probabilities of B and I of each piece, shape (pieces, 2).

    Returns:
        Probabilities of O, B and I, shape (tokens, 3); -100 for special tokens.

    Example:
        >>> to_tokens("Go", np.array([[0, 0], [0, 1], [1, 2]]), np.array([[0.9, 0]])).round(1)
        array([[-100. , -100. , -100. ],
               [   0.1,    0.9,    0. ],
               [   0.1,    0. ,    0.9]])
    """
    # A piece more, for tokens that are in none.
    ends = np.vstack([_ends(text), [[len(text), len(text)]]])
    marks = np.vstack([np.asarray(marks, float).reshape(-1, 2), [[0, 0]]])
    piece = np.minimum(ends[:-1, 1].searchsorted(tokens[:, 0], "right"), len(ends) - 1)
    real = tokens[:, 0] < tokens[:, 1]  # special tokens are empty
    marks = np.where((real & (ends[piece, 0] < tokens[:, 1]))[:, None], marks[piece], 0)
    inside, begins = marks.sum(axis=1), marks[:, 0]
    # Of a piece's tokens the first alone may begin a keyword.
    later = np.flatnonzero(real)[1:]
    begins[later[np.diff(piece[real]) == 0]] = 0
    spread = np.column_stack([1 - inside, begins, inside - begins])
    return np.where(real[:, None], spread, -100)


def of_keywords(text: str, keywords: Iterable[str]) -> np.ndarray:
    """Return the marks of a text's keywords, wherever they stand: 1 or 0, shape (pieces, 2).

    Example:
        >>> of_keywords("Next.js in Go", ["Go"]).tolist()
        [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    """
    ends = _ends(text)
    marks = np.zeros((len(ends), 2))
    for start, stop in spans(text, keywords, inflected=True):
        inside = np.flatnonzero((ends[:, 0] < stop) & (ends[:, 1] > start))
        marks[inside, 1] = 1
        marks[inside[:1]] = 1, 0
    return marks


def read_marks(text: str, marks: np.ndarray, threshold: float = 0.5) -> list[tuple[str, float]]:
    """Read keywords off the probabilities of a text's pieces.

    A piece is inside a keyword where they add up to the threshold; a new keyword begins where B is
    likelier than I.

    Args:
        text: The text.
        marks: Probabilities of B (a keyword begins) and I (it goes on), shape (pieces, 2).
        threshold: Lower finds more, of which fewer are right.

    Returns:
        Each keyword as it stands in the text, once, and the least probability of its pieces.

    Example:
        >>> read_marks("In Go", np.array([[0.1, 0], [0.9, 0]]))
        [('Go', 0.9)]
    """
    there, ends = places(text), _ends(text)
    inside, begins = marks.sum(axis=1), marks[:, 0] > marks[:, 1]
    for dotted in re.finditer(DOTTED, text):  # '2.1.0' and 'Next.js' are in or out as a whole
        parts = (ends[:, 0] >= dotted.start()) & (ends[:, 1] <= dotted.end())
        inside[parts] = inside[parts].mean()
        begins[np.flatnonzero(parts)[1:]] = False
    # A dash between spaces is no part of a name, as a hyphen is.
    dash = np.array(
        [p == "-" and (text[a - 1 : a] + text[b : b + 1]).isspace() for p, (a, b) in there], bool
    )
    runs: list[list[int]] = []
    for i in np.flatnonzero((inside >= threshold) & (inside > 0) & ~dash).tolist():
        if runs and runs[-1][-1] == i - 1 and not begins[i]:
            runs[-1].append(i)
        else:
            runs.append([i])
    found: dict[str, tuple[str, float]] = {}
    for run in runs:
        named = [i for i in run if any(map(str.isalnum, there[i][0]))]  # no bracket at its ends
        if named:
            run = list(range(named[0], named[-1] + 1))
            keyword = " ".join(text[ends[run[0], 0] : ends[run[-1], 1]].split())
            known, best = found.get(fold(keyword), (keyword, 0.0))
            found[fold(keyword)] = known, max(best, float(inside[run].min()))
    return list(found.values())


def _ends(text: str) -> np.ndarray:
    return np.array([span for _, span in places(text)], np.int64).reshape(-1, 2)
