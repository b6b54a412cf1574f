"""Which examples are trained on and which are held out: decided by prompt, and by content alone, never by place."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, groupby

from tiltlm.data.examples import Example, Message, Text
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
    fitting: Callable[[list[int]], set[int]],
) -> tuple[list[int], list[int]]:
    """The numbers of the examples to train on and of those held out, each in their given order.

    Only examples that fit are drawn, and all of one prompt are on one side. The held-out prompts are the first that fit
    in an order by (seed, prompt), so neither the order of the rows nor further examples of known prompts change them;
    new prompts move only some at the border. Held-out examples are drawn from the beginning of that order and training
    examples from its end, so larger limits add some and take none away; and where both are reached, the prompts between
    are not even asked for.

    Args:
        fraction: share of the prompts held out, in (0, 1); at least one prompt is, and at least one is not.
        limits: most training and most held-out examples; None: all.
        fitting: those of some examples' numbers that fit. Each is asked for once at most.

    Raises:
        DataError: fewer than two prompts have an example that fits.
    """
    keys = [example_key(example) for example in examples]
    prompts = [list(group) for _, group in groupby(drawing_order(examples, seed), key=keys.__getitem__)]
    first: list[list[int]] = []
    last: list[list[int]] = []
    start, end, step = 0, len(prompts), PROMPTS_AT_ONCE
    while start < end and not _enough(first, last, fraction, limits):
        middle = min(start + step, end)
        beginning, ending = prompts[start:middle], prompts[max(middle, end - step) : end][::-1]
        start, end, step = middle, end - len(ending), 2 * step
        fit = fitting([number for numbers in (*beginning, *ending) for number in numbers])
        for part, found in ((beginning, first), (ending, last)):
            kept = ([number for number in numbers if number in fit] for numbers in part)
            found.extend(numbers for numbers in kept if numbers)
    order = [*first, *reversed(last)]
    if len(order) < 2:
        raise DataError(
            f"nothing can be held out: the {sum(map(len, order))} training examples that can be used have {len(order)} "
            "different prompts, and two are needed. Give more data, or held-out data in data.eval."
        )
    border = _border(len(order), fraction)
    train, held_out = (
        sorted(list(chain.from_iterable(part))[:limit])
        for part, limit in zip((reversed(order[border:]), order[:border]), limits, strict=True)
    )
    return train, held_out


def _border(prompts: int, fraction: float) -> int:
    """How many of so many prompts are held out."""
    return min(max(1, round(fraction * prompts)), prompts - 1)


def _enough(
    first: list[list[int]], last: list[list[int]], fraction: float, limits: tuple[int | None, int | None]
) -> bool:
    """Whether both limits are reached wherever the border is: both its sides only grow with the number of prompts."""
    prompts = len(first) + len(last)
    if prompts < 2:
        return False
    border = _border(prompts, fraction)
    needed = [_prompts_for(limit, part) for limit, part in zip(limits, (last, first), strict=True)]
    return needed[0] <= prompts - border and needed[1] <= border


def _prompts_for(limit: int | None, prompts: list[list[int]]) -> float:
    """How many of the prompts, from the first on, have so many examples; infinite if they have not."""
    if limit is None:
        return math.inf
    reached = accumulate(map(len, prompts))
    return next((count for count, examples in enumerate(reached, start=1) if examples >= limit), math.inf)


def without_leaks(train: Sequence[Example], held_out: Sequence[Example]) -> tuple[list[Example], list[DroppedRow]]:
    """The training examples whose prompt is not held out, and the others as dropped.

    Raises:
        DataError: all training prompts are held out.
    """
    held_out_ids = {example_key(example): example.id for example in reversed(held_out)}
    kept: list[Example] = []
    dropped: list[DroppedRow] = []
    for example in train:
        held_out_id = held_out_ids.get(example_key(example))
        if held_out_id is None:
            kept.append(example)
        else:
            dropped.append(
                DroppedRow(example.id, "prompt is held out", f"it is the prompt of {held_out_id} in data.eval")
            )
    if train and not kept:
        raise DataError("the prompts of all training data are in the held-out data (data.eval), too: none is left.")
    return kept, dropped


def drawing_order(examples: Sequence[Example], seed: int) -> list[int]:
    """The examples' numbers in the order in which a limit draws them: prompt by prompt.

    It depends on the seed and the examples' contents, so a larger limit adds some and takes none away.
    """
    return sorted(range(len(examples)), key=lambda number: _rank(examples[number], seed))


def subsample(examples: Sequence[Example], limit: int | None, seed: int) -> list[int]:
    """The numbers of at most `limit` of the examples, in their given order; None: all."""
    if limit is None or len(examples) <= limit:
        return list(range(len(examples)))
    return sorted(drawing_order(examples, seed)[:limit])


def _rank(example: Example, seed: int) -> tuple[str, str]:
    return _digest([seed, example_key(example)]), _digest([_plain(text) for text in example.completions])


def _plain(text: Text) -> object:
    return text if isinstance(text, str) else [_said(message, message.content) for message in text]


def _said(message: Message, content: str) -> tuple[object, ...]:
    return (message.role, content, message.further) if message.further else (message.role, content)


def _digest(content: object) -> str:
    """128 bits of a hash, in hexadecimal, that is the same on every machine and in every process."""
    return hashlib.blake2b(json.dumps(content).encode("ascii"), digest_size=16).hexdigest()
