"""What imdb_frontier.py trains, and how much of everything: one table, to be changed by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

LEARNING_RATE, BATCH = 2e-5, 16
"""Of every training, as in tiltlm's demo; `training` of a setting says otherwise."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A training, made once for each seed.

    family: settings with one colour. loss: the section [loss]. data: the pairs of a seed, or its judged answers as
    lists. training, rounds: options of these sections, in place of the common ones. why: of what is unlike the others.
    """

    name: str
    family: str
    loss: dict[str, object]
    data: Literal["pairs", "judged"] = "pairs"
    training: dict[str, object] = field(default_factory=dict)
    rounds: dict[str, object] = field(default_factory=dict)
    why: str = ""


OF_LISTS: dict[str, object] = {"batch_pairs": 8, "learning_rate": 1.5e-5}
OF_VECTORS: dict[str, object] = {
    "batch_pairs": 8,
    "parameters": "steering-vectors",
    "learning_rate": 1e-2,
    "epochs": 3,
}
SETTINGS = (
    Setting("dpo-0.1", "DPO", {"name": "sigmoid", "beta": 0.1}),
    Setting(
        "rounds",
        "REBEL in rounds",
        {"name": "rebel", "beta": 0.04},
        training=OF_LISTS,
        rounds={"count": 3, "reference": "start", "stop": False},
        why="every round answers all prompts, so there are three times as many answers, judgements and steps; a step "
        "takes 8 lists of all answers, so that there are as many steps as of pairs",
    ),
    Setting(
        "vectors",
        "vectors in rounds",
        {"name": "rebel", "beta": 0.04},
        training=OF_VECTORS,
        rounds={"count": 3, "reference": "start", "stop": False},
        why="as the rounds of REBEL, but steering vectors alone are trained, in three passes at a rate that suits them",
    ),
    Setting("dpo-0.05", "DPO", {"name": "sigmoid", "beta": 0.05}),
    Setting("dpo-0.3", "DPO", {"name": "sigmoid", "beta": 0.3}),
    Setting("dpo-1", "DPO", {"name": "sigmoid", "beta": 1.0}),
    Setting(
        "ipo",
        "IPO",
        {"name": "ipo", "beta": 1.0},
        why="its target is per token: 1/2 nat a token, where the default, 0.1, asks for 5",
    ),
    Setting("simpo", "SimPO", {"name": "simpo"}),
    Setting("kto", "KTO", {"name": "kto", "beta": 0.1}),
    Setting("sft", "SFT on the preferred", {"name": "sft"}),
    Setting(
        "rebel",
        "REBEL",
        {"name": "rebel", "beta": 0.04},
        data="judged",
        training=OF_LISTS,
        why="as a round; its optimum is the reference tilted by exp(25 r)",
    ),
)
"""In the order in which they are begun. The frontier of the first one draws the reference's answers for all; what takes
long comes early."""

SMALL = ("dpo-0.1", "rebel", "rounds")
"""What `--small` trains."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything.

    reviews: that are read; None: all. imitated: reviews whose openings the reference is trained on, and held-out ones
    that it is evaluated on. opening: their tokens. prompts: training prompts of a seed, which no other seed has.
    answers: to each of them. choose, most_pairs: of a prompt, as for `tiltlm pair`. warmup: steps of each training.
    held_out: prompts on which all is measured. held_out_answers: of which a pair is made for each. reference_answers,
    model_answers: to each held-out prompt.
    """

    reviews: int | None = None
    imitated: int = 600
    imitated_held_out: int = 32
    opening: int = 36
    prompts: int = 96
    answers: int = 8
    choose: Literal["all", "gap"] = "gap"
    most_pairs: int = 2
    max_new_tokens: int = 24
    warmup: int = 2
    held_out: int = 32
    held_out_answers: int = 4
    reference_answers: int = 256
    model_answers: int = 8


TINY = Sizes(
    reviews=600,
    imitated=16,
    imitated_held_out=4,
    opening=16,
    prompts=8,
    answers=4,
    most_pairs=2,
    max_new_tokens=8,
    warmup=0,
    held_out=4,
    held_out_answers=4,
    reference_answers=32,
    model_answers=4,
)
"""Of `--small`."""
