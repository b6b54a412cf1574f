"""Supervised fine-tuning: imitation of answers, for its own sake or before preferences are learnt."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored


@dataclass(frozen=True, config=SETTINGS)
class SftSettings:
    """What `sft` may be given."""

    average: Literal["token", "sequence"] = "token"
    """What counts alike: every `token` of the batch's answers, so that a long answer counts more than a short one, or
    every answer (`sequence`), each with the mean of its tokens."""


def sft(scored: Scored, settings: SftSettings) -> LossOutput:
    """SFT: the negative log-likelihood of answers to imitate; their prompts are not learnt.

        loss = -log pi(y|x) / m

    with m the mean number of tokens of the batch's answers (`average` token), so that the mean over the batch is that
    over all of its answers' tokens, whatever the micro-batches; or m = |y| (`average` sequence). (L. Ouyang et al.,
    arXiv 2203.02155, section 3.5; the preferred answers' likelihood before DPO: arXiv 2305.18290, section 6.) Both
    count the end-of-sequence token. Peers: the trainers of Hugging Face's libraries average over tokens, some of them
    over the tokens of one micro-batch, which gives answers in small micro-batches more weight.

    Units: nats per token. At the start it has no value of its own: exp(loss) is the perplexity of the answers.
    Rewards: none; log pi(y|x) stands in their place, and no figure is made of it.
    """
    if settings.average == "sequence":
        losses_U = -scored.logps_N / scored.tokens_N
    else:
        assert scored.tokens_per_unit is not None
        losses_U = -scored.logps_N / scored.tokens_per_unit
    return LossOutput(losses_U, scored.logps_N.detach())


SFT = Objective(
    name="sft",
    loss=sft,
    settings=SftSettings,
    needs=Needs(unit="demonstration", reference=False, counts=True),
    what="SFT: imitates answers; for a model that does not answer yet, before preferences are learnt.",
    aliases=("nll", "supervised", "imitation"),
)
