"""Which of many texts are alike, without a comparison of every pair."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process
from tqdm.auto import tqdm

# The words of a text in order, sorted, and the numbers among them.
Form = tuple[str, str, tuple[str, ...]]
# Two texts share one of 50 bands of five MinHashes with a probability of 1 - (1 - J^5)^50, where J
# is the share of their runs of three characters that both have: 0.98 at J = 0.6. A ratio of 90
# means that, unless every tenth sign is another. Random titles have 0.03 of their runs in common.
_BANDS, _BAND = 50, 5
# Of 64 hashes the share that is equal, below which a pair isn't looked at.
_LOOK, _ALIKE = 64, 0.35
# Of more alike than that, as letters from one template are, not every pair is compared or kept.
CROWD = 64


def alike(
    forms: list[Form], similarity: float, rows: np.ndarray
) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs alike in order that share a band of their signatures.

    Of a crowd in one bucket each is compared with its neighbours and with the first rows.
    """
    keys = [form[0] for form in forms]
    lengths = np.array(list(map(len, keys)), dtype=int)
    most = longest(lengths, similarity)
    # Only texts with the same numbers can be the same.
    numbers = pd.factorize(pd.Series([" ".join(form[2]) for form in forms]))[0]
    signatures = _signatures(keys)
    within: list[np.ndarray] = []
    bands = range(0, signatures.shape[1], _BAND)
    for band in tqdm(bands, desc="Near duplicates", leave=False, delay=1):
        columns = [numbers.astype(np.uint32), *signatures[:, band : band + _BAND].T]
        order = np.lexsort([rows, *columns])
        changes = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
        ends: np.ndarray = np.append(np.flatnonzero(changes) + 1, len(order))  # of each bucket
        sizes = np.diff(ends, prepend=0)
        place: np.ndarray = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order)) - np.repeat(ends - sizes, sizes)
        within.append(place)
        for at, other in _in_buckets(ends):
            i, j = np.sort([order[at], order[other]], axis=0)
            near = lengths[j] <= most[i]
            for earlier in range(0, band, _BAND):  # where they met there, they have been compared
                part = slice(earlier, earlier + _BAND)
                a, b = i[near], j[near]
                here = within[earlier // _BAND]
                met = np.abs(here[a] - here[b]) <= CROWD
                met |= np.minimum(here[a], here[b]) < CROWD
                near[near] = ~met | (signatures[a, part] != signatures[b, part]).any(axis=1)
            equal = signatures[i[near], :_LOOK] == signatures[j[near], :_LOOK]
            near[near] = equal.mean(axis=1) >= _ALIKE
            i, j = i[near].tolist(), j[near].tolist()
            ours, theirs = ([keys[n] for n in side] for side in (i, j))
            scores = process.cpdist(
                ours, theirs, scorer=fuzz.ratio, score_cutoff=similarity, workers=-1
            )
            for hit in np.flatnonzero(scores).tolist():
                yield i[hit], j[hit], float(scores[hit])


def _in_buckets(ends: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of places, those of each bucket that ends there; of a crowd not all of them."""
    sizes = np.diff(ends, prepend=0)
    begin: np.ndarray = np.repeat(ends - sizes, sizes)
    end: np.ndarray = np.repeat(ends, sizes)
    at: np.ndarray = np.arange(len(end))
    for distance in range(1, CROWD + 1):
        if not len(at := at[at + distance < end[at]]):
            return
        yield at, at + distance
    for first in range(CROWD):
        far = np.flatnonzero(np.arange(len(end)) - begin - first > CROWD)
        yield begin[far] + first, far


def _signatures(keys: list[str]) -> np.ndarray:
    """Return the MinHash signatures of shape (texts, bands x rows), of runs of three characters."""
    from rensa import RMinHash

    step = 8192
    found: np.ndarray = np.empty((len(keys), _BANDS * _BAND), np.uint32)
    for start in tqdm(range(0, len(keys), step), desc="Signatures", leave=False, delay=1):
        runs = []
        for key in keys[start : start + step]:
            codes = np.frombuffer(f" {key} ".encode("utf-32-le"), np.uint32).astype(np.uint64)
            runs.append(codes[:-2] << np.uint64(42) | codes[1:-1] << np.uint64(21) | codes[2:])
        offsets = np.cumsum([0, *map(len, runs)]).astype(np.uint64)
        hashes = RMinHash.digest_matrix_from_flat_token_hashes(
            np.concatenate(runs), offsets, num_perm=found.shape[1], seed=0
        )
        found[start : start + step] = hashes.to_rows()
    return found


def longest(lengths: np.ndarray, similarity: float) -> np.ndarray:
    """Return how long a text may be that is so similar: ratio = 200 * common / (a + b)."""
    return lengths * (200 / max(similarity, 1) - 1) + 1e-9
