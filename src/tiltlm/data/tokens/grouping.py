"""Which examples share a prompt: they are not independent of each other, and intervals must know."""

from __future__ import annotations

import numpy as np

from tiltlm.data.tokens.token_columns import TokenColumns

TELLING = 32
"""Tokens that a cut prompt must have left to be told by them: fewer may be a header that all prompts end with."""
_BYTES = 4  # of a token


def prompt_groups(columns: TokenColumns) -> list[int]:
    """A number for each example, the same for examples of one prompt.

    Prompts are compared by their tokens. One that was cut on the left, by as much as its completions asked for, is that
    of every example whose prompt ends like it, if enough is left of it to tell.
    """
    # Read backwards, a prompt that was cut is a beginning of the whole one, so it stands just before it in order.
    prompts = _backwards(columns)
    cut_tokens = columns.prompt_tokens_cut.tolist()
    groups, group = [0] * len(columns), -1
    first: bytes | None = None
    cut = False
    for number in sorted(range(len(columns)), key=lambda number: (prompts[number], -cut_tokens[number])):
        prompt = prompts[number]
        same = first is not None and (prompt.startswith(first) if cut else prompt == first)
        if not same:
            group, first = group + 1, prompt
            cut = cut_tokens[number] > 0 and len(prompt) >= TELLING * _BYTES
        groups[number] = group
    return groups


def _backwards(columns: TokenColumns) -> list[bytes]:
    """The prompts' tokens, last first; of a cut one without the first, which may be a BOS that was kept.

    They are big-endian bytes, which sort as the numbers do.
    """
    if not len(columns):
        return []
    firsts = columns.members[:-1]
    # A token across the border of prompt and completion is scored, so one sequence's prompt may be a token shorter.
    lengths = np.minimum.reduceat(columns.first_scored, firsts)
    skipped = (columns.prompt_tokens_cut > 0) & (lengths > 1)
    starts = columns.bounds[firsts]
    spans = zip((starts + skipped).tolist(), (starts + lengths).tolist(), strict=True)
    return [columns.ids[start:end][::-1].astype(">i4").tobytes() for start, end in spans]
