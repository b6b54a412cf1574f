"""The data report: what was read, what is used, what is not and why, and what the lengths look like."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from tiltlm.data.loading import LoadedPairs
from tiltlm.data.splitting import prompt_key
from tiltlm.data.tokens.packing import tree_size
from tiltlm.data.tokens.tokenization import Tokenized
from tiltlm.records import DroppedPair, TokenizedPair, TokenizedSequence
from tiltlm.runs.data_account import DataReport, Dropped, DroppedRow, Lengths, Remark, ShownExample, Source, Split

EXAMPLES = 3


def data_report(
    loaded: Sequence[LoadedPairs],
    train: Tokenized,
    held_out: Tokenized | None,
    also_dropped: Sequence[DroppedPair],
    notes: Sequence[str],
    remarks: Sequence[Remark],
    decode: Callable[[Sequence[int]], str],
) -> DataReport:
    """Puts the account of all rows together.

    Args:
        loaded: what each source gave.
        train, held_out: what became of the pairs chosen for training and evaluation.
        also_dropped: pairs taken out otherwise.
        notes: sentences on anything unusual, besides those of the sources.
        remarks: what the notes count, with every pair it is true of.
        decode: text of token ids, special tokens included.
    """
    rows = [drop for part in loaded for drop in part.dropped] + list(also_dropped)
    rows += [drop for part in (train, held_out) if part is not None for drop in part.dropped]
    texts = [pair.prompt for part in loaded for pair in part.pairs]
    return DataReport(
        sources=tuple(_source(part) for part in loaded),
        train=_split(train.pairs, [pair.prompt for pair in train.rendered]),
        eval=_split(held_out.pairs, [pair.prompt for pair in held_out.rendered]) if held_out is not None else None,
        dropped=Dropped(
            count=len(rows),
            by_reason=dict(Counter(row.reason for row in rows).most_common()),
            list=tuple(DroppedRow(row.id, row.reason, row.detail) for row in rows),
        ),
        notes=(*(note for part in loaded for note in part.notes), *notes),
        examples=tuple(_example(pair, decode) for pair in train.pairs[:EXAMPLES]),
        chat=any(not isinstance(text, str) for text in texts),
        remarks=tuple(remarks),
    )


def _example(pair: TokenizedPair, decode: Callable[[Sequence[int]], str]) -> ShownExample:
    (prompt, chosen), (other, rejected) = (_texts(sequence, decode) for sequence in (pair.chosen, pair.rejected))
    return ShownExample(
        pair.id,
        prompt,
        chosen,
        rejected,
        rejected_prompt=None if other == prompt else other,
        prompt_tokens_cut=pair.prompt_tokens_cut,
        chosen_tokens_cut=pair.chosen.tokens_cut,
        rejected_tokens_cut=pair.rejected.tokens_cut,
    )


def _texts(sequence: TokenizedSequence, decode: Callable[[Sequence[int]], str]) -> tuple[str, str]:
    """What is not scored, and what is. Some tokenizers drop a space where a text begins, so the whole is decoded."""
    ids = sequence.ids.tolist()
    prompt, whole = decode(ids[: sequence.first_scored]), decode(ids)
    if whole.startswith(prompt):
        return prompt, whole[len(prompt) :]
    return prompt, decode(ids[sequence.first_scored :])


def _source(part: LoadedPairs) -> Source:
    return Source(**dataclasses.asdict(part.source), pairs=len(part.pairs))


def _split(pairs: Sequence[TokenizedPair], prompts: Sequence[str]) -> Split:
    chosen = [pair.chosen.scored_tokens for pair in pairs]
    rejected = [pair.rejected.scored_tokens for pair in pairs]
    return Split(
        pairs=len(pairs),
        prompts=len({prompt_key(prompt) for prompt in prompts}),
        prompt_tokens=_lengths([pair.chosen.first_scored for pair in pairs]),
        chosen_tokens=_lengths(chosen),
        rejected_tokens=_lengths(rejected),
        chosen_longer=float(np.mean([c > r for c, r in zip(chosen, rejected, strict=True)])) if pairs else None,
        prompts_cut=sum(pair.prompt_tokens_cut > 0 for pair in pairs),
        completions_cut=sum(side.tokens_cut > 0 for pair in pairs for side in (pair.chosen, pair.rejected)),
        tokens_laid_out=sum(tree_size((pair.chosen, pair.rejected)) for pair in pairs),
        tokens_without_sharing=sum(len(pair.chosen.ids) + len(pair.rejected.ids) - 2 for pair in pairs),
    )


def _lengths(values: Sequence[int]) -> Lengths | None:
    if not values:
        return None
    return Lengths(mean=float(np.mean(values)), median=float(np.median(values)), max=max(values))
