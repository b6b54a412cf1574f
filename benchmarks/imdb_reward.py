"""What imdb_frontier.py needs of the reviews: prompts, openings to imitate, and the classifier that is the true reward.

    python benchmarks/imdb_reward.py --data imdb.jsonl.gz --work FOLDER [--reviews N]

trains the classifier alone, which imdb_frontier.py does while the reference is trained: `reward.npz`, `own.py`, a judge
for tiltlm, and `reward.json`, what it is worth.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import imdb_score
from imdb_score import features, log_odds

REWARD = "reward.json"
PIECE_WORDS = 40
"""Words of a piece of a review, about as many as a prompt with its answer has."""
PIECES = 4
"""Most pieces of a review: its start, and others at random."""
PROMPT_TOKENS = (2, 8)
L2 = (3e-6, 1e-5, 3e-5)
"""Weights of half the sum of squares, beside the mean loss, of which the best one is taken."""
HELD_BACK = 0.2
"""Share of the training reviews by which L2 is chosen."""
FEWEST_TEXTS = 5
"""In so many reviews and pieces a feature must be."""
LEAST_LENGTH = 100
"""Characters of a review of which a prompt is made."""


@dataclass(frozen=True, slots=True)
class Review:
    """A review of a film. positive: whether it praises the film."""

    text: str
    positive: bool
    split: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """What is needed of a tokens. encode: a text's tokens, with no special ones. decode: their text."""

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]


@dataclass(frozen=True, slots=True)
class Trained:
    """What the classifier is worth: shares of the test split's texts that it tells right, and its log loss on pieces.

    l2: the one chosen. features: how many it knows. reviews, pieces: that it was trained on.
    """

    l2: float
    features: int
    reviews: int
    pieces: int
    test_reviews: int
    review_accuracy: float
    test_pieces: int
    piece_accuracy: float
    piece_log_loss: float


