"""Losses of peers, run by their own code on log-probabilities that are given: TRL's trainers and Liger's functions.

TRL's losses are methods of trainers. They run without a model: on a stand-in that has the attributes which they read,
and with a model that returns the log-probabilities given. Nothing of theirs is written again here.

Importing this module imports no peer; the environment of scripts/make_peers_environment.py has them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED, Scored

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion: log-probabilities of its tokens under policy and reference, and log sums of squares; (tokens,)."""

    policy: Tensor
    reference: Tensor
    squares: Tensor

    def to(self, dtype: torch.dtype) -> Answer:
        return Answer(self.policy.to(dtype), self.reference.to(dtype), self.squares.to(dtype))


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs of completions, and for each of the two a mismatched one; lists of equal length."""

    chosen: tuple[Answer, ...]
    rejected: tuple[Answer, ...]
    mismatched: tuple[Answer, ...]

    def __len__(self) -> int:
        return len(self.chosen)

    def part(self, begin: int, end: int) -> Batch:
        """Some of the pairs."""
        return Batch(self.chosen[begin:end], self.rejected[begin:end], self.mismatched[2 * begin : 2 * end])

    def to(self, dtype: torch.dtype) -> Batch:
        """The same in another type."""
        return Batch(*(tuple(one.to(dtype) for one in side) for side in (self.chosen, self.rejected, self.mismatched)))

    def leaves(self) -> list[Tensor]:
        """What the policy is: the values that losses have a gradient in."""
        return [one.policy for one in (*self.chosen, *self.rejected)]

    def swapped(self) -> Batch:
        """Chosen for rejected."""
        return replace(self, chosen=self.rejected, rejected=self.chosen)


def random_batch(pairs: int, seed: int, spread: float = 3.0) -> Batch:
    """Pairs of 1 to 7 tokens, in float64, with gradients; log-ratios of a token lie within `spread` nats."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tokens: int) -> Tensor:
        return torch.rand(tokens, generator=generator, dtype=torch.float64)

    def answer() -> Answer:
        tokens = int(torch.randint(1, 8, (1,), generator=generator))
        policy = -4 * uniform(tokens) - 0.01
        reference = policy - spread * (2 * uniform(tokens) - 1)
        return Answer(policy.requires_grad_(), reference, -3 * uniform(tokens))

    answers = [answer() for _ in range(4 * pairs)]
    return Batch(tuple(answers[:pairs]), tuple(answers[pairs : 2 * pairs]), tuple(answers[2 * pairs :]))


# Ours


def ours(name: str, batch: Batch, **settings: Any) -> Tensor:
    """Our losses: one a pair, one a completion (all chosen first) or one a demonstration, in order of the batch."""
    objective = OBJECTIVES[name]
    needs = objective.needs
    sequences = [(CHOSEN, one) for one in batch.chosen]
    if needs.unit == "pair":
        both = zip(batch.chosen, batch.rejected, strict=True)
        sequences = [labelled for one, other in both for labelled in ((CHOSEN, one), (REJECTED, other))]
    elif needs.unit == "completion":
        sequences += [(REJECTED, one) for one in batch.rejected]
        if needs.mismatched:
            others = [(MISMATCHED, one) for one in batch.mismatched]
            sequences = [one for both in zip(sequences, others, strict=True) for one in both]
    configured = objective.settings(**settings)
    scored = _scored(sequences)
    if objective.running is not None:
        start = {key: torch.tensor(value) for key, value in objective.running.start(configured).items()}
        scored = replace(scored, running=start)
        scored = replace(scored, running=objective.running.moved(scored, configured))
    return objective.loss(scored, configured).losses_U


def _scored(sequences: Sequence[tuple[int, Answer]]) -> Scored:
    tokens_N = torch.tensor([len(one.policy) for _, one in sequences])
    labelled = [len(one.policy) for label, one in sequences if label != MISMATCHED]
    return Scored(
        logps_N=torch.stack([one.policy.sum() for _, one in sequences]),
        tokens_N=tokens_N,
        labels_N=torch.tensor([label for label, _ in sequences], dtype=torch.int8),
        reference_logps_N=torch.stack([one.reference.sum() for _, one in sequences]),
        token_logps_T=torch.cat([one.policy for _, one in sequences]),
        reference_token_logps_T=torch.cat([one.reference for _, one in sequences]),
        sequence_T=torch.arange(len(tokens_N)).repeat_interleave(tokens_N),
        offset_T=torch.cat([torch.arange(int(count)) for count in tokens_N]),
        log_squares_T=torch.cat([one.squares for _, one in sequences]),
        tokens_per_unit=sum(labelled) / len(labelled),
    )


