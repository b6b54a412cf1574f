"""How far the number of tokens alone tells which completion is preferred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiltlm.data.quality.findings import counted, finding, share_of
from tiltlm.data.quality.parts import Part
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED
from tiltlm.runs.data_account import DataFinding, FoundRow, LengthBias
from tiltlm.runs.estimates import Estimate
from tiltlm.statistics import effective_number, wilson_interval

TELLING = 0.6
"""Held-out accuracy of length alone from which on it should be looked at, where its interval lies above one half."""
_LISTED = 20


def length_bias(train: Part, held_out: Part) -> tuple[LengthBias | None, list[DataFinding]]:
    """The figures and the finding; nothing where there are no pairs to train on.

    Lengths are tokens as they are scored: after cutting, with the end-of-sequence token. Pairs of one prompt may
    depend on each other, so intervals are Wilson's with the effective number of pairs.
    """
    if not len(train.columns) or not (train.columns.all_pairs and held_out.columns.all_pairs):
        return None, []
    parts = (train, held_out)
    differences = [_differences(part) for part in parts]
    longer = [_longer(difference, part.prompts) for difference, part in zip(differences, parts, strict=True)]
    sign = 1 if longer[0] is None or longer[0].mean >= 0.5 else -1
    bias = LengthBias(
        train_longer=longer[0],
        held_out_longer=longer[1],
        train_equal=int(np.count_nonzero(differences[0] == 0)),
        held_out_equal=int(np.count_nonzero(differences[1] == 0)),
        prefers="longer" if sign == 1 else "shorter",
        accuracy=_share(_right(sign * differences[1]), held_out.prompts),
    )
    return bias, [_finding(bias, differences, parts)]


def _differences(part: Part) -> np.ndarray:
    """By how many tokens each pair's chosen completion is the longer one."""
    columns = part.columns
    scored = columns.scored_tokens[columns.labels != MISMATCHED].reshape(-1, 2)
    differences: np.ndarray = scored[:, 0].astype(np.int64) - scored[:, 1]
    return differences


def _right(differences: np.ndarray) -> np.ndarray:
    """1 where the sign is right, half where lengths are equal, else 0."""
    right: np.ndarray = (np.sign(differences) + 1) / 2
    return right


def _longer(differences: np.ndarray, prompts: np.ndarray) -> Estimate | None:
    unequal = differences != 0
    return _share(_right(differences[unequal]), prompts[unequal])


def _share(values: np.ndarray, clusters: np.ndarray) -> Estimate | None:
    if not len(values):
        return None
    mean, worth = float(np.mean(values)), effective_number(clusters)
    return Estimate(mean, wilson_interval(mean * worth, worth))


def _finding(bias: LengthBias, differences: Sequence[np.ndarray], parts: tuple[Part, Part]) -> DataFinding:
    train = differences[0]
    unequal = len(train) - bias.train_equal
    if bias.train_longer is None:
        sentence = "The two completions are equally long in all training pairs."
    else:
        equal = f" ({counted(bias.train_equal, 'pair')} of equal length aside)" if bias.train_equal else ""
        sentence = (
            f"The longer completion is the chosen one in {_estimate(bias.train_longer)} of training pairs{equal}."
        )
    told = bias.accuracy is not None and bias.accuracy.interval is not None and bias.accuracy.interval[0] > 0.5
    if bias.accuracy is not None and bias.train_longer is not None:
        verdict = "" if told else ", which is not shown to differ from chance"
        sentence += (
            f" Taking the {bias.prefers} one, by length alone, is right in {_estimate(bias.accuracy)} of held-out pairs"
            f"{verdict}."
        )
    preferred = int(np.count_nonzero(train > 0 if bias.prefers == "longer" else train < 0))
    return finding(
        "length bias",
        preferred,
        unequal,
        sentence,
        _most_unequal(differences, parts),
        advice=f"A model can win by answering {bias.prefers}: watch the lengths of its answers, and compare its "
        "held-out accuracy with that of length. Pairs of like length weigh it less."
        if told
        else None,
        look=told and bias.accuracy is not None and bias.accuracy.mean >= TELLING,
    )


def _estimate(estimate: Estimate) -> str:
    low, high = estimate.interval or (0.0, 1.0)
    return f"{share_of(estimate.mean, 1)} (95% interval {100 * low:.0f} to {100 * high:.0f}%)"


def _most_unequal(differences: Sequence[np.ndarray], parts: tuple[Part, Part]) -> list[FoundRow]:
    """The pairs whose completions differ most in length."""
    both = np.abs(np.concatenate(differences))
    names, further = (part.columns.names for part in parts)
    scored = [
        part.columns.scored_tokens[part.columns.labels == label] for label in (CHOSEN, REJECTED) for part in parts
    ]
    chosen, rejected = np.concatenate(scored[:2]), np.concatenate(scored[2:])
    most = [number for number in np.argsort(-both, kind="stable")[:_LISTED].tolist() if both[number]]
    return [
        FoundRow(
            (names[number] if number < len(names) else further[number - len(names)],),
            f"chosen {counted(int(chosen[number]), 'token')}, rejected {rejected[number]:,}",
        )
        for number in most
    ]
