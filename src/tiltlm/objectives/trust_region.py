"""Trust-region objectives: others of the field, with a reference that follows the policy (arXiv 2404.09656).

Which loss is taken and whether the reference moves are two choices, so these are made of the others' declarations:

    reference <- alpha * policy + (1 - alpha) * reference,    in the weights, after every tau (`update_every`) steps

The paper has it softly, alpha below 1 after every step, or hard, alpha 1 after many. The authors' code
(https://github.com/turbo-llm/turbo-alignment, `SyncRefModelCallback`) and TRL take both numbers freely, as here.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.dpo import SigmoidSettings, sigmoid
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, ReferenceUpdate, Scored
from tiltlm.objectives.ipo import IPO, IpoSettings, ipo
from tiltlm.objectives.kto import KTO, KtoSettings, kto


@dataclass(frozen=True, config=SETTINGS)
class FollowingSettings:
    """How a reference follows the policy."""

    alpha: Annotated[float, Field(gt=0, le=1)] = 0.6
    """How far the reference's weights go towards the policy's when they move. 1: they become the policy's."""
    update_every: Annotated[int, Field(ge=1)] = 1
    """After how many optimizer steps the reference moves. Whole copies (alpha 1) want many: the authors take 512."""


def with_following(settings: type, name: str) -> type:
    """The settings of another objective with those of `FollowingSettings` besides, as one dataclass of this name."""
    fields = {**settings.__pydantic_fields__, **FollowingSettings.__pydantic_fields__}  # type: ignore[attr-defined]
    members = {
        "__doc__": f"{settings.__doc__} And how the reference follows.",
        "__module__": __name__,
        "__annotations__": {
            option: Annotated[field.annotation, *field.metadata, Field(description=field.description)]
            for option, field in fields.items()
        },
        **{option: field.default for option, field in fields.items()},
    }
    return dataclass(frozen=True, config={**SETTINGS, "use_attribute_docstrings": False})(type(name, (), members))


def tr_dpo(scored: Scored, settings: Any) -> LossOutput:
    """TR-DPO: DPO against a reference that follows the policy, so that no pair is ever done with.

        loss = -log sigmoid(beta * h)    as `sigmoid`, label smoothing included

    (arXiv 2404.09656, section 3). h is taken against the reference as it is in that step.

    Units: nats per pair. At the start, and whenever the reference has just been copied, it is ln 2.
    Rewards: the implicit ones, beta * (log pi - log pi_ref); in evaluation against the first reference.
    """
    return sigmoid(scored, settings)


def tr_ipo(scored: Scored, settings: Any) -> LossOutput:
    """TR-IPO: IPO against a reference that follows the policy.

        loss = (h_mean - 1 / (2 * beta))^2    as `ipo`

    (arXiv 2404.09656, section 3). h_mean is taken against the reference as it is in that step.

    Units: nats^2 per pair. At the start, and whenever the reference has just been copied, it is 1 / (4 * beta^2).
    Rewards: beta * (log pi - log pi_ref) of whole completions; in evaluation against the first reference.
    """
    return ipo(scored, settings)


def tr_kto(scored: Scored, settings: Any) -> LossOutput:
    """TR-KTO: KTO against a reference that follows the policy.

        loss = lambda * (1 - sigmoid(+-beta * (q - z)))    as `kto`

    (arXiv 2404.09656, section 3). q and z are taken against the reference as it is in that step.

    Units: none; between 0 and the weight, per completion. At the start it is half the weight.
    Rewards: the implicit ones, beta * (log pi - log pi_ref); in evaluation against the first reference.
    """
    return kto(scored, settings)


def following(settings: Any) -> ReferenceUpdate:
    """How the reference moves under settings that have `FollowingSettings`."""
    return ReferenceUpdate(weight=settings.alpha, every=settings.update_every)


TR_DPO = Objective(
    name="tr_dpo",
    loss=tr_dpo,
    settings=with_following(SigmoidSettings, "TrDpoSettings"),
    needs=Needs(),
    what="TR-DPO: DPO whose reference follows the policy; to go far from the first one without falling apart.",
    moves=following,
)

TR_IPO = Objective(
    name="tr_ipo",
    loss=tr_ipo,
    settings=with_following(IpoSettings, "TrIpoSettings"),
    needs=IPO.needs,
    what="TR-IPO: IPO whose reference follows the policy; as `tr_dpo`, for labels without noise.",
    moves=following,
)

TR_KTO = Objective(
    name="tr_kto",
    loss=tr_kto,
    settings=with_following(KtoSettings, "TrKtoSettings"),
    needs=KTO.needs,
    what="TR-KTO: KTO whose reference follows the policy; as `tr_dpo`, where there are no pairs.",
    moves=following,
)
