"""What an objective is: settings of its own, what it needs, and a pure function from log-probabilities to losses.

Shape suffixes: N scored sequences, U units (pairs, completions, lists or demonstrations), P pairs, T scored tokens.
Importing an objective imports no torch, so that settings can be read and explained without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict

if TYPE_CHECKING:
    from torch import Tensor

CHOSEN, REJECTED, MISMATCHED = 1, 0, -1
"""Labels of sequences: a preferred or desirable answer, the other, and an answer to another prompt (see `Needs`)."""

Unit = Literal["pair", "completion", "list", "demonstration"]
Scores = Literal["none", "order", "value"]

NOUNS: Mapping[str, str] = {
    "pair": "pair",
    "completion": "example",
    "list": "list",
    "demonstration": "demonstration",
}
"""What people call an example that an objective learns from."""

SETTINGS = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
"""How the settings of every objective are declared: `@dataclass(frozen=True, config=SETTINGS)` of pydantic, ranges as
`Annotated[float, Field(...)]`, a help text under each field."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run must provide for an objective, and thereby what it does.

    unit: what has one loss: a pair (an example's chosen and rejected answer), every labelled completion, a list (all
        answers of an example, two or more, with scores that order them), or a demonstration (one answer to imitate;
        of preferences, the chosen one).
    reference: log-probabilities of the reference; where no objective needs them that stage does not run.
    counts: how many tokens each sum has. A run always knows it; who gives log-probabilities by hand is asked for it.
    tokens: log-probabilities token by token, not only their sums.
    squares: of each token's distribution under the policy, the logarithm of its sum of squares, without gradient.
    scores: a score of each answer, of which only the order counts, or the value too.
    credit: of each token, what it did for its answer's score (`Scored.credit_T`), which a run finds before training,
        from scores: so it takes those by value too.
    live: how far the reference's whole distribution of each token is from the policy's, which its cached values do not
        say: so it is a model at work beside the policy.
    coupled: the loss of a unit depends on the whole global batch, so the gradient is taken over all of it at once.
    mismatched: every example also has an answer to another prompt scored, labelled MISMATCHED.
    """

    unit: Unit = "pair"
    reference: bool = True
    counts: bool = False
    tokens: bool = False
    squares: bool = False
    scores: Scores = "none"
    credit: bool = False
    live: bool = False
    coupled: bool = False
    mismatched: bool = False

    @property
    def of_tokens(self) -> bool:
        """Whether something of single tokens is handed over, so that it must be known where each of them stands."""
        return self.tokens or self.squares or self.credit or self.live


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Sequences of whole examples with their log-probabilities, in nats. Those of an example stand together.

    logps_N: log pi(y|x), summed over the completion's tokens.
    tokens_N: int64, number of tokens in each sum.
    labels_N: int8, CHOSEN, REJECTED or MISMATCHED. A pair is its chosen sequence, then its rejected one.
    reference_logps_N: log pi_ref(y|x); None where the objective needs no reference.
    token_logps_T, reference_token_logps_T: the same token by token; None unless the objective needs them (and, for the
        second, a reference).
    sequence_T, offset_T: int64, of each scored token the number of its sequence and its place in the completion; None
        where nothing of single tokens is needed.
    log_squares_T: log of the sum over the vocabulary of pi(v)^2 where each token stands, detached; None unless needed.
    credit_T: float, by how much each token raised the score that its answer was to have (`training.credit`); None
        unless needed.
    reference_kl_T: KL(pi_ref || pi) of the distributions where each token stands, with gradient; None unless needed.
    list_UK: int64, the numbers of each list's sequences, best first (as given where scores are equal), and -1 where a
        list is shorter than the longest; None unless the unit is a list. `in_lists` takes values out by it.
    scores_N: float, each answer's score, higher is better; None unless needed.
    tokens_per_unit: scored tokens of labelled sequences divided by units, in the whole global batch.
    running: the values of the statistics that the objective keeps from step to step (see `Running`).
    """

    logps_N: Tensor
    tokens_N: Tensor
    labels_N: Tensor
    reference_logps_N: Tensor | None = None
    token_logps_T: Tensor | None = None
    reference_token_logps_T: Tensor | None = None
    sequence_T: Tensor | None = None
    offset_T: Tensor | None = None
    log_squares_T: Tensor | None = None
    credit_T: Tensor | None = None
    reference_kl_T: Tensor | None = None
    list_UK: Tensor | None = None
    scores_N: Tensor | None = None
    tokens_per_unit: float | None = None
    running: Mapping[str, Tensor] = field(default_factory=dict)

    def log_ratios(self) -> Tensor:
        """log pi(y|x) - log pi_ref(y|x) of each sequence, in nats, shape (N,)."""
        assert self.reference_logps_N is not None
        return self.logps_N - self.reference_logps_N

    def token_log_ratios(self) -> Tensor:
        """log pi - log pi_ref of each scored token, in nats, shape (T,)."""
        assert self.token_logps_T is not None
        assert self.reference_token_logps_T is not None
        return self.token_logps_T - self.reference_token_logps_T

    def sums(self, values_T: Tensor) -> Tensor:
        """Values of tokens, summed by sequence; shape (N,)."""
        assert self.sequence_T is not None
        return values_T.new_zeros(len(self.tokens_N)).index_add(0, self.sequence_T, values_T)

    def in_lists(self, values_N: Tensor) -> tuple[Tensor, Tensor]:
        """Values of sequences as (values_UK, there_UK): best first, with those that are not there 0 and False."""
        assert self.list_UK is not None
        there_UK = self.list_UK >= 0
        values_UK = values_N.index_select(0, self.list_UK.clamp(min=0).flatten()).view(self.list_UK.shape)
        return values_UK.masked_fill(~there_UK, 0), there_UK


