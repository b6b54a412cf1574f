"""An objective of one's own: the squared hinge loss on DPO's margin.

This file is all there is to an objective. Copied to `src/tiltlm/objectives/squared_hinge.py` it is one of tiltlm's:
found by itself, with `--loss.name squared_hinge` and settings, help and errors of its own. Here it is called on two
pairs:

    python examples/own_objective.py
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import (
    CHOSEN,
    REJECTED,
    SETTINGS,
    LossOutput,
    Needs,
    Objective,
    Scored,
    sides,
)


@dataclass(frozen=True, config=SETTINGS)
class SquaredHingeSettings:
    """What `squared_hinge` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Reward per nat of log-ratio: a pair is done once its margin is 1/beta nats."""


def squared_hinge(scored: Scored, settings: SquaredHingeSettings) -> LossOutput:
    """The squared hinge of the margin: nothing is left to learn from a pair once its rewards are 1 apart.

        loss = max(0, 1 - beta * (h_chosen - h_rejected))^2,   h = log pi(y|x) - log pi_ref(y|x)

    (arXiv 2402.05749, the truncated quadratic loss.)

    Units: none, per pair. At the start, where policy and reference agree, it is 1. Rewards: beta * h.
    """
    rewards_N = settings.beta * scored.log_ratios()
    chosen_P, rejected_P = sides(rewards_N)
    return LossOutput((1 - (chosen_P - rejected_P)).clamp(min=0).square(), rewards_N.detach())


SQUARED_HINGE = Objective(
    name="squared_hinge",
    loss=squared_hinge,
    settings=SquaredHingeSettings,
    needs=Needs(),  # pairs, and a reference
    what="Squared hinge: pairs told apart by 1 teach no more, those far off most; for data in part learned early.",
)


if __name__ == "__main__":
    import torch  # not above: settings are read and explained without it

    pairs = Scored(
        logps_N=torch.tensor([-10.0, -30.0, -8.0, -9.0]),  # chosen, rejected, chosen, rejected
        tokens_N=torch.tensor([4, 10, 3, 3]),
        labels_N=torch.tensor([CHOSEN, REJECTED] * 2, dtype=torch.int8),
        reference_logps_N=torch.tensor([-12.0, -20.0, -8.0, -9.0]),
    )
    output = SQUARED_HINGE.loss(pairs, SquaredHingeSettings(beta=0.05))
    print("losses ", [round(loss, 4) for loss in output.losses_U.tolist()])
    print("rewards", [round(reward, 4) for reward in output.rewards_N.tolist()])
