"""What is seen of each example as text, one at a time, in a few bytes: what is to be told of all of them."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from tiltlm.data.examples import Example
from tiltlm.data.tokens.rendering import RenderedExample
from tiltlm.data.tokens.templates import ChatTemplate, generation_header

CHAT, BOS_WITHIN, EOS_WITHIN, UNMARKED, TOUCHES = 1, 2, 4, 8, 16
"""It is a chat; its own texts hold BOS; an answer goes on after an EOS; a verbatim prompt has no mark of a turn; the
letters of a verbatim prompt and of its completion meet."""

CHECKED = np.dtype([("flags", "u1"), ("remarks", "<i4"), ("asks", "<i4"), ("prompt", "<u8")])
"""Of an example: its flags; the number of its remarks in `TextChecks.remarks`; of what asks for an answer in
`TextChecks.asks`; and a digest of its prompt as text, without white space around it."""


class TextChecks:
    """Looks at examples for one tokenizer and template."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template: ChatTemplate, terminators: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._terminators = terminators
        self._remarks: dict[tuple[str, ...], int] = {(): 0}
        self._asks = {"": 0}

    @property
    def remarks(self) -> list[tuple[str, ...]]:
        """By number, what the template left out of an example, in sentences; nothing is number 0."""
        return list(self._remarks)

    @property
    def asks(self) -> list[str]:
        """By number, what the template writes to ask for an answer, and not once it is answered; nothing is 0."""
        return list(self._asks)

    def renumber(self, checked: np.ndarray, remarks: list[tuple[str, ...]], asks: list[str]) -> None:
        """Gives what another one has seen, in CHECKED, the numbers that it has here.

        remarks, asks: those of the other one.
        """
        for field, said, own in (("remarks", remarks, self._remarks), ("asks", asks, self._asks)):
            numbers: dict[Any, int] = own
            checked[field] = np.array([numbers.setdefault(words, len(numbers)) for words in said])[checked[field]]

    def check(self, example: RenderedExample) -> tuple[int, int, int, int]:
        """What is seen of an example, as the fields of CHECKED."""
        flags = 0 if isinstance(example.source.prompt, str) else CHAT
        if self._bos is not None and any(self._bos in text for text in _own_texts(example.source, self._bos)):
            flags |= BOS_WITHIN
        eos = self._tokenizer.eos_token
        if eos is not None and any(_goes_on_after(eos, text) for text in _answers(example.source)):
            flags |= EOS_WITHIN
        if not flags & CHAT:
            flags |= 0 if any(mark in example.prompt for mark in self._marks) else UNMARKED
            flags |= TOUCHES if _touches(example) else 0
        digest = hashlib.blake2b(example.prompt.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()
        asks = "" if example.question == example.prompt else _what_asks(example)
        return (
            flags,
            self._remarks.setdefault(example.remarks, len(self._remarks)),
            self._asks.setdefault(asks, len(self._asks)),
            int.from_bytes(digest, "little"),
        )

    @cached_property
    def _bos(self) -> str | None:
        """BOS, where it should not stand in a text: not a template's mark of a turn, nor what ends an answer."""
        bos = self._tokenizer.bos_token
        if bos is None or self._tokenizer.bos_token_id in self._terminators:
            return None
        return None if bos in generation_header(self._template) else str(bos)

    @cached_property
    def _marks(self) -> list[str]:
        marks = [generation_header(self._template).strip(), *self._tokenizer.all_special_tokens]
        return [mark for mark in marks if mark]


def _what_asks(example: RenderedExample) -> str:
    """In words, what a model is given to answer beyond the prompt as it stands once it is answered."""
    if not example.question.startswith(example.prompt):
        return "the prompt in another way than once it is answered"
    return repr(example.question.removeprefix(example.prompt))


def _goes_on_after(eos: str, text: str) -> bool:
    return bool(text.partition(eos)[2].replace(eos, "").strip())


def _answers(example: Example) -> list[str]:
    texts = ([text] if isinstance(text, str) else [m.content for m in text] for text in example.completions)
    return [text for some in texts for text in some]


def _own_texts(example: Example, bos: str) -> list[str]:
    """The data's texts, but for a BOS at the beginning of a prompt."""
    if isinstance(example.prompt, str):
        return [example.prompt.removeprefix(bos), *_answers(example)]
    return [*(message.content for message in example.prompt), *_answers(example)]


def _touches(example: RenderedExample) -> bool:
    """Whether letters meet: scripts without spaces and marks of a chat's turns need none between."""
    end, beginning = example.prompt[-1:], example.completions[0][:1]
    return (
        bool(end and beginning)
        and not end.isspace()
        and not beginning.isspace()
        and beginning.isascii()
        and (end.isascii() and end not in ">]|")
    )
