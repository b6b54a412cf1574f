"""The true reward of imdb_frontier.py: how likely it is that prompt and answer are out of a positive review, in [0, 1].

A logistic regression on the words and the pairs of neighbouring words that a text has. The benchmark copies this file
beside the weights that it has found, and there it is a judge by itself: `tiltlm judge ... --judge FOLDER/own.py:score`.
So it imports nothing of the benchmark, and only numpy.
"""

from __future__ import annotations

import math
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

WEIGHTS = "reward.npz"
_WORD = re.compile(r"[a-z']+")


def features(text: str) -> set[str]:
    """The words of a text in lower case, and its pairs of neighbouring words."""
    words = _WORD.findall(text.lower().replace("<br />", " "))
    return {*words, *(" ".join(pair) for pair in pairwise(words))}


def log_odds(text: str, weights: dict[str, float], bias: float) -> float:
    """Of being positive. What is known of a text is divided by the root of its number, as a long text would else be
    surer than a short one whatever it says; what is not known counts for nothing."""
    known = [weights[one] for one in features(text) if one in weights]
    # An exact sum: sets have no order.
    return bias + (math.fsum(known) / math.sqrt(len(known)) if known else 0.0)


def read_weights(path: Path) -> tuple[dict[str, float], float]:
    """Weights and bias, as `imdb_reward.write_weights` leaves them."""
    with np.load(path) as kept:
        words = bytes(kept["features"]).decode("utf-8").split("\n")
        return dict(zip(words, kept["weights"].tolist(), strict=True)), float(kept["bias"])


@cache
def _beside() -> tuple[dict[str, float], float]:
    return read_weights(Path(__file__).with_name(WEIGHTS))


def score(prompt: str, answer: str) -> float:
    """The reward of an answer: the probability that prompt and answer, as one text, are positive."""
    odds = log_odds(prompt + answer, *_beside())
    return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
