"""Examples to tokens that fit: rendered, tokenized, and cut where they are too long."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerFast

from tiltlm.config import ComparisonConfig, DataConfig
from tiltlm.data.examples import Example, Message, Text
from tiltlm.data.formats.fields import RowError, require_characters
from tiltlm.data.tokens.columns_builder import ColumnsBuilder, as_numpy
from tiltlm.data.tokens.fitting import Fitter
from tiltlm.data.tokens.rendering import RenderedExample, Renderer
from tiltlm.data.tokens.templates import ChatTemplate, TemplateRefusalError
from tiltlm.data.tokens.text_checks import CHECKED, TextChecks
from tiltlm.data.tokens.token_columns import TokenizedExample
from tiltlm.data.tokens.token_ids import Encoder, full_texts
from tiltlm.data.tokens.token_parts import Tokenized, TokenParts
from tiltlm.errors import ConfigError
from tiltlm.runs.data_account import DroppedRow

_PACKED = struct.Struct("<BiiQ")  # as CHECKED

EXAMPLES_AT_ONCE = 512
"""Examples tokenized between two progress reports."""
EXAMPLES_IN_PART = 1 << 14
"""Examples of a part of large data: some ten megabytes of tokens."""


class TokenizedBuilder:
    """What becomes of the examples of a part while they are tokenized."""

    def __init__(self) -> None:
        self._places = array("q")
        self._dropped: list[DroppedRow] = []
        self._columns = ColumnsBuilder()
        self._checked = bytearray()

    def drop(self, row: DroppedRow) -> None:
        """Takes in that an example cannot be used."""
        self._dropped.append(row)

    def add(self, place: int, example: TokenizedExample, checked: tuple[int, int, int, int]) -> None:
        """Takes in an example that can be used."""
        self._places.append(place)
        self._columns.add(example)
        self._checked += _PACKED.pack(*checked)

    def tokenized(self) -> Tokenized:
        """All that was taken in. Nothing can be added from then on."""
        checked = np.frombuffer(self._checked, dtype=CHECKED)
        return Tokenized(self._columns.columns(), checked, as_numpy(self._places), self._dropped)


class ExampleTokenizer:
    """Turns examples into token sequences for one tokenizer and one set of limits.

    Args:
        tokenizer: a fast tokenizer.
        config: lengths and the end-of-sequence policy.
        terminators: token ids that end an answer besides the tokenizer's own EOS (a chat model's end of turn).
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, config: DataConfig, terminators: frozenset[int] = frozenset()
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.encoder = Encoder(tokenizer, config.eos == "append", terminators)
        self.terminators = self.encoder.terminators
        self.adds_bos = self.encoder.adds_bos
        self.template = ChatTemplate(tokenizer)
        self.renderer = Renderer(self.template)
        self.text_checks = TextChecks(tokenizer, self.template, self.terminators)
        self._fitter = Fitter(self.encoder, self.renderer, config)

    def __call__(self, examples: Sequence[Example], advance: Callable[[int], None] = lambda done: None) -> Tokenized:
        """Tokenizes examples; those that cannot be used are in the result's `dropped`, each with its reason.

        Raises:
            ConfigError: the tokenizer has several chat templates, and none is chosen.
        """
        return Tokenized.joined(self.tokenize(examples, np.arange(len(examples)), advance))

    def tokenize(
        self,
        examples: Sequence[Example],
        numbers: np.ndarray,
        advance: Callable[[int], None],
        kept: TokenParts | None = None,
    ) -> list[Tokenized]:
        """What becomes of the examples with these numbers, in parts: one at least.

        kept: where parts are kept and found again; None: nowhere. One part alone is not: it is made in seconds.
        """
        parts = []
        for start in range(0, max(1, len(numbers)), EXAMPLES_IN_PART):
            own = numbers[start : start + EXAMPLES_IN_PART]
            keep = kept if len(numbers) > EXAMPLES_IN_PART else None
            part = keep.get(own, self.text_checks) if keep is not None else None
            if part is not None:
                advance(len(own))
            else:
                part = self._part(examples, own, advance)
                part = keep.put(own, part, self.text_checks) if keep is not None else part
            parts.append(part)
        return parts

    def _part(self, examples: Sequence[Example], numbers: np.ndarray, advance: Callable[[int], None]) -> Tokenized:
        into = TokenizedBuilder()
        for start in range(0, len(numbers), EXAMPLES_AT_ONCE):
            portion = numbers[start : start + EXAMPLES_AT_ONCE].tolist()
            outcomes = self.outcomes([examples[number] for number in portion])
            for number, outcome in zip(portion, outcomes, strict=True):
                if isinstance(outcome, DroppedRow):
                    into.drop(outcome)
                else:
                    into.add(number, outcome[0], self.text_checks.check(outcome[1]))
            advance(len(portion))
        return into.tokenized()

    def outcomes(self, examples: Sequence[Example]) -> Iterator[tuple[TokenizedExample, RenderedExample] | DroppedRow]:
        """What becomes of each example; all are tokenized in one call, which is much faster than one by one."""
        rendered = [self._rendered(example) for example in examples]
        texts = [text for one in rendered if isinstance(one, RenderedExample) for text in full_texts(one)]
        encoded = iter(self.encoder.encode(texts) if texts else [])
        for one in rendered:
            if isinstance(one, DroppedRow):
                yield one
                continue
            try:
                yield self._fitter.fit(one, self.encoder.uncut(one, list(islice(encoded, len(one.completions)))))
            except RowError as problem:
                yield DroppedRow(one.id, problem.reason, problem.detail)

    def _rendered(self, example: Example) -> RenderedExample | DroppedRow:
        try:
            rendered = self.renderer.render(example)
            # A template may write what stood escaped in the arguments of a call.
            require_characters(rendered.question + "".join(full_texts(rendered)), "what the chat template writes")
            return rendered
        except RowError as problem:
            return DroppedRow(example.id, problem.reason, problem.detail)

    def render_prompt(self, prompt: Text, tools: str | None = None) -> tuple[str, str]:
        """The text of a prompt to be answered, and its header: what asks for an answer.

        Raises:
            TemplateRefusalError: the chat template does not take it.
        """
        return self.renderer.prompt(prompt, tools)

    def encode_prompt(self, text: str, room: int | None = None) -> list[int]:
        """Token ids of a prompt to be answered: one BOS where the model wants one, cut from the left to fit.

        room: most tokens the model has for a prompt, besides the limits of the settings.
        """
        ids = self.encoder.prompt(text)
        excess = len(ids) - self._prompt_limit(room)
        keep = 1 if self.encoder.starts_with_bos(ids) else 0
        return ids[:keep] + ids[keep + excess :] if excess > 0 else ids

    def ask(self, prompt: Text, tools: str | None = None, room: int | None = None) -> tuple[str, list[int]]:
        """Text and token ids of a prompt to be answered. What is too long of a chat loses turns, as in training.

        Raises:
            TemplateRefusalError: the chat template does not take it.
        """
        text, _ = self.render_prompt(prompt, tools)
        if isinstance(prompt, str):
            return text, self.encode_prompt(text, room)
        limit = self._prompt_limit(room)

        def excess(chat: tuple[Message, ...]) -> int | None:
            try:
                shorter, _ = self.render_prompt(chat, tools)
            except TemplateRefusalError:
                return None
            return len(self.encoder.prompt(shorter)) - limit

        fitting = self._fitter.shortened(prompt, excess)
        text = self.render_prompt(fitting, tools)[0] if fitting is not None else text
        return text, self.encode_prompt(text, room)

    def _prompt_limit(self, room: int | None) -> int:
        limits = (self.config.max_prompt_length or self.config.max_length, room)
        return min(limit for limit in limits if limit is not None)


def check_limits(data: DataConfig, comparison: ComparisonConfig, positions: int | None) -> None:
    """Refuses lengths beyond the positions the model knows.

    Raises:
        ConfigError: with the largest value that works.
    """
    if positions is None:
        return
    if data.max_length > positions:
        raise ConfigError(f"data.max_length is {data.max_length}, but the model knows {positions} positions: lower it.")
    if comparison.max_new_tokens >= positions:
        raise ConfigError(
            f"comparison.max_new_tokens is {comparison.max_new_tokens}, but the model knows {positions} positions, and "
            "the prompt needs some of them: lower it."
        )
