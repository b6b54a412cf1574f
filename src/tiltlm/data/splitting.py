"""Which examples are trained on and which are held out: decided by prompt, and by content alone, never by place."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tiltlm.data.examples import Example, Message, Text
from tiltlm.data.tokens.token_columns import ranges
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow

PROMPTS_AT_ONCE = 512
"""How many prompts are asked for first at both ends of the order; then twice as many, and so on."""


def prompt_key(prompt: Text, tools: str | None = None) -> str:
    """A digest that two prompts share if they are the same but for white space around them or their messages.

    tools: those that the chat template is given: with others it is another prompt.
    """
    said = prompt.strip() if isinstance(prompt, str) else [_said(m, m.content.strip()) for m in prompt]
    return _digest(said if tools is None else [said, tools])


def example_key(example: Example) -> str:
    """The `prompt_key` of an example's prompt and tools."""
    return prompt_key(example.prompt, example.tools)


def draw_split(
    examples: Sequence[Example],
    fraction: float,
    seed: int,
    limits: tuple[int | None, int | None],
    fitting: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the examples to train on and of those held out, int64, each in their given order.

    Only examples that fit are drawn, and all of one prompt are on one side. The held-out prompts are the first that fit
    in an order by (seed, prompt), so neither the order of the rows nor further examples of known prompts change them;
    new prompts move only some at the border. Held-out examples are drawn from the beginning of that order and training
    examples from its end, so larger limits add some and take none away; and where both are reached, the prompts between
    are not even asked for.

    Args:
        fraction: share of the prompts held out, in (0, 1); at least one prompt is, and at least one is not.
        limits: most training and most held-out examples; None: all.
        fitting: of some examples' numbers, which of them fit (bool). Each is asked for once at most.

    Raises:
        DataError: fewer than two prompts have an example that fits.
    """
    drawn = _DrawnPrompts.of(examples, seed)
    start, end, step = 0, len(drawn), PROMPTS_AT_ONCE
    while start < end and not _enough(*drawn.counts(start, end), fraction, limits):
        middle = min(start + step, end)
        ending = max(middle, end - step)
        asked = drawn.members(np.concatenate([np.arange(start, middle), np.arange(ending, end)[::-1]]))
        drawn.fits[asked] = fitting(asked)
        start, end, step = middle, ending, 2 * step
    kept = drawn.with_fitting()
    if len(kept) < 2:
        raise DataError(
            f"nothing can be held out: the {np.count_nonzero(drawn.fits)} training examples that can be used have "
            f"{len(kept)} different prompts, and two are needed. Give more data, or held-out data in data.eval."
        )
    border = _border(len(kept), fraction)
    train, held_out = (
        np.sort(drawn.fitting_members(prompts)[:limit])
        for prompts, limit in zip((kept[border:][::-1], kept[:border]), limits, strict=True)
    )
    return train, held_out


@dataclass(frozen=True, slots=True, eq=False)
class _DrawnPrompts:
    """Prompts in the order in which they are drawn. Of E examples and P prompts:

    order: int64, shape (E,), examples' numbers, prompt by prompt. starts: int64, shape (P + 1,): prompt p has those
    from starts[p] to starts[p + 1]. fits: bool, shape (E,), which examples are known to fit.
    """

    order: np.ndarray
    starts: np.ndarray
    fits: np.ndarray

    @staticmethod
    def of(examples: Sequence[Example], seed: int) -> _DrawnPrompts:
        ranks = _ranks(examples, seed)
        order = _by_rank(ranks)
        prompts = ranks[order, :2]
        new = np.flatnonzero((prompts[1:] != prompts[:-1]).any(axis=1)) + 1
        starts = np.concatenate([[0], new, [len(order)]]) if len(order) else np.zeros(1, dtype=np.int64)
        return _DrawnPrompts(order, starts.astype(np.int64), np.zeros(len(order), dtype=bool))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def members(self, prompts: np.ndarray) -> np.ndarray:
        """The examples of some prompts, in the given order."""
        members: np.ndarray = self.order[ranges(self.starts[prompts], np.diff(self.starts)[prompts])]
        return members

    def fitting_members(self, prompts: np.ndarray) -> np.ndarray:
        """Those of them that fit."""
        members = self.members(prompts)
        fitting: np.ndarray = members[self.fits[members]]
        return fitting

    def counts(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """How many examples fit of each prompt before `start`, and of each from `end` on, the last first; those of
        which none does aside."""
        fit = self._fit()
        first, last = fit[:start], fit[end:][::-1]
        return first[first > 0], last[last > 0]

    def with_fitting(self) -> np.ndarray:
        """The prompts of which an example fits."""
        return np.flatnonzero(self._fit())

    def _fit(self) -> np.ndarray:
        reached = np.concatenate([[0], np.cumsum(self.fits[self.order])])
        fit: np.ndarray = np.diff(reached[self.starts])
        return fit


def _border(prompts: int, fraction: float) -> int:
    """How many of so many prompts are held out."""
    return min(max(1, round(fraction * prompts)), prompts - 1)


def _enough(first: np.ndarray, last: np.ndarray, fraction: float, limits: tuple[int | None, int | None]) -> bool:
    """Whether both limits are reached wherever the border is: both its sides only grow with the number of prompts.

    first, last: how many examples each prompt has, from both ends of the order.
    """
    prompts = len(first) + len(last)
    if prompts < 2:
        return False
    border = _border(prompts, fraction)
    needed = [_prompts_for(limit, part) for limit, part in zip(limits, (last, first), strict=True)]
    return needed[0] <= prompts - border and needed[1] <= border


def _prompts_for(limit: int | None, counts: np.ndarray) -> float:
    """How many of the prompts, from the first on, have so many examples; infinite if they have not."""
    if limit is None or counts.sum() < limit:
        return math.inf
    return int(np.searchsorted(np.cumsum(counts), limit)) + 1


def without_leaks(train: Sequence[Example], held_out: Sequence[Example]) -> tuple[np.ndarray, list[DroppedRow]]:
    """The numbers (int64) of the training examples whose prompt is not held out, and the others as dropped.

    Raises:
        DataError: all training prompts are held out.
    """
    held_out_ids: dict[str, str] = {}
    for example in held_out:
        held_out_ids.setdefault(example_key(example), example.id)
    kept = array("q")
    dropped: list[DroppedRow] = []
    for number, example in enumerate(train):
        held_out_id = held_out_ids.get(example_key(example))
        if held_out_id is None:
            kept.append(number)
        else:
            dropped.append(
                DroppedRow(example.id, "prompt is held out", f"it is the prompt of {held_out_id} in data.eval")
            )
    if train and not kept:
        raise DataError("the prompts of all training data are in the held-out data (data.eval), too: none is left.")
    return np.array(kept, dtype=np.int64), dropped


def drawing_order(examples: Sequence[Example], seed: int, draw: str | None = None) -> np.ndarray:
    """The examples' numbers in the order in which a limit draws them, int64: prompt by prompt.

    It depends on the seed and the examples' contents, so a larger limit adds some and takes none away.

    draw: what is drawn, where that is to have nothing to do with what the split and the limits draw.
    """
    return _by_rank(_ranks(examples, seed if draw is None else f"{draw} {seed}"))


def subsample(examples: Sequence[Example], limit: int | None, seed: int) -> list[int]:
    """The numbers of at most `limit` of the examples, in their given order; None: all."""
    if limit is None or len(examples) <= limit:
        return list(range(len(examples)))
    return sorted(drawing_order(examples, seed)[:limit].tolist())


def _ranks(examples: Sequence[Example], seed: int | str) -> np.ndarray:
    """By which examples are ordered: the digest of (seed, prompt), then that of the completions, as `digests`."""
    return digests(
        key
        for example in examples
        for key in (_digest([seed, example_key(example)]), _digest([_plain(text) for text in example.completions]))
    ).reshape(-1, 4)


def _by_rank(ranks: np.ndarray) -> np.ndarray:
    return np.lexsort(ranks.T[::-1])


def digests(keys: Iterable[str]) -> np.ndarray:
    """Digests in hexadecimal as numbers, which compare as they do: uint64, shape (keys, 2)."""
    joined = bytearray()
    for key in keys:
        joined += bytes.fromhex(key)
    return as_numbers(joined)


def as_numbers(joined: bytes | bytearray) -> np.ndarray:
    """Digests of 16 bytes, one after another, as `digests` gives them."""
    return np.frombuffer(joined, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def grouped(keys: np.ndarray) -> np.ndarray:
    """A number for each digest (as `digests`), the same for those that are the same, in the order of the digests."""
    if not len(keys):
        return np.empty(0, dtype=np.int64)
    order = np.lexsort(keys.T[::-1])
    ordered, groups = keys[order], np.empty(len(keys), dtype=np.int64)
    groups[order] = np.concatenate([[0], np.cumsum((ordered[1:] != ordered[:-1]).any(axis=1))])
    return groups


def _plain(text: Text) -> object:
    return text if isinstance(text, str) else [_said(message, message.content) for message in text]


def _said(message: Message, content: str) -> tuple[object, ...]:
    return (message.role, content, message.further) if message.further else (message.role, content)


def _digest(content: object) -> str:
    """128 bits of a hash, in hexadecimal, that is the same on every machine and in every process."""
    return hashlib.blake2b(json.dumps(content).encode("ascii"), digest_size=16).hexdigest()
