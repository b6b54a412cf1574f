"""What is unusual about examples once they are text and tokens, and is used all the same: sentences with counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from tiltlm.data.examples import Message
from tiltlm.data.tokens.templates import PROBE, TemplateRefusalError
from tiltlm.data.tokens.text_checks import BOS_WITHIN, CHAT, EOS_WITHIN, TOUCHES, UNMARKED, TextChecks
from tiltlm.data.tokens.token_columns import portions
from tiltlm.data.tokens.token_parts import Tokenized
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.runs.data_account import Remark

_NAMED = 3


def notes_on_tokens(
    parts: Sequence[Tokenized], tokenizer: ExampleTokenizer, noun: str = "pair"
) -> tuple[list[str], list[Remark]]:
    """The notes, and with every example what is counted in them.

    noun: what an example is called.
    """
    parts = [part for part in parts if len(part.examples)]
    if not parts:
        return [], []
    checked = np.concatenate([part.checked for part in parts])
    remarks = [
        *_left_out(parts, tokenizer.text_checks),
        *_bos_in_text(parts, tokenizer),
        *_eos_in_text(parts, tokenizer),
    ]
    remarks += _unknown(parts, tokenizer)
    notes = [_counted(remark, len(checked), noun) for remark in remarks]
    notes += _about_chats(parts, tokenizer) + _about_verbatim(checked["flags"], tokenizer, noun)
    return notes, remarks


def _counted(remark: Remark, examples: int, noun: str) -> str:
    first = ", ".join(remark.ids[:_NAMED]) + (", ..." if len(remark.ids) > _NAMED else "")
    return f"{remark.what}: {len(remark.ids)} of {examples} {noun}s ({first})."


def _named(parts: Sequence[Tokenized], holds: Callable[[Tokenized], np.ndarray]) -> tuple[str, ...]:
    """The names of the examples of which something is true."""
    return tuple(part.examples.names[number] for part in parts for number in np.flatnonzero(holds(part)).tolist())


def _left_out(parts: Sequence[Tokenized], text_checks: TextChecks) -> list[Remark]:
    numbers = np.concatenate([part.checked["remarks"] for part in parts])
    different, first = np.unique(numbers, return_index=True)
    # In the order in which they were met.
    with_remark: dict[str, list[int]] = {}
    for number in different[np.argsort(first)].tolist():
        for what in text_checks.remarks[number]:
            with_remark.setdefault(what, []).append(number)
    return [Remark(what, _named(parts, partial(_has_remark, numbers=those))) for what, those in with_remark.items()]


def _has_remark(part: Tokenized, numbers: list[int]) -> np.ndarray:
    has: np.ndarray = np.isin(part.checked["remarks"], numbers)
    return has


def _flagged(parts: Sequence[Tokenized], flag: int, what: str) -> list[Remark]:
    names = _named(parts, lambda part: part.checked["flags"] & flag != 0)
    return [Remark(what, names)] if names else []


def _bos_in_text(parts: Sequence[Tokenized], tokenizer: ExampleTokenizer) -> list[Remark]:
    return _flagged(parts, BOS_WITHIN, f"The text itself holds the BOS token {tokenizer.tokenizer.bos_token} within")


def _eos_in_text(parts: Sequence[Tokenized], tokenizer: ExampleTokenizer) -> list[Remark]:
    """Ends of an answer within the data's own answers: nothing is ever generated from there on."""
    eos = tokenizer.tokenizer.eos_token
    what = f"An answer holds the end-of-sequence token {eos}, goes on after it, and is scored to its end"
    return _flagged(parts, EOS_WITHIN, what)


def _unknown(parts: Sequence[Tokenized], tokenizer: ExampleTokenizer) -> list[Remark]:
    """Characters that the tokenizer has no token for."""
    unk = tokenizer.tokenizer.unk_token_id
    # Byte-level tokenizers need none, and give it another's place.
    if unk is None or unk in {
        tokenizer.tokenizer.bos_token_id,
        tokenizer.tokenizer.pad_token_id,
        *tokenizer.terminators,
    }:
        return []

    def holds(part: Tokenized) -> np.ndarray:
        columns, has = part.examples, np.zeros(len(part.examples), dtype=bool)
        starts = columns.bounds[columns.members]
        for first, last in portions(starts):
            unknown = np.flatnonzero(columns.ids[starts[first] : starts[last]] == unk) + starts[first]
            has[np.searchsorted(starts, unknown, side="right") - 1] = True
        return has

    names = _named(parts, holds)
    what = f"The tokenizer has no token for some characters, and {tokenizer.tokenizer.unk_token} stands in their place"
    return [Remark(what, names)] if names else []


def _about_chats(parts: Sequence[Tokenized], tokenizer: ExampleTokenizer) -> list[str]:
    chats = sum(int(np.count_nonzero(part.checked["flags"] & CHAT)) for part in parts)
    notes = []
    if chats and not tokenizer.template.exists:
        notes.append("The model has no chat template: chats are written as `\\n\\nHuman: ...\\n\\nAssistant: ...`.")
    if chats and (more := _more_than_an_answer(tokenizer)):
        notes.append(more)
    opened = [(part, number) for part in parts for number in np.flatnonzero(part.checked["asks"])[:1].tolist()]
    if opened:
        part, number = opened[0]
        asks = tokenizer.text_checks.asks[part.checked["asks"][number]]
        count = sum(int(np.count_nonzero(part.checked["asks"])) for part in parts)
        notes.append(
            f"To ask for an answer the chat template writes {asks}, from which answered chats do not go on "
            f"({count} of {chats} chats, first {part.examples.names[number]}): answers are trained on as the template "
            "writes answered chats, and answers are generated from what asks for them."
        )
    return notes


def _more_than_an_answer(tokenizer: ExampleTokenizer) -> str | None:
    """What the template writes after an answer besides the mark of its end: it is scored, and no answer goes on so."""
    try:
        text = tokenizer.template.render((Message("user", PROBE), Message("assistant", PROBE)))
    except TemplateRefusalError:
        return None
    _, before, after, *again = (*text.split(PROBE), "", "")
    if any(again):
        return "The chat template writes answers more than once, and all of it is scored."
    added = tokenizer.tokenizer.added_tokens_decoder.values()
    marks = {*tokenizer.tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
    in_words = after
    for mark in marks:
        in_words = in_words.replace(mark, "")
    # What stands between question and answer, and is more than one mark, asks for an answer.
    asks = after.strip() == before.strip() and sum(mark in after for mark in marks) > 1
    if not in_words.strip() and not asks:
        return None
    return f"After an answer the chat template writes {after!r}, which is scored as a part of it."


def _about_verbatim(flags: np.ndarray, tokenizer: ExampleTokenizer, noun: str) -> list[str]:
    verbatim, unmarked, touching = (
        int(np.count_nonzero(holds)) for holds in (flags & CHAT == 0, flags & UNMARKED, flags & TOUCHES)
    )
    notes = []
    if tokenizer.template.exists and 2 * unmarked > verbatim:
        notes.append(
            f"The model has a chat template, and it is not applied to {verbatim} {noun}s given as text, which is "
            "used as it stands. To have it applied, give prompt and completions as lists of messages: "
            '[{"role": "user", "content": "..."}].'
        )
    if 2 * touching > verbatim:
        notes.append(
            f"Prompt and completion touch without white space in {touching} of {verbatim} {noun}s: "
            "text is joined as it stands, so the separator must be in the data."
        )
    return notes
