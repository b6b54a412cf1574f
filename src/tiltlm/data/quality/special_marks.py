"""Special tokens that stand within the data's own texts, where the tokenizer reads them as marks, not as letters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from tiltlm.data.examples import Example
from tiltlm.data.quality.findings import LISTED_ROWS, MANY, Names, excerpt, finding, of_all, verb
from tiltlm.data.quality.parts import named_texts
from tiltlm.runs.data_account import DataFinding, FoundRow

_MOSTLY = 0.5
"""Share of the examples from which on marks in prompts given as text are taken for a chat template's, written there."""


def special_marks(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast, name: Names, noun: str
) -> tuple[dict[str, int], list[DataFinding]]:
    """In how many examples each special token is, and the finding.

    BOS where a prompt given as text begins, and EOS where a completion ends, are in their place and not counted.
    """
    special = sorted({token for token in tokenizer.all_special_tokens if token}, key=len, reverse=True)
    if not special or not examples:
        return {}, []
    look = re.compile("|".join(map(re.escape, special)))
    counts: Counter[str] = Counter()
    rows: list[FoundRow] = []
    holding = in_prompts_alone = 0
    for number, example in enumerate(examples):
        where: dict[str, str] = {}
        parts = set()
        for part, text in named_texts(example):
            for match in look.finditer(_without_own(text, part, tokenizer)):
                where.setdefault(match[0], f"{part}: {excerpt(match.string, *match.span())}")
                parts.add(part)
        if where:
            counts.update(where.keys())
            holding += 1
            if len(rows) < LISTED_ROWS:
                shown = "; ".join(f"{token} in {place}" for token, place in where.items())
                rows.append(FoundRow((name(number),), shown))
            in_prompts_alone += parts == {"prompt"} and isinstance(example.prompt, str)
    listed = ", ".join(f"{token} in {count:,}" for token, count in counts.most_common())
    written = in_prompts_alone >= _MOSTLY * len(examples)
    sentence = f"{of_all(holding, len(examples), noun)} {verb(holding, 'holds', 'hold')} special tokens in the text"
    sentence += f": {listed}." if rows else "."
    if written:
        sentence += " Most prompts hold them: a chat template seems to be written there."
    found = finding(
        "special tokens in text",
        holding,
        len(examples),
        sentence,
        rows,
        advice="They are read as marks, as if the template had written them: a text can end a turn or begin another. "
        "Take them out of texts that only speak of them.",
        look=holding > 0 and (holding - (in_prompts_alone if written else 0)) >= MANY * len(examples),
    )
    return dict(counts.most_common()), [found]


def _without_own(text: str, part: str, tokenizer: PreTrainedTokenizerFast) -> str:
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    if part == "prompt":
        return text.removeprefix(bos) if bos else text
    return text.rstrip().removesuffix(eos) if eos else text
