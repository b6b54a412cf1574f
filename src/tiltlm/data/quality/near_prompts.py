"""Held-out prompts that nearly are a training prompt: looked for by MinHash, and told by exact comparison.

MinHash with locality-sensitive hashing: A. Broder, On the resemblance and containment of documents (1997); A. Gionis,
P. Indyk, R. Motwani, Similarity search in high dimensions via hashing (1999). The sketches are those of `rensa`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tiltlm.data.quality.shingles import Shingler, jaccard
from tiltlm.data.tokens.token_columns import ranges

ALIKE = 0.8
"""Share of common pieces (Jaccard similarity) from which on two prompts are nearly the same."""

# With 21 bands of 6 values, a pair at similarity s is a candidate with probability 1 - (1 - s^6)^21: 0.998 at 0.8.
_VALUES, _BANDS, _BAND = 128, 21, 6
_SEED = 20_290
# A sketch's estimate has a standard error of at most 0.036 at 0.8.
_ESTIMATED = 0.6
# Training prompts in one bucket of a portion, and candidates of a held-out prompt, that are looked at: where there are
# more, they are alike among themselves.
_OF_A_BUCKET, _CANDIDATES = 16, 8
_CHARACTERS_AT_ONCE = 2_000_000
_COMPARED_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Near:
    """The numbers of a held-out and of a training prompt, and the share of common pieces."""

    held_out: int
    train: int
    similarity: float


def near_prompts(held_out: Sequence[str], train: Sequence[str]) -> list[Near]:
    """The held-out prompts that are nearly the same as a training prompt, each with one that is like it.

    Besides the texts, memory is that of the held-out prompts' sketches, half a kilobyte each, and of a portion of the
    training prompts; time grows with the length of all texts.
    """
    if not held_out or not train:
        return []
    shingler = Shingler(held_out, train)
    sketches = [_sketches(shingler, texts) for _, texts in _portions(held_out)]
    kept, filled = (np.concatenate(parts) for parts in zip(*sketches, strict=True))
    keys = _band_keys(kept)
    asked = np.flatnonzero(filled)
    candidates = np.empty((0, 2), dtype=np.int64)
    estimates = np.empty(0)
    for first, texts in _portions(train):
        others, usable = _sketches(shingler, texts)
        rows = np.flatnonzero(usable)
        met = _meetings(keys[asked], _band_keys(others[rows]))
        pairs = np.stack([asked[met[:, 0]], rows[met[:, 1]]], axis=1)
        alike = _estimates(kept, others, pairs)
        likely = alike >= _ESTIMATED
        pairs, alike = pairs[likely] + (0, first), alike[likely]
        candidates, estimates = _best(np.concatenate([candidates, pairs]), np.concatenate([estimates, alike]))
    return list(_verified(candidates, shingler.pieces, held_out, train))


def _portions(texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Runs of texts of so many characters together, each with the number of its first; a long text is a run alone."""
    first, portion, characters = 0, list[str](), 0
    for number, text in enumerate(texts):
        if characters + len(text) > _CHARACTERS_AT_ONCE and portion:
            yield first, portion
            first, portion, characters = number, [], 0
        portion.append(text)
        characters += len(text)
    if portion:
        yield first, portion


def _sketches(shingler: Shingler, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """uint32 sketches of shape (texts, _VALUES), and which texts have a piece at all."""
    from rensa import RMinHash

    hashes, bounds = shingler(texts)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, bounds.astype(np.uint64), _VALUES, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), _VALUES), np.diff(bounds) > 0


def _band_keys(sketches: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each band of each sketch, shape (texts, _BANDS)."""
    bands = sketches[:, : _BANDS * _BAND].reshape(-1, _BANDS, _BAND).astype(np.uint64)
    keys = np.zeros(bands.shape[:2], dtype=np.uint64)
    for place in range(_BAND):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + bands[:, :, place]
        keys ^= keys >> np.uint64(29)
    return keys


def _meetings(asked: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pairs (row of asked, row of others) that share a band, each once, shape (pairs, 2)."""
    codes = []
    for band in range(_BANDS):
        order = np.argsort(others[:, band], kind="stable")
        ordered = others[order, band]
        first = np.searchsorted(ordered, asked[:, band], side="left")
        many = np.minimum(np.searchsorted(ordered, asked[:, band], side="right") - first, _OF_A_BUCKET)
        codes.append(np.repeat(np.arange(len(asked)), many) * len(others) + order[ranges(first, many)])
    different = np.unique(np.concatenate(codes))
    return np.stack(np.divmod(different, max(1, len(others))), axis=1)


def _estimates(kept: np.ndarray, others: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The similarity of each pair (row of kept, row of others) by its sketches."""
    estimates = np.empty(len(pairs))
    for start in range(0, len(pairs), _COMPARED_AT_ONCE):
        some = pairs[start : start + _COMPARED_AT_ONCE]
        estimates[start : start + len(some)] = (kept[some[:, 0]] == others[some[:, 1]]).mean(axis=1)
    return estimates


def _best(pairs: np.ndarray, estimates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most alike candidates of each held-out prompt, most alike first; of equals, the first in the data."""
    order = np.lexsort((pairs[:, 1], -estimates, pairs[:, 0]))
    pairs, estimates = pairs[order], estimates[order]
    starts = np.searchsorted(pairs[:, 0], pairs[:, 0], side="left")
    best = np.arange(len(pairs)) - starts < _CANDIDATES
    return pairs[best], estimates[best]


def _verified(
    candidates: np.ndarray, pieces: Callable[[str], np.ndarray], held_out: Sequence[str], train: Sequence[str]
) -> Iterator[Near]:
    """Of each held-out prompt the first candidate that is as alike as it takes, by exact comparison."""
    done, own = -1, np.empty(0, dtype=np.uint64)
    found = False
    for number, other in candidates.tolist():
        if number != done:
            done, found, own = number, False, pieces(held_out[number])
        if not found:
            similarity = jaccard(own, pieces(train[other]))
            if similarity >= ALIKE:
                found = True
                yield Near(number, other, similarity)
