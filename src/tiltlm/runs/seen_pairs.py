"""What the saved model makes of pairs that it was trained on, beside the held-out ones of `evaluation.json`."""

from __future__ import annotations

from dataclasses import dataclass

from tiltlm.runs.estimates import Estimate
from tiltlm.runs.pair_origins import PairWeights


@dataclass(frozen=True, slots=True)
class SeenPair:
    """A training pair.

    prompt: the same number for pairs of one prompt. margin: of its rewards, in the objective's units.
    """

    id: str
    prompt: int
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPairs:
    """A sample of the training pairs, scored as the held-out ones are: by the saved model, in float32.

    margin: mean reward margin. growth: that less the margin before training, which is zero where policy and reference
        were one. gap: by how much it grew more than that of the held-out pairs; the same weights give both.
    loss_change: mean loss less that before training.
    weights: what the pairs still count for under the saved model; None in files that did not record it.
    """

    pairs: tuple[SeenPair, ...]
    margin: Estimate
    growth: Estimate
    gap: Estimate
    loss_change: Estimate
    weights: PairWeights | None = None
