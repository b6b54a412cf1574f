"""What was cut to fit: of how many texts, and how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tiltlm.config import DataConfig
from tiltlm.data.quality.findings import Names, counted, finding, share_of, verb
from tiltlm.data.quality.parts import Part, label_name
from tiltlm.data.tokens.token_columns import TokenColumns, bounds_of
from tiltlm.objectives.interface import CHOSEN, REJECTED
from tiltlm.runs.data_account import DataFinding, FoundRow, Truncation

MANY_CUT = 0.05
"""Share of a part's texts that are cut from which on it should be looked at."""
_FEW_CUT = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class _Lost:
    """Tokens of each text of a part before cutting, how many it lost, and the number of its example."""

    part: str
    tokens: np.ndarray
    lost: np.ndarray
    example: np.ndarray

    def figures(self) -> Truncation:
        return Truncation(
            part=self.part,
            texts=len(self.lost),
            cut=int(np.count_nonzero(self.lost)),
            tokens=int(self.tokens.sum()),
            tokens_cut=int(self.lost.sum()),
            most_cut=int(self.lost.max(initial=0)),
        )


def truncation(
    parts: Sequence[Part], name: Names, config: DataConfig
) -> tuple[tuple[Truncation, ...], list[DataFinding]]:
    """The figures of prompts, chosen and rejected completions, and the finding."""
    columns = [part.columns for part in parts]
    lost = [_prompts(columns), *(_completions(columns, label) for label in (CHOSEN, REJECTED))]
    figures = tuple(one.figures() for one in lost)
    examples = sum(map(len, columns))
    cut = [one for one in figures if one.cut]
    concerned = np.unique(np.concatenate([one.example[one.lost > 0] for one in lost]))
    told = "; ".join(_told(one) for one in cut) or "No prompt and no completion is cut to fit"
    found = finding(
        "truncation",
        len(concerned),
        examples,
        f"{told}.",
        _rows(lost, name),
        advice=_advice(columns, figures, config),
        look=any(one.cut >= MANY_CUT * one.texts for one in cut),
    )
    return figures, [found]


def _told(one: Truncation) -> str:
    loses, share = verb(one.cut, "loses", "lose"), share_of(one.tokens_cut, one.tokens)
    return (
        f"{one.cut:,} of {counted(one.texts, _word(one.part))} ({share_of(one.cut, one.texts)}) {loses} "
        f"{counted(one.tokens_cut, 'token')}, {share} of all, at most {one.most_cut:,} each"
    )


def _prompts(columns: Sequence[TokenColumns]) -> _Lost:
    lost = np.concatenate([part.prompt_tokens_cut for part in columns]).astype(np.int64)
    kept = np.concatenate([part.first_scored[part.members[:-1]] for part in columns])
    return _Lost("prompt", kept + lost, lost, np.arange(len(lost)))


def _completions(columns: Sequence[TokenColumns], label: int) -> _Lost:
    lost = np.concatenate([part.tokens_cut[part.labels == label] for part in columns]).astype(np.int64)
    kept = np.concatenate([part.scored_tokens[part.labels == label] for part in columns])
    examples = np.repeat(np.arange(sum(map(len, columns))), np.concatenate([np.diff(part.members) for part in columns]))
    labels = np.concatenate([part.labels for part in columns])
    return _Lost(label_name(label), kept + lost, lost, examples[labels == label])


def _word(part: str) -> str:
    return part if part == "prompt" else f"{part} completion"


def _rows(lost: Sequence[_Lost], name: Names) -> Iterator[FoundRow]:
    """Every text that is cut, those that lost most first."""
    all_lost = np.concatenate([one.lost for one in lost])
    starts = bounds_of([len(one.lost) for one in lost])
    for number in np.argsort(-all_lost, kind="stable")[: np.count_nonzero(all_lost)]:
        part = int(np.searchsorted(starts, number, side="right")) - 1
        one, place = lost[part], number - starts[part]
        yield FoundRow(
            (name(int(one.example[place])),),
            f"{_word(one.part)} lost {one.lost[place]:,} of {counted(int(one.tokens[place]), 'token')}",
        )


def _advice(columns: Sequence[TokenColumns], figures: Sequence[Truncation], config: DataConfig) -> str:
    """What is cut where, and the lengths that would cut none, or few."""
    prompts, *completions = (one.cut for one in figures)
    ways = []
    if prompts:
        ways.append("Prompts lose their beginning, often the instruction.")
    if any(completions):
        ways.append("Completions lose their end, and have no end-of-sequence token.")
    lengths = np.sort(np.concatenate([_longest(part) for part in columns]))
    # The shortest limit that at most so many exceed.
    most = int(lengths[len(lengths) - 1 - int(_FEW_CUT * len(lengths))])
    limit = config.max_prompt_length
    also = f" and data.max_prompt_length ({limit}) raised or unset" if limit is not None and prompts else ""
    few = f", with {most} at most {_FEW_CUT:.0%}" if config.max_length < most < lengths[-1] else ""
    needed = max(int(lengths[-1]), config.max_length)
    ways.append(
        f"With data.max_length {needed}{also} (it is {config.max_length}) none of those used would be cut{few}."
    )
    return " ".join(ways)


def _longest(columns: TokenColumns) -> np.ndarray:
    """Tokens of each example's longest sequence, with all that was cut of it."""
    if not len(columns):
        return np.empty(0, dtype=np.int64)
    whole = np.maximum.reduceat(np.diff(columns.bounds) + columns.tokens_cut, columns.members[:-1])
    longest: np.ndarray = whole + columns.prompt_tokens_cut
    return longest
