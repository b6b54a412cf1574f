"""Answers to other prompts, by which an objective tells how far the policy has moved whatever it is asked."""

from __future__ import annotations

import numpy as np

from tiltlm.data.tokens.grouping import prompt_groups
from tiltlm.data.tokens.token_columns import TokenColumns, bounds_of, gathered
from tiltlm.errors import DataError
from tiltlm.objectives.interface import MISMATCHED


def with_mismatched(columns: TokenColumns, max_length: int, what: str = "training") -> TokenColumns:
    """The examples with as many sequences more as they have: the same prompt, with completions of another prompt.

    They stand behind the example's own sequences, labelled MISMATCHED (arXiv 2402.01306, section 4.1). What is longer
    than `max_length` is cut at its end. The same examples in the same order always get the same ones.

    what: which examples these are, for the message.

    Raises:
        DataError: all examples have one prompt.
    """
    others = _others(columns, what)
    prompts = columns.first_scored.astype(np.int64)
    whole = columns.scored_tokens.astype(np.int64)[others]
    completions = np.minimum(whole, max_length - prompts)
    # An example's own sequences, then as many mismatched ones.
    counts = np.diff(columns.members)
    first, many = np.repeat(columns.members[:-1], counts), np.repeat(counts, counts)
    own = np.arange(columns.sequences) + first
    added = own + many

    def placed(own_values: np.ndarray, added_values: np.ndarray) -> np.ndarray:
        values = np.empty((2 * len(own), *own_values.shape[1:]), dtype=own_values.dtype)
        values[own], values[added] = own_values, added_values
        return values

    starts, lengths = columns.bounds[:-1], np.diff(columns.bounds)
    # A sequence is two parts of the ids: whole and nothing, or its prompt and another's completion.
    part_starts = placed(
        np.stack([starts, starts], axis=1), np.stack([starts, (starts + columns.first_scored)[others]], axis=1)
    )
    part_lengths = placed(np.stack([lengths, np.zeros_like(lengths)], axis=1), np.stack([prompts, completions], axis=1))
    return TokenColumns(
        ids=gathered(columns.ids, part_starts.ravel(), part_lengths.ravel()),
        bounds=bounds_of(part_lengths.sum(axis=1)),
        first_scored=placed(columns.first_scored, columns.first_scored),
        tokens_cut=placed(columns.tokens_cut, columns.tokens_cut[others] + whole - completions),
        ended=placed(columns.ended, columns.ended[others]),
        labels=placed(columns.labels, np.full(len(own), MISMATCHED, dtype=columns.labels.dtype)),
        scores=placed(columns.scores, np.full(len(own), np.nan, dtype=columns.scores.dtype)),
        members=2 * columns.members,
        prompt_tokens_cut=columns.prompt_tokens_cut,
        names=columns.names,
    )


def _others(columns: TokenColumns, what: str) -> np.ndarray:
    """For each sequence the number of one with another prompt.

    Sequences that stand together and have one prompt are a run, also across the end of the columns. The first of a run
    takes the first of the next run, the second the second, and so on, in turn where the next is shorter: so where all
    prompts have equally many, every completion is taken once.
    """
    prompts = np.repeat(np.array(prompt_groups(columns), dtype=np.int64), np.diff(columns.members))
    ends = np.flatnonzero(prompts != np.roll(prompts, -1))
    if not len(ends):
        raise DataError(
            f"the objective also scores answers to other prompts, and all {len(columns)} {what} examples that can be "
            "used have one prompt: give data with two at least, or hold out another share (data.eval_fraction)."
        )
    starts = (np.roll(ends, 1) + 1) % len(prompts)
    lengths = (ends - starts) % len(prompts) + 1
    numbers = np.arange(len(prompts))
    run = np.searchsorted(ends, numbers) % len(ends)
    following = (run + 1) % len(ends)
    place = (numbers - starts[run]) % len(prompts)
    others: np.ndarray = (starts[following] + place % lengths[following]) % len(prompts)
    return others