def sides(values_N: Tensor) -> tuple[Tensor, Tensor]:
    """Values of the sequences of pairs, as (chosen_P, rejected_P)."""
    chosen_P, rejected_P = values_N.unflatten(0, (-1, 2)).unbind(1)
    return chosen_P, rejected_P


@dataclass(frozen=True, slots=True, eq=False)
class LossOutput:
    """losses_U: the objective per unit. rewards_N: implicit rewards per sequence, detached."""

    losses_U: Tensor
    rewards_N: Tensor


@dataclass(frozen=True, slots=True)
class Running:
    """Statistics that an objective keeps from step to step, such as a moving mean of rewards.

    They move once an optimizer step, on all of its batch and before its loss, belong to the trainer's state, and stand
    still in evaluation. An objective that has some is coupled.

    start: their values before the first step, by name, given the settings.
    moved: their values after a batch, given the batch (whose `running` holds those before it) and the settings;
        scalars, detached.
    """

    start: Callable[[Any], Mapping[str, float]]
    moved: Callable[[Scored, Any], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class ReferenceUpdate:
    """How the reference follows the policy: weights become weight * policy's + (1 - weight) * its own.

    weight: above 0; 1 is a copy. every: after so many optimizer steps.
    """

    weight: float
    every: int


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective of the field, under the field's name. A value of this type in a module of this package declares it.

    loss: the losses of scored sequences, given an instance of `settings`; pure, and finite wherever its arguments are.
    settings: a frozen dataclass (see SETTINGS) with a default, a range and a help text for every field.
    what: one sentence on what it does and when to use it.
    aliases: what other trainers call it, for the error that names the nearest objective; not accepted as a name.
    running: statistics that it keeps from step to step; None where it keeps none.
    detaches: whether a part of the loss has no gradient on purpose, such as a weight: it is then held to the finite
        differences of the rest, with that part as it was.
    moves: how the reference moves, given the settings; None where it stays what it was.
    """

    name: str
    loss: Callable[[Scored, Any], LossOutput]
    settings: type
    needs: Needs
    what: str
    aliases: tuple[str, ...] = ()
    running: Running | None = None
    detaches: bool = False
    moves: Callable[[Any], ReferenceUpdate] | None = None

    @property
    def live_reference(self) -> bool:
        """Whether the reference is a model at work in every step, beside the policy."""
        return self.needs.live or self.moves is not None

    @property
    def source(self) -> str | None:
        """The address of the first source that the function's docstring cites, mostly the paper; None without one."""
        cited = re.search(r"arXiv (\d{4}\.\d{4,5})|(https?://\S+[\w/])", self.loss.__doc__ or "")
        if cited is None:
            return None
        return f"https://arxiv.org/abs/{cited[1]}" if cited[1] else cited[2]
