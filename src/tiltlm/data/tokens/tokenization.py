"""Pairs to tokens that fit: rendered, tokenized, and cut where they are too long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
from transformers import PreTrainedTokenizerFast

from tiltlm.config import ComparisonConfig, DataConfig
from tiltlm.data.formats.fields import RowError
from tiltlm.data.tokens.cutting import fewer_turns, last_question, last_turn, with_question
from tiltlm.data.tokens.rendering import RenderedPair, Renderer
from tiltlm.data.tokens.templates import ChatTemplate, TemplateRefusalError
from tiltlm.data.tokens.token_ids import Encoder, Sides, both_texts
from tiltlm.errors import ConfigError
from tiltlm.records import DroppedPair, Message, PreferencePair, Text, TokenizedPair, TokenizedSequence

PAIRS_AT_ONCE = 512
"""Pairs tokenized between two progress reports."""

# Shortening a text by as many tokens as are too many can leave some, as what remains is tokenized anew.
_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Tokenized:
    """What became of the pairs: those ready for training, and those dropped, with reasons.

    rendered: texts of `pairs`. places: numbers of `pairs` among those given.
    """

    pairs: list[TokenizedPair] = field(default_factory=list)
    rendered: list[RenderedPair] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    dropped: list[DroppedPair] = field(default_factory=list)

    def extend(self, more: Tokenized) -> None:
        """Takes in what became of further pairs of the same list."""
        self.pairs.extend(more.pairs)
        self.rendered.extend(more.rendered)
        self.places.extend(more.places)
        self.dropped.extend(more.dropped)

    def take(self, numbers: Sequence[int]) -> Tokenized:
        """Those of the usable pairs that have these numbers among them; nothing is dropped."""
        return Tokenized(
            [self.pairs[number] for number in numbers],
            [self.rendered[number] for number in numbers],
            [self.places[number] for number in numbers],
        )


class PairTokenizer:
    """Turns pairs into token sequences for one tokenizer and one set of limits.

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

    def __call__(
        self, pairs: Sequence[PreferencePair], advance: Callable[[int], None] = lambda done: None
    ) -> Tokenized:
        """Tokenizes pairs; those that cannot be used are in the result's `dropped`, each with its reason.

        Raises:
            ConfigError: the tokenizer has several chat templates, and none is chosen.
        """
        result = Tokenized()
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            portion = pairs[start : start + PAIRS_AT_ONCE]
            for place, outcome in enumerate(self._portion(portion), start=start):
                if isinstance(outcome, DroppedPair):
                    result.dropped.append(outcome)
                else:
                    result.pairs.append(outcome[0])
                    result.rendered.append(outcome[1])
                    result.places.append(place)
            advance(len(portion))
        return result

    def _portion(self, pairs: Sequence[PreferencePair]) -> Iterator[tuple[TokenizedPair, RenderedPair] | DroppedPair]:
        """What becomes of each pair; all are tokenized in one call, which is much faster than one by one."""
        rendered = [self._rendered(pair) for pair in pairs]
        usable = [pair for pair in rendered if isinstance(pair, RenderedPair)]
        encoded = iter(self.encoder.encode([text for pair in usable for text in both_texts(pair)]) if usable else [])
        for pair in rendered:
            if isinstance(pair, DroppedPair):
                yield pair
                continue
            try:
                yield self._fit(pair, self.encoder.sides(pair, (next(encoded), next(encoded))))
            except RowError as problem:
                yield DroppedPair(pair.id, problem.reason, problem.detail)

    def _rendered(self, pair: PreferencePair) -> RenderedPair | DroppedPair:
        try:
            return self.renderer.pair(pair)
        except RowError as problem:
            return DroppedPair(pair.id, problem.reason, problem.detail)

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

        fitting = self._shortened(prompt, excess)
        text = self.render_prompt(fitting, tools)[0] if fitting is not None else text
        return text, self.encode_prompt(text, room)

    def _prompt_limit(self, room: int | None) -> int:
        limits = (self.config.max_prompt_length or self.config.max_length, room)
        return min(limit for limit in limits if limit is not None)

    def _too_many(self, sides: Sides) -> int:
        """How many tokens the prompt must lose; 0 where all fits."""
        over = sides.longest() - self.config.max_length
        if self.config.long_completions == "truncate":
            # A completion may be cut, so the prompt need not give way to it below half of what there is.
            over = min(over, max(sides.starts) - self.config.max_length // 2)
        limit = self.config.max_prompt_length or max(sides.starts)
        return max(0, over, max(sides.starts) - limit)

    def _fit(self, pair: RenderedPair, sides: Sides) -> tuple[TokenizedPair, RenderedPair]:
        """Cuts both sides alike until they fit.

        Raises:
            RowError: they cannot.
        """
        too_many = self._too_many(sides)
        if too_many == 0:
            return self._pair(pair, sides, 0, 0), pair
        if isinstance(pair.source.prompt, str):
            return self._cut_from_the_left(pair, sides, too_many), pair
        prompt = self._shortened(pair.source.prompt, lambda chat: self._too_many_of_chat(pair, chat))
        if prompt is None:
            self._refuse_chat(sides)
        shorter = self.renderer.pair(replace(pair.source, prompt=prompt))
        left = self._encoded_sides(shorter)
        return self._pair(shorter, left, 0, max(sides.starts) - max(left.starts)), shorter

    def _too_many_of_chat(self, pair: RenderedPair, prompt: tuple[Message, ...]) -> int | None:
        try:
            return self._too_many(self._encoded_sides(self.renderer.pair(replace(pair.source, prompt=prompt))))
        except RowError:
            return None

    def _encoded_sides(self, pair: RenderedPair) -> Sides:
        chosen, rejected = self.encoder.encode(both_texts(pair))
        return self.encoder.sides(pair, (chosen, rejected))

    def _shortened(
        self, prompt: tuple[Message, ...], excess: Callable[[tuple[Message, ...]], int | None]
    ) -> tuple[Message, ...] | None:
        """The longest prompt that fits: with fewer turns, or with the end of its question alone; None if none does.

        excess: how many tokens of a prompt are too many; None where it cannot be used.
        """

        def fits(number: int) -> bool:
            over = excess(candidates[number])
            return over is not None and over <= 0

        candidates = [prompt, *fewer_turns(prompt)]
        low, high = 0, len(candidates) - 1
        if fits(high):
            # Fewer turns are fewer tokens. What is at `high` always fits.
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if fits(middle) else (middle + 1, high)
            return candidates[high]
        least = last_turn(prompt)
        number = last_question(least)
        over = excess(least)
        for _ in range(_ATTEMPTS):
            if number is None or over is None:
                return None
            if over <= 0:
                return least
            ((_, offsets),) = self.encoder.encode([least[number].content])
            if over >= len(offsets):
                return None
            least = with_question(least, least[number].content[offsets[over][0] :])
            over = excess(least)
        return None

    def _refuse_chat(self, sides: Sides) -> NoReturn:
        longest, limit = sides.longest_completion(), self.config.max_length
        if longest > limit // 2 and self.config.long_completions == "drop":
            raise RowError(
                "completion too long",
                f"{longest} tokens with data.max_length {limit} leave no room for the last question: raise it, or set "
                "data.long_completions to `truncate`",
            )
        raise RowError(
            "prompt too long",
            f"what the system says and the last turn take more than data.max_length {limit} or data.max_prompt_length "
            "allow, even without the question's text",
        )

    def _cut_from_the_left(self, pair: RenderedPair, sides: Sides, too_many: int) -> TokenizedPair:
        """Verbatim text: all may go but BOS, its last header, and one token to predict the first scored one."""
        room = min(
            start - sides.bos - max(header, 1 - sides.bos)
            for start, header in zip(sides.starts, sides.headers, strict=True)
        )
        over_length = max(0, sides.longest() - self.config.max_length)
        if too_many > room and self.config.long_completions == "drop" and over_length > room:
            raise RowError(
                "completion too long",
                f"{sides.longest_completion()} tokens with data.max_length {self.config.max_length} leave no room for "
                "the prompt's header: raise it, or set data.long_completions to `truncate`",
            )
        limit = self.config.max_prompt_length
        if limit is not None and max(sides.starts) - limit > room:
            raise RowError(
                "header too long",
                f"data.max_prompt_length {limit} is too short for the prompt's last header, which is never cut: "
                f"set it to {max(sides.starts) - room} at least",
            )
        cut = min(too_many, room)
        return self._pair(pair, sides, cut, cut)

    def _pair(self, pair: RenderedPair, sides: Sides, cut: int, prompt_tokens_cut: int) -> TokenizedPair:
        """The pair without `cut` tokens after BOS; what is too long then is cut at the end, without an EOS."""
        whole = [ids[: sides.bos] + ids[sides.bos + cut :] for ids in sides.ids]
        left = [ids[: self.config.max_length] for ids in whole]
        starts = [start - cut for start in sides.starts]
        if any(len(ids) <= start for ids, start in zip(left, starts, strict=True)):
            raise RowError("prompt too long", f"data.max_length {self.config.max_length} leaves no room for an answer")
        if left[0] == left[1]:
            raise RowError("identical once cut", f"both sides are the same up to data.max_length {len(left[0])}")
        chosen, rejected = (
            TokenizedSequence(np.array(ids, dtype=np.int32), start, len(all_ids) - len(ids))
            for ids, start, all_ids in zip(left, starts, whole, strict=True)
        )
        return TokenizedPair(pair.id, chosen, rejected, prompt_tokens_cut)


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
