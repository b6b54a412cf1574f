"""The data report: what was read, what is used, what is not and why, and what the lengths look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from tiltlm.data.conversion import LoadedExamples
from tiltlm.data.splitting import prompt_key
from tiltlm.data.tokens.sharing import tokens_laid_out
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.data.tokens.tokenization import Tokenized
from tiltlm.objectives.interface import CHOSEN, REJECTED
from tiltlm.runs.data_account import DataReport, Dropped, DroppedRow, Lengths, Remark, ShownExample, Split

EXAMPLES = 3


def data_report(
    loaded: Sequence[LoadedExamples],
    train: Tokenized,
    held_out: Tokenized | None,
    also_dropped: Sequence[DroppedRow],
    notes: Sequence[str],
    remarks: Sequence[Remark],
    decode: Callable[[Sequence[int]], str],
) -> DataReport:
    """Puts the account of all rows together.

    Args:
        loaded: what each source gave.
        train, held_out: what became of the examples chosen for training and evaluation.
        also_dropped: examples taken out otherwise.
        notes: sentences on anything unusual, besides those of the sources.
        remarks: what the notes count, with every example it is true of.
        decode: text of token ids, special tokens included.
    """
    rows = [drop for part in loaded for drop in part.dropped] + list(also_dropped)
    rows += [drop for part in (train, held_out) if part is not None for drop in part.dropped]
    texts = [example.prompt for part in loaded for example in part.examples]
    return DataReport(
        sources=tuple(part.source for part in loaded),
        train=_split(train),
        eval=_split(held_out) if held_out is not None else None,
        dropped=Dropped(
            count=len(rows),
            by_reason=dict(Counter(row.reason for row in rows).most_common()),
            list=tuple(rows),
        ),
        notes=(*(note for part in loaded for note in part.notes), *notes),
        examples=tuple(_shown(example, decode) for example in train.examples[:EXAMPLES]),
        chat=any(not isinstance(text, str) for text in texts),
        remarks=tuple(remarks),
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


def _split(part: Tokenized) -> Split:
    columns = TokenColumns.of(part.examples)
    scored = columns.scored_tokens
    chosen, rejected = (scored[columns.labels == label] for label in (CHOSEN, REJECTED))
    pairs = len(columns) > 0 and columns.all_pairs
    laid_out, without_sharing = tokens_laid_out(columns)
    return Split(
        pairs=len(columns),
        prompts=len({prompt_key(rendered.prompt) for rendered in part.rendered}),
        prompt_tokens=_lengths(columns.first_scored[columns.members[:-1]]),
        chosen_tokens=_lengths(chosen),
        rejected_tokens=_lengths(rejected),
        chosen_longer=float(np.mean(chosen > rejected)) if pairs else None,
        prompts_cut=int(np.count_nonzero(columns.prompt_tokens_cut)),
        completions_cut=int(np.count_nonzero(columns.tokens_cut)),
        tokens_laid_out=laid_out,
        tokens_without_sharing=without_sharing,
    )


def _lengths(values: np.ndarray) -> Lengths | None:
    if not len(values):
        return None
    return Lengths(mean=float(np.mean(values)), median=float(np.median(values)), max=int(values.max()))
