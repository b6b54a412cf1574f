"""What is unusual about examples once they are text and tokens, and is used all the same: sentences with counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiltlm.data.examples import Example, Message
from tiltlm.data.tokens.rendering import RenderedExample
from tiltlm.data.tokens.templates import PROBE, TemplateRefusalError, generation_header
from tiltlm.data.tokens.token_columns import TokenizedExample
from tiltlm.data.tokens.tokenization import ExampleTokenizer, Tokenized
from tiltlm.runs.data_account import Remark

MANY_CUT = 0.2
"""Share of cut prompts from which on a note says how long they are."""
_FEW_CUT = 0.05
_NAMED = 3


def notes_on_tokens(
    train: Tokenized, held_out: Tokenized, tokenizer: ExampleTokenizer, noun: str = "pair"
) -> tuple[list[str], list[Remark]]:
    """The notes, and with every example what is counted in them.

    noun: what an example is called.
    """
    rendered = [*train.rendered, *held_out.rendered]
    pairs = [*train.examples, *held_out.examples]
    if not pairs:
        return [], []
    remarks = [*_left_out(rendered), *_bos_in_text(rendered, tokenizer), *_eos_in_text(rendered, tokenizer)]
    remarks += _unknown(pairs, tokenizer)
    notes = [_counted(remark, len(pairs), noun) for remark in remarks]
    notes += _about_chats(rendered, tokenizer) + _about_verbatim(rendered, tokenizer, noun)
    return notes + _cut_prompts(pairs, tokenizer) + _cut_completions(pairs), remarks


def _counted(remark: Remark, examples: int, noun: str) -> str:
    first = ", ".join(remark.ids[:_NAMED]) + (", ..." if len(remark.ids) > _NAMED else "")
    return f"{remark.what}: {len(remark.ids)} of {examples} {noun}s ({first})."


def _left_out(rendered: Sequence[RenderedExample]) -> list[Remark]:
    ids: dict[str, list[str]] = {}
    for pair in rendered:
        for what in pair.remarks:
            ids.setdefault(what, []).append(pair.id)
    return [Remark(what, tuple(those)) for what, those in ids.items()]


def _bos_in_text(rendered: Sequence[RenderedExample], tokenizer: ExampleTokenizer) -> list[Remark]:
    """BOS tokens that the data's own texts hold, but for one at the beginning of a prompt."""
    bos = tokenizer.tokenizer.bos_token
    # Where it is the template's own mark of a turn, or what ends an answer, it may well stand in a text.
    if bos is None or tokenizer.tokenizer.bos_token_id in tokenizer.terminators:
        return []
    if bos in generation_header(tokenizer.template):
        return []
    ids = tuple(pair.id for pair in rendered if any(bos in text for text in _own_texts(pair.source, bos)))
    return [Remark(f"The text itself holds the BOS token {bos} within", ids)] if ids else []


def _eos_in_text(rendered: Sequence[RenderedExample], tokenizer: ExampleTokenizer) -> list[Remark]:
    """Ends of an answer within the data's own answers: nothing is ever generated from there on."""
    eos = tokenizer.tokenizer.eos_token
    if eos is None:
        return []
    ids = tuple(pair.id for pair in rendered if any(_goes_on_after(eos, text) for text in _answers(pair.source)))
    what = f"An answer holds the end-of-sequence token {eos}, goes on after it, and is scored to its end"
    return [Remark(what, ids)] if ids else []


def _goes_on_after(eos: str, text: str) -> bool:
    return bool(text.partition(eos)[2].replace(eos, "").strip())


def _unknown(pairs: Sequence[TokenizedExample], tokenizer: ExampleTokenizer) -> list[Remark]:
    """Characters that the tokenizer has no token for."""
    unk = tokenizer.tokenizer.unk_token_id
    # Byte-level tokenizers need none, and give it another's place.
    if unk is None or unk in {
        tokenizer.tokenizer.bos_token_id,
        tokenizer.tokenizer.pad_token_id,
        *tokenizer.terminators,
    }:
        return []
    ids = tuple(pair.id for pair in pairs if any(unk in sequence.ids for sequence in pair.sequences))
    what = f"The tokenizer has no token for some characters, and {tokenizer.tokenizer.unk_token} stands in their place"
    return [Remark(what, ids)] if ids else []


