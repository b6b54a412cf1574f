"""Pairs to tokens: chat templates, one tokenization of the full text, BOS, EOS, and what is cut when it is too long."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerFast

from tiltlm.config import ComparisonConfig, DataConfig
from tiltlm.errors import ConfigError, ModelError
from tiltlm.records import DroppedPair, Message, PreferencePair, Text, TokenizedPair, TokenizedSequence

PAIRS_AT_ONCE = 512
"""Pairs tokenized between two progress reports."""

_ROLE_NAMES = {"user": "Human", "assistant": "Assistant", "system": "System"}
_DIALOGUE_HEADER = re.compile(r"\n\n[A-Z]\w*:\s*$")


@dataclass(frozen=True, slots=True)
class RenderedPair:
    """A pair as plain text. The full texts are prompt + chosen and prompt + rejected.

    header: the end of the prompt that asks for an answer, such as `\\n\\nAssistant:`; cutting never removes it.
    """

    id: str
    prompt: str
    chosen: str
    rejected: str
    header: str


@dataclass(frozen=True, slots=True)
class Tokenized:
    """What became of the pairs: those ready for training, and those dropped, with reasons."""

    pairs: list[TokenizedPair] = field(default_factory=list)
    rendered: list[RenderedPair] = field(default_factory=list)
    dropped: list[DroppedPair] = field(default_factory=list)


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
        if config.eos == "append" and tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no end-of-sequence token: set data.eos to `as-is`.")
        self.tokenizer = tokenizer
        self.config = config
        self.eos = tokenizer.eos_token_id
        self.terminators = terminators | ({self.eos} if self.eos is not None else set())
        with_specials = tokenizer("a").input_ids
        self.adds_bos = tokenizer.bos_token_id is not None and with_specials[:1] == [tokenizer.bos_token_id]

    def render(self, pair: PreferencePair) -> RenderedPair:
        """Applies the chat template where the pair is a chat; verbatim text stays as it is."""
        prompt, header = self.render_prompt(pair.prompt)
        if isinstance(pair.prompt, str):
            assert isinstance(pair.chosen, str) and isinstance(pair.rejected, str)
            return RenderedPair(pair.id, prompt, pair.chosen, pair.rejected, header)
        assert not isinstance(pair.chosen, str) and not isinstance(pair.rejected, str)
        chosen, rejected = (self._render_completion(prompt, pair.prompt, y) for y in (pair.chosen, pair.rejected))
        return RenderedPair(pair.id, prompt, chosen, rejected, header)

    def render_prompt(self, prompt: Text) -> tuple[str, str]:
        """The prompt's text and its header: what asks for an answer."""
        if isinstance(prompt, str):
            header = _DIALOGUE_HEADER.search(prompt)
            return prompt, header.group() if header else ""
        if self.tokenizer.chat_template is None:
            return _plain_dialogue(prompt) + "\n\nAssistant:", "\n\nAssistant:"
        text, before = (self._template(prompt, add_generation_prompt=asks) for asks in (True, False))
        return text, text[len(before) :] if text.startswith(before) else ""

    def _render_completion(self, prompt_text: str, prompt: tuple[Message, ...], completion: tuple[Message, ...]) -> str:
        if self.tokenizer.chat_template is None:
            return _plain_dialogue((*prompt, *completion)).removeprefix(prompt_text)
        full = self._template((*prompt, *completion), add_generation_prompt=False)
        if not full.startswith(prompt_text):
            raise ModelError(
                "the model's chat template writes a prompt differently once it is answered, so prompt and completion "
                "cannot be told apart. Give the data as text (prompt, chosen, rejected) in the model's own format."
            )
        return full[len(prompt_text) :]

    def _template(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        chat = [{"role": message.role, "content": message.content} for message in messages]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=add_generation_prompt)
        assert isinstance(text, str)
        return text

    def __call__(
        self, pairs: Sequence[PreferencePair], advance: Callable[[int], None] = lambda done: None
    ) -> Tokenized:
        """Tokenizes pairs; those that cannot be used are in the result's `dropped`, each with its reason."""
        result = Tokenized()
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            rendered = [self.render(pair) for pair in pairs[start : start + PAIRS_AT_ONCE]]
            texts = [pair.prompt + completion for pair in rendered for completion in (pair.chosen, pair.rejected)]
            encoded = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
            for index, pair in enumerate(rendered):
                sides = [
                    (encoded["input_ids"][side], encoded["offset_mapping"][side]) for side in (2 * index, 2 * index + 1)
                ]
                outcome = self._assemble(pair, sides)
                if isinstance(outcome, DroppedPair):
                    result.dropped.append(outcome)
                else:
                    result.pairs.append(outcome)
                    result.rendered.append(pair)
            advance(len(rendered))
        return result

    def encode_prompt(self, text: str, room: int | None = None) -> list[int]:
        """Token ids of a prompt to be answered: one BOS where the model wants one, cut from the left to fit.

        room: most tokens the model has for a prompt, besides the limits of the settings.
        """
        ids = self._with_bos(self.tokenizer(text, add_special_tokens=False).input_ids)
        limits = (self.config.max_prompt_length or self.config.max_length, room)
        excess = len(ids) - min(limit for limit in limits if limit is not None)
        keep = 1 if self._starts_with_bos(ids) else 0
        return ids[:keep] + ids[keep + excess :] if excess > 0 else ids

    def _assemble(
        self, pair: RenderedPair, sides: list[tuple[list[int], list[tuple[int, int]]]]
    ) -> TokenizedPair | DroppedPair:
        """Finds where scoring starts, ends each side, and cuts both prompts alike."""
        ids_of, starts, headers = [], [], []
        for ids, offsets in sides:
            # A token that reaches across the border holds text of the completion, so it is scored.
            start = next((i for i, (_, end) in enumerate(offsets) if end > len(pair.prompt)), len(ids))
            headers.append(sum(end > len(pair.prompt) - len(pair.header) for _, end in offsets[:start]))
            complete = self._with_bos(ids)
            starts.append(start + len(complete) - len(ids))
            ids_of.append(self._terminated(complete, starts[-1]))
        if any(len(ids) <= start for ids, start in zip(ids_of, starts, strict=True)):
            return DroppedPair(pair.id, "empty completion", "no token of the completion is left after tokenization")
        if ids_of[0] == ids_of[1]:
            return DroppedPair(pair.id, "identical completions", "both sides are the same tokens")
        if min(starts) == 0:
            return DroppedPair(
                pair.id, "empty prompt", "the model has no BOS token, so nothing predicts the first token"
            )
        keep = 1 if self._starts_with_bos(ids_of[0]) else 0
        # What may go of the prompt: all but BOS, its last header, and one token to predict the first scored one.
        room = min(start - keep - max(header, 1 - keep) for start, header in zip(starts, headers, strict=True))
        over_length = max(0, max(len(ids) for ids in ids_of) - self.config.max_length)
        limit = self.config.max_prompt_length or max(starts)
        over_prompt = max(0, max(starts) - limit)
        if over_length > room:
            longest = max(len(ids) - start for ids, start in zip(ids_of, starts, strict=True))
            return DroppedPair(
                pair.id,
                "completion too long",
                f"{longest} tokens with data.max_length {self.config.max_length} leave no room for the prompt's header",
            )
        if over_prompt > room:
            return DroppedPair(
                pair.id,
                "header too long",
                f"data.max_prompt_length {limit} is too short for the prompt's last header, which is never cut: "
                f"set it to {limit + over_prompt - room} at least",
            )
        cut = max(over_length, over_prompt)
        chosen, rejected = (
            TokenizedSequence(np.array(ids[:keep] + ids[keep + cut :], dtype=np.int32), start - cut)
            for ids, start in zip(ids_of, starts, strict=True)
        )
        return TokenizedPair(pair.id, chosen, rejected, prompt_tokens_cut=cut)

    def _with_bos(self, ids: list[int]) -> list[int]:
        if self.adds_bos and not self._starts_with_bos(ids):
            return [self.tokenizer.bos_token_id, *ids]
        return list(ids)

    def _starts_with_bos(self, ids: list[int]) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and bool(ids) and ids[0] == bos

    def _is_space(self, token: int) -> bool:
        return not str(self.tokenizer.decode([token])).strip()

    def _terminated(self, ids: list[int], start: int) -> list[int]:
        """Ends a sequence with exactly one end-of-sequence token, as the policy says."""
        if self.config.eos == "as-is":
            return ids
        # Chat templates put white space after the end-of-turn token; nothing is generated after that token.
        end = len(ids)
        while end > start and (ids[end - 1] in self.terminators or self._is_space(ids[end - 1])):
            end -= 1
        first = next((i for i in range(end, len(ids)) if ids[i] in self.terminators), None)
        if first is not None:
            return ids[: first + 1]
        return [*ids, self.eos] if len(ids) > start else ids


def check_limits(data: DataConfig, comparison: ComparisonConfig, positions: int | None) -> None:
    """Refuses lengths beyond the positions the model knows.

    Raises:
        ConfigError: with the largest value that works.
    """
    if positions is None:
        return
    if data.max_length > positions:
        raise ConfigError(f"data.max_length is {data.max_length}, but the model knows {positions} positions at most.")
    if comparison.max_new_tokens >= positions:
        raise ConfigError(
            f"comparison.max_new_tokens is {comparison.max_new_tokens}, but the model knows {positions} positions, and "
            "the prompt needs some of them."
        )


def _plain_dialogue(messages: Sequence[Message]) -> str:
    """Turns in the style of Anthropic's HH data, for models without a chat template."""
    return "".join(f"\n\n{_ROLE_NAMES.get(m.role, m.role.capitalize())}: {m.content}" for m in messages)
