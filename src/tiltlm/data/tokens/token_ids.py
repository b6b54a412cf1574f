"""Text to token ids: one tokenization of the full text, BOS, EOS, and where scoring starts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from transformers import PreTrainedTokenizerFast

from tiltlm.data.examples import contradictory
from tiltlm.data.formats.fields import RowError
from tiltlm.data.tokens.rendering import RenderedExample
from tiltlm.errors import ModelError

Encoded = tuple[list[int], list[tuple[int, int]]]
"""Token ids, and the characters that each stands for."""


@dataclass(frozen=True, slots=True)
class Uncut:
    """The sequences of an example before anything is cut.

    starts: where scoring starts. headers: tokens of the prompt's header. bos: 1 where the sequences begin with BOS.
    """

    ids: tuple[list[int], ...]
    starts: tuple[int, ...]
    headers: tuple[int, ...]
    bos: int

    def longest(self) -> int:
        return max(map(len, self.ids))

    def longest_completion(self) -> int:
        return max(len(ids) - start for ids, start in zip(self.ids, self.starts, strict=True))


class Encoder:
    """Tokenizes for one model.

    Args:
        tokenizer: a fast tokenizer.
        appends_eos: whether every completion ends with exactly one end-of-sequence token.
        terminators: token ids that end an answer besides the tokenizer's own EOS (a chat model's end of turn).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, appends_eos: bool, terminators: frozenset[int]) -> None:
        if appends_eos and tokenizer.eos_token_id is None:
            raise ModelError(
                f"the tokenizer of `{tokenizer.name_or_path}` has no end-of-sequence token, and every completion "
                "should end with one (data.eos append). Name it as eos_token in the model's tokenizer_config.json, or "
                "train without: --data.eos as-is."
            )
        self.tokenizer = tokenizer
        self._appends_eos = appends_eos
        self._eos = tokenizer.eos_token_id
        self._spaces: dict[int, bool] = {}
        self.terminators = terminators | ({self._eos} if self._eos is not None else set())
        with_specials = tokenizer("a").input_ids
        self.adds_bos = tokenizer.bos_token_id is not None and with_specials[:1] == [tokenizer.bos_token_id]

    def prompt(self, text: str) -> list[int]:
        """Token ids of a text to go on from: one BOS where the model wants one."""
        return self._with_bos(self.tokenizer(text, add_special_tokens=False).input_ids)

    def encode(self, texts: list[str]) -> list[Encoded]:
        """Tokens of each text as it stands; all in one call, which is much faster than one by one."""
        encoded = self.tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))

    def uncut(self, example: RenderedExample, encoded: Sequence[Encoded]) -> Uncut:
        """Finds where scoring starts, and ends each sequence whose answer ended.

        encoded: of each full text.

        Raises:
            RowError: nothing is left of a completion, two of different labels are the same, or nothing precedes the
                first scored token.
        """
        ids_of, starts, headers = [], [], []
        for (ids, offsets), ended in zip(encoded, example.source.endings, strict=True):
            # A token that reaches across the border holds text of the completion, so it is scored.
            start = _tokens_within(offsets, len(example.prompt))
            headers.append(start - _tokens_within(offsets, len(example.prompt) - len(example.header)))
            complete = self._with_bos(ids)
            starts.append(start + len(complete) - len(ids))
            ids_of.append(self._terminated(complete, starts[-1]) if ended else complete)
        if any(len(ids) <= start for ids, start in zip(ids_of, starts, strict=True)):
            raise RowError("empty completion", "no token of the completion is left after tokenization")
        if contradictory(ids_of, example.source.labels):
            raise RowError("identical completions", "both sides are the same tokens")
        if min(starts) == 0:
            raise RowError("empty prompt", "the model has no BOS token, so nothing predicts the first token")
        bos = 1 if self.starts_with_bos(ids_of[0]) else 0
        return Uncut(tuple(ids_of), tuple(starts), tuple(headers), bos)

    def _with_bos(self, ids: list[int]) -> list[int]:
        if self.adds_bos and not self.starts_with_bos(ids):
            return [self.tokenizer.bos_token_id, *ids]
        return list(ids)

    def starts_with_bos(self, ids: list[int]) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and bool(ids) and ids[0] == bos

    def _is_space(self, token: int) -> bool:
        known = self._spaces.get(token)
        if known is None:  # few tokens end an answer, and each is asked for as often
            known = self._spaces[token] = not str(self.tokenizer.decode([token])).strip()
        return known

    def _terminated(self, ids: list[int], start: int) -> list[int]:
        """Ends a sequence with exactly one end-of-sequence token, as the policy says."""
        if not self._appends_eos:
            return ids
        # Chat templates put white space after the end-of-turn token; nothing is generated after that token.
        end = len(ids)
        while end > start and (ids[end - 1] in self.terminators or self._is_space(ids[end - 1])):
            end -= 1
        first = next((i for i in range(end, len(ids)) if ids[i] in self.terminators), None)
        if first is not None:
            return ids[: first + 1]
        return [*ids, self._eos] if len(ids) > start else ids


def _tokens_within(offsets: Sequence[tuple[int, int]], characters: int) -> int:
    """How many tokens stand before the first that reaches beyond so many characters. Later ones never end earlier."""
    return bisect_right(offsets, characters, key=_end)


_end = itemgetter(1)


def full_texts(example: RenderedExample) -> list[str]:
    """The prompt with each completion."""
    return [example.prompt + completion for completion in example.completions]
