"""What is cut of an example that is too long: of its prompt first, alike for all its completions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import numpy as np

from tiltlm.config import DataConfig
from tiltlm.data.examples import Message, contradictory
from tiltlm.data.formats.fields import RowError
from tiltlm.data.tokens.cutting import fewer_turns, last_question, last_turn, with_question
from tiltlm.data.tokens.rendering import RenderedExample, Renderer
from tiltlm.data.tokens.token_columns import TokenizedExample, TokenizedSequence
from tiltlm.data.tokens.token_ids import Encoder, Uncut, full_texts

# Shortening a text by as many tokens as are too many can leave some, as what remains is tokenized anew.
_ATTEMPTS = 8


class Fitter:
    """Makes examples fit the lengths of the settings."""

    def __init__(self, encoder: Encoder, renderer: Renderer, config: DataConfig) -> None:
        self.encoder = encoder
        self.renderer = renderer
        self.config = config

    def fit(self, example: RenderedExample, uncut: Uncut) -> tuple[TokenizedExample, RenderedExample]:
        """Cuts all sequences alike until they fit.

        Raises:
            RowError: they cannot.
        """
        too_many = self._too_many(uncut)
        if too_many == 0:
            return self._cut(example, uncut, 0, 0), example
        if isinstance(example.source.prompt, str):
            return self._cut_from_the_left(example, uncut, too_many), example
        prompt = self.shortened(example.source.prompt, lambda chat: self._too_many_of_chat(example, chat))
        if prompt is None:
            self._refuse_chat(uncut)
        shorter = self.renderer.render(replace(example.source, prompt=prompt))
        left = self._uncut(shorter)
        return self._cut(shorter, left, 0, max(uncut.starts) - max(left.starts)), shorter

    def shortened(
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

    def _too_many(self, uncut: Uncut) -> int:
        """How many tokens the prompt must lose; 0 where all fits."""
        over = uncut.longest() - self.config.max_length
        if self.config.long_completions == "truncate":
            # A completion may be cut, so the prompt need not give way to it below half of what there is.
            over = min(over, max(uncut.starts) - self.config.max_length // 2)
        limit = self.config.max_prompt_length or max(uncut.starts)
        return max(0, over, max(uncut.starts) - limit)

    def _too_many_of_chat(self, example: RenderedExample, prompt: tuple[Message, ...]) -> int | None:
        try:
            return self._too_many(self._uncut(self.renderer.render(replace(example.source, prompt=prompt))))
        except RowError:
            return None

    def _uncut(self, example: RenderedExample) -> Uncut:
        return self.encoder.uncut(example, self.encoder.encode(full_texts(example)))

    def _refuse_chat(self, uncut: Uncut) -> NoReturn:
        longest, limit = uncut.longest_completion(), self.config.max_length
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

    def _cut_from_the_left(self, example: RenderedExample, uncut: Uncut, too_many: int) -> TokenizedExample:
        """Verbatim text: all may go but BOS, its last header, and one token to predict the first scored one."""
        room = min(
            start - uncut.bos - max(header, 1 - uncut.bos)
            for start, header in zip(uncut.starts, uncut.headers, strict=True)
        )
        over_length = max(0, uncut.longest() - self.config.max_length)
        if too_many > room and self.config.long_completions == "drop" and over_length > room:
            raise RowError(
                "completion too long",
                f"{uncut.longest_completion()} tokens with data.max_length {self.config.max_length} leave no room for "
                "the prompt's header: raise it, or set data.long_completions to `truncate`",
            )
        limit = self.config.max_prompt_length
        if limit is not None and max(uncut.starts) - limit > room:
            raise RowError(
                "header too long",
                f"data.max_prompt_length {limit} is too short for the prompt's last header, which is never cut: "
                f"set it to {max(uncut.starts) - room} at least",
            )
        cut = min(too_many, room)
        return self._cut(example, uncut, cut, cut)

    def _cut(self, example: RenderedExample, uncut: Uncut, cut: int, prompt_tokens_cut: int) -> TokenizedExample:
        """The example without `cut` tokens after BOS; what is too long then is cut at the end, without an EOS."""
        whole = [ids[: uncut.bos] + ids[uncut.bos + cut :] for ids in uncut.ids]
        left = [ids[: self.config.max_length] for ids in whole]
        starts = [start - cut for start in uncut.starts]
        if any(len(ids) <= start for ids, start in zip(left, starts, strict=True)):
            raise RowError("prompt too long", f"data.max_length {self.config.max_length} leaves no room for an answer")
        labels = example.source.labels
        if contradictory(left, example.source.scores or labels):
            raise RowError("identical once cut", f"both sides are the same up to data.max_length {len(left[0])}")
        sequences = tuple(
            TokenizedSequence(np.array(ids, dtype=np.int32), start, len(all_ids) - len(ids), ended)
            for ids, start, all_ids, ended in zip(left, starts, whole, example.source.endings, strict=True)
        )
        return TokenizedExample(example.id, sequences, labels, prompt_tokens_cut, example.source.scores)