def read_reviews(path: Path) -> list[Review]:
    """Of JSON lines with `text`, `label` (pos or neg) and `split` (train or test), compressed by gzip or not."""
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode("utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    for number, row in enumerate(rows, start=1):
        if row["label"] not in ("pos", "neg") or row["split"] not in ("train", "test"):
            raise SystemExit(f"{path}, line {number}: label must be pos or neg, and split train or test.")
    return [Review(" ".join(row["text"].split()), row["label"] == "pos", row["split"]) for row in rows]


def make_prompts(
    reviews: Sequence[Review], tokens: Tokens, count: int, seed: int, taken: Iterable[str] = ()
) -> list[str]:
    """First 2 to 8 tokens of reviews in an order drawn by the seed, each different from all others and from `taken`.

    Prompts are told apart without case and white space around them. Those that do not come back from their text as the
    same tokens, or cut a character in two, are left out.

    Raises:
        SystemExit: there are not enough reviews.
    """
    draw, found = random.Random(seed), list[str]()
    known = {one.strip().lower() for one in taken}
    for review in draw.sample(reviews, len(reviews)):
        length = draw.randint(*PROMPT_TOKENS)
        ids = tokens.encode(review.text[:LEAST_LENGTH])[:length]
        prompt = tokens.decode(ids)
        key = prompt.strip().lower()
        if len(ids) < length or prompt != prompt.strip() or key in known or not review.text.startswith(prompt):
            continue
        if tokens.encode(prompt) == ids:
            known.add(key)
            found.append(prompt)
        if len(found) == count:
            return found
    raise SystemExit(f"only {len(found)} different prompts of {count} can be made of the reviews.")


def openings(reviews: Sequence[Review], tokens: Tokens, length: int, seed: int) -> list[dict[str, str | bool]]:
    """Demonstrations: the first 2 to 8 tokens of each review as a prompt, and the rest of its first `length` tokens."""
    draw, rows = random.Random(seed), list[dict[str, str | bool]]()
    for number, review in enumerate(reviews):
        ids = tokens.encode(review.text)
        whole, prompt = tokens.decode(ids[:length]), tokens.decode(ids[: draw.randint(*PROMPT_TOKENS)])
        # A character that is cut in two at the end is left out.
        whole = whole.rstrip("\ufffd")
        if whole.startswith(prompt) and len(whole) > len(prompt):
            ended = len(ids) <= length
            rows.append(
                {"id": f"review-{number}", "prompt": prompt, "completion": whole[len(prompt) :], "ended": ended}
            )
    return rows


def pieces(text: str, draw: random.Random) -> list[str]:
    """At most PIECES runs of PIECE_WORDS words of a text: its first words, and others that do not overlap with them."""
    words = text.split()
    starts = list(range(PIECE_WORDS, len(words) - PIECE_WORDS + 1, PIECE_WORDS))
    chosen = [0, *sorted(draw.sample(starts, min(PIECES - 1, len(starts))))]
    return [" ".join(words[start : start + PIECE_WORDS]) for start in chosen]


def make_reward(reviews: Sequence[Review], folder: Path, seed: int) -> Trained:
    """Trains the classifier on the train split, measures it on the test split, and writes `reward.npz` and `own.py`."""
    draw = random.Random(seed)
    train = [one for one in reviews if one.split == "train"]
    test = [one for one in reviews if one.split == "test"]
    held = set(draw.sample(range(len(train)), max(1, round(HELD_BACK * len(train)))))
    kept = [one for number, one in enumerate(train) if number not in held]
    back = _pieces_of([train[number] for number in sorted(held)], draw)
    part = _with_pieces(kept, draw)
    losses = {l2: log_loss(back, *fit(part, l2)) for l2 in L2}
    l2 = min(losses, key=lambda one: losses[one])
    every = _with_pieces(train, draw)
    weights, bias = fit(every, l2)
    # As they are kept, so that what is measured is what judges.
    weights = dict(zip(weights, np.array(list(weights.values()), dtype=np.float32).tolist(), strict=True))
    write_weights(folder, weights, bias)
    whole, cut = [(one.text, one.positive) for one in test], _pieces_of(test, draw)
    return Trained(
        l2=l2,
        features=len(weights),
        reviews=len(train),
        pieces=len(every) - len(train),
        test_reviews=len(whole),
        review_accuracy=accuracy(whole, weights, bias),
        test_pieces=len(cut),
        piece_accuracy=accuracy(cut, weights, bias),
        piece_log_loss=log_loss(cut, weights, bias),
    )


Labelled = tuple[str, bool]
"""A text, and whether it is positive."""


def _pieces_of(reviews: Iterable[Review], draw: random.Random) -> list[Labelled]:
    return [(piece, one.positive) for one in reviews for piece in pieces(one.text, draw)]


def _with_pieces(reviews: Sequence[Review], draw: random.Random) -> list[Labelled]:
    return [*((one.text, one.positive) for one in reviews), *_pieces_of(reviews, draw)]


def fit(texts: Sequence[Labelled], l2: float) -> tuple[dict[str, float], float]:
    """Weights of features, and the bias: the least mean log loss with half of l2 times the squares of the weights.

    A convex problem, solved by L-BFGS from nought. Features are those of FEWEST_TEXTS or more.
    """
    found = [sorted(features(text)) for text, _ in texts]
    often = Counter(chain.from_iterable(found))
    place = {one: number for number, one in enumerate(sorted(one for one in often if often[one] >= FEWEST_TEXTS))}
    if not place:
        raise SystemExit("the reviews have no word in common: there is nothing to learn of them.")
    rows = [[place[one] for one in some if one in place] for some in found]
    lengths = np.array([len(row) for row in rows])
    ids = torch.tensor(list(chain.from_iterable(rows)))
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)[:-1]]))
    shares = torch.from_numpy(np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths)).float()
    labels = torch.tensor([float(positive) for _, positive in texts])
    weights, bias = torch.zeros(len(place), 1, requires_grad=True), torch.zeros((), requires_grad=True)
    solver = torch.optim.LBFGS([weights, bias], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        logits = F.embedding_bag(ids, weights, offsets, mode="sum", per_sample_weights=shares).squeeze(1) + bias
        value = F.binary_cross_entropy_with_logits(logits, labels) + l2 / 2 * weights.square().sum()
        value.backward()
        return value

    solver.step(loss)
    return dict(zip(place, weights.detach().squeeze(1).tolist(), strict=True)), float(bias.detach())


def accuracy(texts: Sequence[Labelled], weights: dict[str, float], bias: float) -> float:
    """Share of the texts that are told right."""
    return sum((log_odds(text, weights, bias) > 0) == positive for text, positive in texts) / len(texts)


def log_loss(texts: Sequence[Labelled], weights: dict[str, float], bias: float) -> float:
    """Mean of -log of the probability of what a text is, in nats."""
    signed = [log_odds(text, weights, bias) * (1 if positive else -1) for text, positive in texts]
    return sum(math.log1p(math.exp(-abs(one))) + max(-one, 0.0) for one in signed) / len(texts)


def write_weights(folder: Path, weights: dict[str, float], bias: float) -> None:
    """Writes `reward.npz`, and beside it `own.py`, the judge.

    The judge is known by its source, so this names the weights: other weights are another judge.
    """
    place = folder / imdb_score.WEIGHTS
    names = np.frombuffer("\n".join(weights).encode("utf-8"), dtype=np.uint8)
    np.savez(place, features=names, weights=np.array(list(weights.values()), dtype=np.float32), bias=np.float64(bias))
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    source = Path(imdb_score.__file__).read_text(encoding="utf-8")
    (folder / "own.py").write_text(f"{source}\n# {imdb_score.WEIGHTS}: SHA-256 {digest}\n", encoding="utf-8")


def main() -> None:
    """Trains the classifier; `reward.json` is written last, so that it says that all is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines with text, label and split")
    parser.add_argument("--work", type=Path, required=True, help="a folder")
    parser.add_argument("--reviews", type=int, help="use the first so many alone")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    trained = make_reward(read_reviews(arguments.data)[: arguments.reviews], arguments.work, seed=0)
    (arguments.work / REWARD).write_text(json.dumps(dataclasses.asdict(trained), indent=1) + "\n", encoding="utf-8")
    print(trained)


if __name__ == "__main__":
    main()
