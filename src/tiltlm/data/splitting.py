"""Which pairs are trained on and which are held out: decided by prompt, and by content alone, never by place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from tiltlm.errors import DataError
from tiltlm.records import DroppedPair, Message, PreferencePair, Text


def prompt_key(prompt: Text) -> str:
    """A digest that two prompts share if they are the same but for white space around them or their messages."""
    return _digest(prompt.strip() if isinstance(prompt, str) else [_said(m, m.content.strip()) for m in prompt])


def split_by_prompt(pairs: Sequence[PreferencePair], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Which pairs are for training and which are held out, by their numbers; all pairs of one prompt are on one side.

    The held-out prompts are the first of all in an order by (seed, prompt), so neither the order of the rows nor
    further pairs of known prompts change them; new prompts move only some at the border.

    fraction: share of the prompts held out, in (0, 1); at least one prompt is, and at least one is not.

    Raises:
        DataError: there are not two prompts.
    """
    keys = [prompt_key(pair.prompt) for pair in pairs]
    ordered = sorted(set(keys), key=lambda key: _digest([seed, key]))
    if len(ordered) < 2:
        raise DataError(
            f"no pairs can be held out: the {len(pairs)} training pairs that can be used have {len(ordered)} different "
            "prompts, and two are needed. Give more data, or held-out pairs in data.eval."
        )
    held_out = set(ordered[: min(max(1, round(fraction * len(ordered))), len(ordered) - 1)])
    train = [number for number, key in enumerate(keys) if key not in held_out]
    return train, [number for number, key in enumerate(keys) if key in held_out]


def without_leaks(
    train: Sequence[PreferencePair], held_out: Sequence[PreferencePair]
) -> tuple[list[PreferencePair], list[DroppedPair]]:
    """The training pairs whose prompt is not held out, and the others as dropped.

    Raises:
        DataError: all training prompts are held out.
    """
    held_out_ids = {prompt_key(pair.prompt): pair.id for pair in reversed(held_out)}
    kept: list[PreferencePair] = []
    dropped: list[DroppedPair] = []
    for pair in train:
        held_out_id = held_out_ids.get(prompt_key(pair.prompt))
        if held_out_id is None:
            kept.append(pair)
        else:
            dropped.append(
                DroppedPair(pair.id, "prompt is held out", f"it is the prompt of {held_out_id} in data.eval")
            )
    if train and not kept:
        raise DataError("the prompts of all training pairs are in the held-out data (data.eval), too: none is left.")
    return kept, dropped


def drawing_order(pairs: Sequence[PreferencePair], seed: int) -> list[int]:
    """The pairs' numbers in the order in which a limit draws them: prompt by prompt.

    It depends on the seed and the pairs' contents, so a larger limit adds pairs and takes none away.
    """
    return sorted(range(len(pairs)), key=lambda number: _rank(pairs[number], seed))


def subsample(pairs: Sequence[PreferencePair], limit: int | None, seed: int) -> list[int]:
    """The numbers of at most `limit` of the pairs, in their given order; None: all."""
    if limit is None or len(pairs) <= limit:
        return list(range(len(pairs)))
    return sorted(drawing_order(pairs, seed)[:limit])


def _rank(pair: PreferencePair, seed: int) -> tuple[str, str]:
    return _digest([seed, prompt_key(pair.prompt)]), _digest([_plain(pair.chosen), _plain(pair.rejected)])


def _plain(text: Text) -> object:
    return text if isinstance(text, str) else [_said(message, message.content) for message in text]


def _said(message: Message, content: str) -> tuple[object, ...]:
    return (message.role, content, message.further) if message.further else (message.role, content)


def _digest(content: object) -> str:
    """128 bits of a hash, in hexadecimal, that is the same on every machine and in every process."""
    return hashlib.blake2b(json.dumps(content).encode("ascii"), digest_size=16).hexdigest()
