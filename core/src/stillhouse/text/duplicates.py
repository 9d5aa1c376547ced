"""Texts that repeat each other, word for word or nearly so: they must not stand on both sides of a split."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

WORD = re.compile(r"\w+")
_BLOCK, _PAIRS = 1024, 2**16
"""Texts that are held against all others at a time, and pairs whose words are counted at a time."""


def normalised(text: str) -> str:
    """The text without differences of case and blanks."""
    return " ".join(text.casefold().split())


def near_duplicates(texts: Sequence[str], *, least: float = 0.8, same: Sequence[Sequence[str]] = ()) -> np.ndarray:
    """Number of the family of each text ``[N]``, int64: texts are of one family that are equal but for case and blanks,
    whose sets of words overlap by ``least`` (Jaccard: shared words over all words), or that share a label of ``same``;
    and so are the friends of friends.

    Exact, not sampled: two sets that overlap by ``least`` share one of the rarest words of each, the first
    ``n - ceil(least * n) + 1`` of n (prefix filter: Bayardo, Ma and Srikant, "Scaling Up All Pairs Similarity Search",
    2007), so that only texts with such a word in common are compared.

    Args:
        texts: the texts.
        least: overlap from which two texts are one, in (0, 1]; 1 joins texts of the same words.
        same: labels ``[N]`` of other things that must stay together, e.g. the document of each text.
    """
    pairs = [_of_one_label([normalised(text) for text in texts]), *(_of_one_label(labels) for labels in same)]
    pairs.append(_overlapping(texts, least))
    first, second = np.concatenate(pairs, axis=1)
    graph = sparse.coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(len(texts), len(texts)))
    family: np.ndarray = connected_components(graph, directed=False)[1].astype(np.int64)
    return family


def _of_one_label(labels: Sequence[str]) -> np.ndarray:
    """Each row with the first one of its label, ``[2, N]``."""
    first: dict[str, int] = {}
    return np.array([[first.setdefault(label, row) for row, label in enumerate(labels)], range(len(labels))])


def _overlapping(texts: Sequence[str], least: float) -> np.ndarray:
    """Pairs whose sets of words overlap enough, ``[2, P]``."""
    sets = [set(WORD.findall(text.casefold())) for text in texts]
    counts = Counter(word for words in sets for word in words)
    number = {word: at for at, (word, _) in enumerate(sorted(counts.items(), key=lambda each: (each[1], each[0])))}
    rows = [sorted(number[word] for word in words) for words in sets]
    heads = [row[: len(row) - math.ceil(least * len(row) - 1e-9) + 1] for row in rows]
    whole, prefix = _indicator(rows, len(number)), _indicator(heads, len(number))
    sizes = np.array([len(row) for row in rows])
    found = [np.empty((2, 0), dtype=np.int64)]
    for start in range(0, len(texts), _BLOCK):
        near = (prefix[start : start + _BLOCK] @ prefix.T).tocoo()
        first, second = near.row.astype(np.int64) + start, near.col.astype(np.int64)
        kept = first < second
        first, second = first[kept], second[kept]
        for at in range(0, len(first), _PAIRS):
            one, two = first[at : at + _PAIRS], second[at : at + _PAIRS]
            shared = np.asarray(whole[one].multiply(whole[two]).sum(axis=1)).ravel()
            close = shared >= least * (sizes[one] + sizes[two] - shared) - 1e-9
            found.append(np.stack([one[close], two[close]]))
    return np.concatenate(found, axis=1)


def _indicator(rows: Sequence[Sequence[int]], width: int) -> sparse.csr_matrix:
    ends = np.cumsum([0, *(len(row) for row in rows)])
    columns = np.array([word for row in rows for word in row], dtype=np.int64)
    return sparse.csr_matrix((np.ones(len(columns), dtype=np.int32), columns, ends), shape=(len(rows), width))
