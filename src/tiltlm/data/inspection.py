"""The data report: what was read, what is used, what is not and why, and what the lengths look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from tiltlm.data.quality.examination import with_leaks
from tiltlm.data.row_balance import balanced
from tiltlm.data.selection import ReadData, Selection
from tiltlm.data.tokens.sharing import tokens_laid_out
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED
from tiltlm.runs.data_account import DataReport, Dropped, Lengths, ShownExample, Split

EXAMPLES = 3


def data_report(read: ReadData, selection: Selection, decode: Callable[[Sequence[int]], str]) -> DataReport:
    """Puts the account of all rows together.

    decode: text of token ids, special tokens included.
    """
    account = selection.account
    rows = [drop for part in read.loaded for drop in part.dropped] + read.dropped + list(account.dropped)
    held_out = _split(selection.eval, account.eval_prompts) if len(selection.eval) or read.held_out else None
    # Repeats that a weight makes, at most 1,000 of an example, stand together.
    looked_at = min(1000 * EXAMPLES, len(selection.train))
    shown = {selection.train.names[number]: number for number in reversed(range(looked_at))}
    return DataReport(
        sources=balanced(read, selection),
        train=_split(selection.train, account.train_prompts),
        eval=held_out,
        dropped=Dropped(
            count=len(rows),
            by_reason=dict(Counter(row.reason for row in rows).most_common()),
            list=tuple(rows),
        ),
        notes=(*(note for part in read.loaded for note in part.notes), *account.notes),
        examples=tuple(_shown(selection.train[number], decode) for number in sorted(shown.values())[:EXAMPLES]),
        chat=any(True in part.chats for part in read.loaded),
        remarks=account.remarks,
        # Not in the account, which is found again by what is kept alone.
        quality=with_leaks(account.quality, read.dropped, len(read.held_out), read.noun),
    )


def _shown(example: TokenizedExample, decode: Callable[[Sequence[int]], str]) -> ShownExample:
    chosen, rejected = (
        example.sequences[example.labels.index(label)] if label in example.labels else None
        for label in (CHOSEN, REJECTED)
    )
    sides = [(*_texts(one, decode), one.tokens_cut) if one is not None else None for one in (chosen, rejected)]
    first = next(side for side in sides if side is not None)
    return ShownExample(
        example.id,
        first[0],
        chosen=sides[0][1] if sides[0] else None,
        rejected=sides[1][1] if sides[1] else None,
        rejected_prompt=None if sides[1] is None or sides[1][0] == first[0] else sides[1][0],
        prompt_tokens_cut=example.prompt_tokens_cut,
        chosen_tokens_cut=sides[0][2] if sides[0] else None,
        rejected_tokens_cut=sides[1][2] if sides[1] else None,
    )


def _texts(sequence: TokenizedSequence, decode: Callable[[Sequence[int]], str]) -> tuple[str, str]:
    """What is not scored, and what is. Some tokenizers drop a space where a text begins, so the whole is decoded."""
    ids = sequence.ids.tolist()
    prompt, whole = decode(ids[: sequence.first_scored]), decode(ids)
    if whole.startswith(prompt):
        return prompt, whole[len(prompt) :]
    return prompt, decode(ids[sequence.first_scored :])


def _split(columns: TokenColumns, prompts: int) -> Split:
    own = columns.labels != MISMATCHED
    labels, scored = columns.labels[own], columns.scored_tokens[own]
    chosen, rejected = (scored[labels == label] for label in (CHOSEN, REJECTED))
    laid_out, without_sharing = tokens_laid_out(columns)
    return Split(
        pairs=len(columns),
        prompts=prompts,
        prompt_tokens=_lengths(columns.first_scored[columns.members[:-1]]),
        chosen_tokens=_lengths(chosen),
        rejected_tokens=_lengths(rejected),
        chosen_longer=float(np.mean(chosen > rejected)) if len(columns) and columns.all_pairs else None,
        prompts_cut=int(np.count_nonzero(columns.prompt_tokens_cut)),
        completions_cut=int(np.count_nonzero(columns.tokens_cut[own])),
        tokens_laid_out=laid_out,
        tokens_without_sharing=without_sharing,
    )


def _lengths(values: np.ndarray) -> Lengths | None:
    if not len(values):
        return None
    return Lengths(mean=float(np.mean(values)), median=float(np.median(values)), max=int(values.max()))
