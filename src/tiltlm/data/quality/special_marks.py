"""Special tokens that stand within the data's own texts, where the tokenizer reads them as marks, not as letters."""

from __future__ import annotations

import re
from collections import Counter

from transformers import PreTrainedTokenizerFast

from tiltlm.data.examples import Example
from tiltlm.data.quality.findings import LISTED_ROWS, MANY, excerpt, finding, of_all, verb
from tiltlm.data.quality.parts import named_texts
from tiltlm.runs.data_account import DataFinding, FoundRow

_MOSTLY = 0.5
"""Share of the examples from which on marks in prompts given as text are taken for a chat template's, written there."""


class SpecialMarks:
    """Looks for them, one example after another.

    BOS where a prompt given as text begins, and EOS where a completion ends, are in their place and not counted.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        special = sorted({token for token in tokenizer.all_special_tokens if token}, key=len, reverse=True)
        self._look = re.compile("|".join(map(re.escape, special))) if special else None
        self._tokenizer = tokenizer
        self._counts: Counter[str] = Counter()
        self._rows: list[FoundRow] = []
        self._examples = self._holding = self._in_prompts_alone = 0

    def see(self, example: Example) -> None:
        """Takes in an example."""
        self._examples += 1
        if self._look is None:
            return
        where: dict[str, str] = {}
        parts = set()
        for part, text in named_texts(example):
            for match in self._look.finditer(_without_own(text, part, self._tokenizer)):
                where.setdefault(match[0], f"{part}: {excerpt(match.string, *match.span())}")
                parts.add(part)
        if where:
            self._counts.update(where.keys())
            self._holding += 1
            if len(self._rows) < LISTED_ROWS:
                shown = "; ".join(f"{token} in {place}" for token, place in where.items())
                self._rows.append(FoundRow((example.id,), shown))
            self._in_prompts_alone += parts == {"prompt"} and isinstance(example.prompt, str)

    def found(self, noun: str) -> tuple[dict[str, int], list[DataFinding]]:
        """In how many examples each special token is, and the finding."""
        many, of = self._holding, self._examples
        if self._look is None or not of:
            return {}, []
        listed = ", ".join(f"{token} in {count:,}" for token, count in self._counts.most_common())
        written = self._in_prompts_alone >= _MOSTLY * of
        sentence = f"{of_all(many, of, noun)} {verb(many, 'holds', 'hold')} special tokens in the text"
        sentence += f": {listed}." if self._rows else "."
        if written:
            sentence += " Most prompts hold them: a chat template seems to be written there."
        found = finding(
            "special tokens in text",
            many,
            of,
            sentence,
            self._rows,
            advice="They are read as marks, as if the template had written them: a text can end a turn or begin "
            "another. Take them out of texts that only speak of them.",
            look=many > 0 and (many - (self._in_prompts_alone if written else 0)) >= MANY * of,
        )
        return dict(self._counts.most_common()), [found]


def _without_own(text: str, part: str, tokenizer: PreTrainedTokenizerFast) -> str:
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    if part == "prompt":
        return text.removeprefix(bos) if bos else text
    return text.rstrip().removesuffix(eos) if eos else text
