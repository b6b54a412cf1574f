"""A reference that follows the policy: its weights move towards the policy's as training goes on."""

from __future__ import annotations

import torch

from tiltlm.distributed.sharding import closed
from tiltlm.distributed.shares import own_part
from tiltlm.errors import ModelError
from tiltlm.model.scorer import Scorer
from tiltlm.objectives.interface import ReferenceUpdate


@torch.no_grad()
def move(reference: Scorer, policy: Scorer, update: ReferenceUpdate) -> None:
    """Brings the reference's weights nearer to the policy's, in place: weight * policy + (1 - weight) * reference.

    (arXiv 2404.09656, section 3.) Both are the float32 weights that are trained, dither included where there is some:
    it is the same number in both, so it stays what it is. Both are shared out over ranks alike, or neither is.
    """
    with closed(reference):
        for one, other in zip(reference.parameters(), policy.parameters(), strict=True):
            (own, _), (theirs, _) = own_part(one), own_part(other)
            if update.weight == 1:
                own.copy_(theirs)
            else:
                own.lerp_(theirs.to(own.dtype), update.weight)


def require_alike(reference: Scorer, policy: Scorer) -> None:
    """Refuses a reference that cannot follow the policy.

    Raises:
        ModelError: it has other weights, by name or shape.
    """
    own, theirs = (
        {name: tuple(weights.shape) for name, weights in one.model.named_parameters()} for one in (reference, policy)
    )
    if own != theirs:
        other = next(name for name in {**own, **theirs} if own.get(name) != theirs.get(name))
        raise ModelError(
            "a reference that moves takes on the model's weights, but the two are built differently ("
            f"{other}: {own.get(other, 'not there')} in the reference, {theirs.get(other, 'not there')} in the model"
            "): leave model.reference out, or name one of the same architecture."
        )