# TRL


Loss = Callable[[Batch, float], Tensor]
"""Losses of a batch, given beta; or their mean, where nothing else is to be had."""


def each(loss: Loss) -> Loss:
    """A loss that is a mean over a batch, pair by pair."""
    return lambda batch, beta: torch.stack([loss(batch.part(place, place + 1), beta) for place in range(len(batch))])


class _Model:
    """A model that has computed: it gives rows of a table, by the numbers in the inputs' first column."""

    training = True
    is_gradient_checkpointing = False

    def __init__(self, log_probs: Sequence[Tensor], squares: Sequence[Tensor]) -> None:
        self.log_probs, self.squares = log_probs, squares

    def __call__(self, input_ids: Tensor, **_: object) -> Any:
        rows, width = input_ids[:, 0].tolist(), input_ids.size(1) - 1

        def padded(values: Sequence[Tensor]) -> Tensor:
            return torch.stack([torch.nn.functional.pad(values[row], (0, width - len(values[row]))) for row in rows])

        log_probs = padded(self.log_probs)
        nothing = torch.zeros_like(log_probs)
        return SimpleNamespace(
            log_probs=log_probs,
            log_sum_sq_probs=padded(self.squares),
            entropy=nothing,
            mean_logits=nothing,
            is_top1=nothing.bool(),
        )


def _models(answers: Sequence[Answer]) -> tuple[_Model, _Model]:
    """Policy and reference."""
    squares = [one.squares for one in answers]
    return _Model([one.policy for one in answers], squares), _Model([one.reference for one in answers], squares)


def _inputs(rows: Sequence[int], answers: Sequence[Answer]) -> dict[str, Tensor]:
    """One prompt token a row, which is the row's number in the models' tables, then the completion, then padding."""
    width = 1 + max(len(answers[row].policy) for row in rows)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.int64), torch.zeros(len(rows), width, dtype=torch.int64)
    for place, row in enumerate(rows):
        ids[place, 0] = row
        mask[place, 1 : 1 + len(answers[row].policy)] = 1
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}


def _accelerator() -> Any:
    def same(values: Tensor) -> Tensor:
        return values

    return SimpleNamespace(device=torch.device("cpu"), gather=same, gather_for_metrics=same)


def trl_dpo(batch: Batch, **arguments: Any) -> Tensor:
    """The mean loss of TRL's DPOTrainer over a batch, by arguments of DPOConfig."""
    from trl import DPOTrainer

    answers = [*batch.chosen, *batch.rejected]
    policy, reference = _models(answers)
    kinds = arguments.get("loss_type", ["sigmoid"])
    trainer = SimpleNamespace(
        model=policy,
        ref_model=reference,
        accelerator=_accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=arguments.get("discopop_tau", 0.05)),
        loss_types=kinds,
        loss_weights=arguments.get("loss_weights", [1.0] * len(kinds)),
        beta=arguments.get("beta", 0.1),
        label_smoothing=arguments.get("label_smoothing", 0.0),
        ld_alpha=arguments.get("ld_alpha"),
        f_divergence_type=arguments.get("f_divergence_type", "reverse_kl"),
        f_alpha_divergence_coef=arguments.get("f_alpha_divergence_coef", 0.5),
        use_weighting=arguments.get("use_weighting", False),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = _inputs(range(len(answers)), answers)
    return _tensor(DPOTrainer._compute_loss(trainer, policy, inputs, False))