def _answers(example: Example) -> list[str]:
    texts = ([text] if isinstance(text, str) else [m.content for m in text] for text in example.completions)
    return [text for some in texts for text in some]


def _own_texts(example: Example, bos: str) -> list[str]:
    if isinstance(example.prompt, str):
        return [example.prompt.removeprefix(bos), *_answers(example)]
    return [*(message.content for message in example.prompt), *_answers(example)]


def _about_chats(rendered: Sequence[RenderedExample], tokenizer: ExampleTokenizer) -> list[str]:
    chats = [pair for pair in rendered if not isinstance(pair.source.prompt, str)]
    notes = []
    if chats and not tokenizer.template.exists:
        notes.append("The model has no chat template: chats are written as `\\n\\nHuman: ...\\n\\nAssistant: ...`.")
    if chats and (more := _more_than_an_answer(tokenizer)):
        notes.append(more)
    opened = [pair for pair in chats if pair.question != pair.prompt]
    if opened:
        first = opened[0]
        more = repr(first.question.removeprefix(first.prompt))
        if not first.question.startswith(first.prompt):
            more = "the prompt in another way than once it is answered"
        notes.append(
            f"To ask for an answer the chat template writes {more}, from which answered chats do not go on "
            f"({len(opened)} of {len(chats)} chats, first {first.id}): answers are trained on as the template writes "
            "answered chats, and answers are generated from what asks for them."
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


def _about_verbatim(rendered: Sequence[RenderedExample], tokenizer: ExampleTokenizer, noun: str) -> list[str]:
    verbatim = [pair for pair in rendered if isinstance(pair.source.prompt, str)]
    if not verbatim:
        return []
    notes = []
    marks = [generation_header(tokenizer.template).strip(), *tokenizer.tokenizer.all_special_tokens]
    unmarked = sum(not any(mark in pair.prompt for mark in marks if mark) for pair in verbatim)
    if tokenizer.template.exists and 2 * unmarked > len(verbatim):
        notes.append(
            f"The model has a chat template, and it is not applied to {len(verbatim)} {noun}s given as text, which is "
            "used as it stands. To have it applied, give prompt and completions as lists of messages: "
            '[{"role": "user", "content": "..."}].'
        )
    touching = sum(_touches(pair) for pair in verbatim)
    if 2 * touching > len(verbatim):
        notes.append(
            f"Prompt and completion touch without white space in {touching} of {len(verbatim)} {noun}s: "
            "text is joined as it stands, so the separator must be in the data."
        )
    return notes


def _touches(pair: RenderedExample) -> bool:
    """Whether letters meet: scripts without spaces and marks of a chat's turns need none between."""
    end, beginning = pair.prompt[-1:], pair.completions[0][:1]
    return (
        bool(end and beginning)
        and not end.isspace()
        and not beginning.isspace()
        and beginning.isascii()
        and (end.isascii() and end not in ">]|")
    )


def _cut_prompts(pairs: Sequence[TokenizedExample], tokenizer: ExampleTokenizer) -> list[str]:
    cut = sum(pair.prompt_tokens_cut > 0 for pair in pairs)
    if cut <= MANY_CUT * len(pairs):
        return []
    lengths = np.sort([_uncut_length(pair) for pair in pairs])
    # The shortest limit that at most so many exceed.
    most = int(lengths[len(lengths) - 1 - int(_FEW_CUT * len(lengths))])
    limit = tokenizer.config.max_prompt_length
    also = f" and data.max_prompt_length ({limit}) raised or unset" if limit is not None else ""
    few = f", with {most} at most {_FEW_CUT:.0%}" if most < lengths[-1] else ""
    return [
        f"{cut} of {len(pairs)} prompts ({cut / len(pairs):.0%}) lose their beginning, often the instruction, to fit "
        f"data.max_length {tokenizer.config.max_length}. With data.max_length {int(lengths[-1])}{also} none would be "
        f"cut{few}."
    ]


def _cut_completions(pairs: Sequence[TokenizedExample]) -> list[str]:
    cuts = [sequence.tokens_cut > 0 for pair in pairs for sequence in pair.sequences]
    if not any(cuts):
        return []
    return [f"{sum(cuts)} of {len(cuts)} completions are cut at the end to fit; they have no end-of-sequence token."]


def _uncut_length(pair: TokenizedExample) -> int:
    return pair.prompt_tokens_cut + max(len(side.ids) + side.tokens_cut for side in pair.sequences)
