"""Which pairs share a prompt: they are not independent of each other, and intervals must know."""

from __future__ import annotations

from collections.abc import Sequence

from tiltlm.records import TokenizedPair

TELLING = 32
"""Tokens that a cut prompt must have left to be told by them: fewer may be a header that all prompts end with."""


def prompt_groups(pairs: Sequence[TokenizedPair]) -> list[int]:
    """A number for each pair, the same for pairs of one prompt.

    Prompts are compared by their tokens. One that was cut on the left, by as much as its completions asked for, is that
    of every pair whose prompt ends like it, if enough is left of it to tell.
    """
    # Read backwards, a prompt that was cut is a beginning of the whole one, so it stands just before it in order.
    prompts = [_backwards(pair) for pair in pairs]
    groups, group = [0] * len(pairs), -1
    first: tuple[int, ...] | None = None
    cut = False
    for index in sorted(range(len(pairs)), key=lambda index: (prompts[index], -pairs[index].prompt_tokens_cut)):
        prompt = prompts[index]
        same = first is not None and (prompt[: len(first)] == first if cut else prompt == first)
        if not same:
            group, first = group + 1, prompt
            cut = pairs[index].prompt_tokens_cut > 0 and len(prompt) >= TELLING
        groups[index] = group
    return groups


def _backwards(pair: TokenizedPair) -> tuple[int, ...]:
    """The prompt's tokens, last first; of a cut one without the first, which may be a BOS that was kept."""
    # A token across the border of prompt and completion is scored, so one side's prompt may be a token shorter.
    end = min(pair.chosen.first_scored, pair.rejected.first_scored)
    ids = pair.chosen.ids[1 if pair.prompt_tokens_cut and end > 1 else 0 : end]
    return tuple(ids[::-1].tolist())