def trl_kto(batch: Batch, beta: float, desirable_weight: float = 1.0, undesirable_weight: float = 1.0) -> Tensor:
    """The losses of TRL's KTOTrainer, all of the batch being one micro-batch: a mean."""
    from trl import KTOTrainer

    answers = [*batch.chosen, *batch.rejected, *batch.mismatched]
    policy, reference = _models(answers)
    own = 2 * len(batch)
    inputs = _inputs(range(own), answers)
    others = _inputs(range(own, len(answers)), answers)
    trainer = SimpleNamespace(
        model=policy,
        ref_model=reference,
        accelerator=_accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        calculate_KL=True,
        loss_type="kto",
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        beta=beta,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    trainer._compute_kl_logps = lambda model, given: KTOTrainer._compute_kl_logps(trainer, model, given)
    given = {
        **inputs,
        **{f"KL_{name}": value for name, value in others.items()},
        "label": torch.tensor([True] * len(batch) + [False] * len(batch)),
    }
    return _tensor(KTOTrainer._compute_loss(trainer, policy, given, False))


def trl_cpo(
    batch: Batch, loss_type: str, beta: float, simpo_gamma: float = 0.5, label_smoothing: float = 0.0
) -> Tensor:
    """The losses of TRL's CPOTrainer, pair by pair, without the term of imitation. `simpo` takes means per token."""
    from trl.experimental.cpo import CPOTrainer

    trainer = SimpleNamespace(
        accelerator=_accelerator(),
        alpha=0.0,
        loss_type=loss_type,
        beta=beta,
        simpo_gamma=simpo_gamma,
        label_smoothing=label_smoothing,
    )
    sides = [_logps(side, average=loss_type == "simpo") for side in (batch.chosen, batch.rejected)]
    return _tensor(CPOTrainer.cpo_loss(trainer, *sides)[0])


def trl_orpo(batch: Batch, beta: float) -> Tensor:
    """The comparison of odds of TRL's ORPOTrainer, pair by pair, as it is subtracted from the imitation: negative."""
    from trl.experimental.orpo import ORPOTrainer

    trainer = SimpleNamespace(accelerator=_accelerator(), beta=beta)
    sides = [_logps(side, average=True) for side in (batch.chosen, batch.rejected)]
    return _tensor(ORPOTrainer.odds_ratio_loss(trainer, *sides)[0])


def _logps(side: Sequence[Answer], average: bool = False) -> Tensor:
    return torch.stack([one.policy.mean() if average else one.policy.sum() for one in side])


def _tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value


# Liger


def liger_dpo(batch: Batch, **arguments: Any) -> Tensor:
    """The mean loss of LigerFusedLinearDPOFunction over a batch."""
    from liger_kernel.chunked_loss.dpo_loss import LigerFusedLinearDPOFunction

    reference = [torch.stack([one.reference.sum() for one in side]) for side in (batch.chosen, batch.rejected)]
    return _liger(LigerFusedLinearDPOFunction, batch, False, *reference, **arguments)


def liger_cpo(batch: Batch, **arguments: Any) -> Tensor:
    """The mean loss of LigerFusedLinearCPOFunction over a batch, without the term of imitation."""
    from liger_kernel.chunked_loss.cpo_loss import LigerFusedLinearCPOFunction

    return _liger(LigerFusedLinearCPOFunction, batch, False, **arguments)


def liger_simpo(batch: Batch, **arguments: Any) -> Tensor:
    """The mean loss of LigerFusedLinearSimPOFunction over a batch."""
    from liger_kernel.chunked_loss.simpo_loss import LigerFusedLinearSimPOFunction

    return _liger(LigerFusedLinearSimPOFunction, batch, True, **arguments)


def liger_orpo(batch: Batch, **arguments: Any) -> Tensor:
    """The mean comparison of odds of LigerFusedLinearORPOFunction over a batch."""
    from liger_kernel.chunked_loss.orpo_loss import LigerFusedLinearORPOFunction

    return _liger(LigerFusedLinearORPOFunction, batch, True, **arguments)


def liger_kto(batch: Batch, beta: float) -> Tensor:
    """The mean loss of LigerFusedLinearKTOFunction over a batch, which is given z, as TRL computes it."""
    from liger_kernel.chunked_loss.kto_loss import LigerFusedLinearKTOFunction

    answers = [*batch.chosen, *batch.rejected]
    z = torch.stack([(one.policy - one.reference).sum() for one in batch.mismatched]).mean().clamp(min=0)
    return _tensor(
        LigerFusedLinearKTOFunction.preference_loss_fn(
            _logps(answers),
            torch.tensor([True] * len(batch) + [False] * len(batch)),
            torch.empty(len(answers)),
            torch.stack([one.reference.sum() for one in answers]),
            beta=beta,
            kl=z,
        )[0]
    )


def _liger(function: Any, batch: Batch, average: bool, *reference: Tensor, **arguments: Any) -> Tensor:
    target = torch.empty(2 * len(batch), 1)  # of which the number of rows alone is read
    own = [_logps(side, average) for side in (batch.chosen, batch.rejected)]
    return _tensor(function.preference_loss_fn(*own, target, *reference, **arguments)[0])
