"""Which pairs are trained on and which are held out: decided by prompt, and by content alone, never by place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from tiltlm.errors import DataError
from tiltlm.records import DroppedPair, PreferencePair, Text


def prompt_key(prompt: Text) -> str:
    """A digest that two prompts share if they are the same but for white space around them or their messages."""
    return _digest(prompt.strip() if isinstance(prompt, str) else [(m.role, m.content.strip()) for m in prompt])


def split_by_prompt(
    pairs: Sequence[PreferencePair], fraction: float, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Training and held-out pairs, each in their given order; all pairs of one prompt are on one side.

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
            f"no pairs can be held out: the {len(pairs)} training pairs have {len(ordered)} different prompts, and two "
            "are needed. Give more data, or held-out pairs in data.eval."
        )
    held_out = set(ordered[: min(max(1, round(fraction * len(ordered))), len(ordered) - 1)])
    train = [pair for pair, key in zip(pairs, keys, strict=True) if key not in held_out]
    return train, [pair for pair, key in zip(pairs, keys, strict=True) if key in held_out]


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


def subsample(pairs: Sequence[PreferencePair], limit: int | None, seed: int) -> list[PreferencePair]:
    """At most `limit` of the pairs in their given order, drawn prompt by prompt; None: all.

    The draw depends on the seed and the pairs' contents, so a larger limit adds pairs and takes none away.
    """
    if limit is None or len(pairs) <= limit:
        return list(pairs)
    order = sorted(range(len(pairs)), key=lambda number: _rank(pairs[number], seed))
    return [pairs[number] for number in sorted(order[:limit])]


def _rank(pair: PreferencePair, seed: int) -> tuple[str, str]:
    return _digest([seed, prompt_key(pair.prompt)]), _digest([_plain(pair.chosen), _plain(pair.rejected)])


def _plain(text: Text) -> object:
    return text if isinstance(text, str) else [(message.role, message.content) for message in text]


def _digest(content: object) -> str:
    """128 bits of a hash, in hexadecimal, that is the same on every machine and in every process."""
    return hashlib.blake2b(json.dumps(content).encode("ascii"), digest_size=16).hexdigest()
