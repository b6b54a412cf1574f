"""A pair in plain Python, to work losses out by hand and without tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from scored_examples import losses, pairs

from tiltlm.objectives.interface import Objective


@dataclass(frozen=True)
class Pair:
    """Summed log-probabilities, in nats, of a chosen and a rejected answer under policy and reference; their tokens."""

    chosen: float
    rejected: float
    reference_chosen: float
    reference_rejected: float
    tokens: tuple[int, int] = (1, 1)

    @property
    def up(self) -> float:
        """The chosen answer's log-ratio."""
        return self.chosen - self.reference_chosen

    @property
    def down(self) -> float:
        """The rejected answer's log-ratio."""
        return self.rejected - self.reference_rejected

    @property
    def h(self) -> float:
        """The log-ratio margin."""
        return self.up - self.down


BY_HAND = Pair(-10, -30, -12, -25, tokens=(4, 10))
"""Log-ratios 2 and -5, h = 7; per token 0.5, -0.5, and log-probabilities -2.5 and -3."""

AT_REFERENCE = Pair(-6, -9, -6, -9, tokens=(2, 3))
"""Policy and reference agree; both answers have -3 nats a token."""

_logps, _tokens = st.floats(-200, 0), st.integers(1, 50)
any_pair = st.builds(Pair, _logps, _logps, _logps, _logps, st.tuples(_tokens, _tokens))


def ell(x: float) -> float:
    """-log sigmoid(x)."""
    return math.log1p(math.exp(-abs(x))) + max(-x, 0)


def sigma(x: float) -> float:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def loss_of(objective: Objective, pair: Pair, **settings: Any) -> float:
    """The objective's loss of the pair alone; without a reference it is not shown one."""
    blank = math.nan
    given = pairs(
        [pair.chosen],
        [pair.rejected],
        [pair.reference_chosen if objective.needs.reference else blank],
        [pair.reference_rejected if objective.needs.reference else blank],
        tokens=pair.tokens,
    )
    (value,) = losses(objective, given, **settings)
    return value


def rewards_of(objective: Objective, pair: Pair, **settings: Any) -> list[float]:
    """The rewards that the objective reports of the pair, chosen and rejected."""
    given = pairs(
        [pair.chosen], [pair.rejected], [pair.reference_chosen], [pair.reference_rejected], tokens=pair.tokens
    )
    rewards: list[float] = objective.loss(given, objective.settings(**settings)).rewards_N.tolist()
    return rewards
