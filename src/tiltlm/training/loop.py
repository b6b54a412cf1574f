"""The training loop: a plan at a time, whatever its layout (architecture, idea 5)."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tiltlm.config import TrainingConfig
from tiltlm.data.tokens.grouping import prompt_groups
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.distributed.sharding import closed, opened
from tiltlm.distributed.shares import whole
from tiltlm.errors import NonFiniteError
from tiltlm.model.scorer import Scorer
from tiltlm.plan.batches import Plan
from tiltlm.plan.steps import ahead
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.training.bound_objective import BoundObjective
from tiltlm.training.losses import Losses, backward, evaluated
from tiltlm.training.metrics import Sums, eval_row
from tiltlm.training.moving_reference import move
from tiltlm.training.non_finite import RECENT, FailedStep, explanation, told_of_ranks
from tiltlm.training.observers import Observer
from tiltlm.training.optimization import OPTIMIZERS, begin_moments, learning_rate_factor, make_moments
from tiltlm.training.state import (
    Progress,
    TrainerState,
    load_optimizer,
    random_states,
    restore_random_states,
    take_weights,
    weights_of,
)
from tiltlm.training.step_plans import Referenced, StepPlans
from tiltlm.training.stop import StopRequest


class Trainer:
    """Trains a policy in place. What it would need to go on later is its `state`.

    Args:
        scorer: the policy; its weights are changed in place.
        objective: the loss with its settings.
        training: batch sizes, optimizer, schedule.
        seed: decides the order of the examples.
        precision: arithmetic of forward and backward passes; float32 weights either way.
        train, held_out: the examples, with the reference's values if the objective needs a reference.
        ranks: the processes that train together. Where there are several, the policy is shared out over them, and all
            call the same functions in the same order.
    """

    def __init__(
        self,
        scorer: Scorer,
        objective: BoundObjective,
        training: TrainingConfig,
        seed: int,
        precision: torch.dtype,
        train: Referenced,
        held_out: Referenced,
        ranks: Ranks = ALONE,
    ) -> None:
        self.scorer, self.objective, self.training, self.precision = scorer, objective, training, precision
        self.train_examples, self.held_out, self.ranks = train, held_out, ranks
        self.plan_of = StepPlans(train, training, seed, scorer.layout, scorer.device.type == "cuda", ranks)
        self.progress = Progress()
        self._norms: deque[float] = deque(maxlen=RECENT)  # for the message, should a step fail
        self._asked_to_stop = False
        self._optimizer = OPTIMIZERS[training.optimizer](scorer.trained().values(), training)
        make_moments(self._optimizer)
        self._held_out_plan = held_out.plan(range(len(held_out.columns)), training.token_budget, scorer.layout, ranks)
        self._held_out_prompts = prompt_groups(held_out.columns)

    def state(self) -> TrainerState:
        """Everything that training would need to go on from here; tensors are those in use, not copies."""
        with closed(reference := self._moving_reference):
            return TrainerState(
                weights_of(self.scorer.trained().items()),
                self._optimizer.state_dict(),
                dataclasses.replace(self.progress),
                random_states(),
                None if reference is None else weights_of(reference.model.named_parameters()),
                dict(self.objective.running),
            )

    def to_be_filled(self) -> TrainerState:
        """As `state`, of a trainer that may have taken no step: all of its tensors are there, to be written into."""
        begin_moments(self._optimizer)
        return self.state()

    @torch.no_grad()
    def restore(self, state: TrainerState) -> None:
        """Goes back, or on, to a state of a trainer made alike, which may have been one of other ranks."""
        take_weights(self.scorer.trained().items(), state.model)
        if (reference := self._moving_reference) is not None and state.reference is not None:
            with closed(reference):
                take_weights(reference.model.named_parameters(), state.reference)
        load_optimizer(self._optimizer, state.optimizer)
        self.progress = dataclasses.replace(state.progress)
        # Of what a state does not know, the values before the first step.
        self.objective = dataclasses.replace(self.objective, running={}).with_running(state.running)
        restore_random_states(state.random)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.plan_of.steps

    def train(
        self,
        stop: StopRequest,
        observe: Observer,
        starts_at_reference: bool = True,
        after_step: Callable[[Trainer], None] = lambda trainer: None,
    ) -> bool:
        """Trains to the end, or until a stop is requested; evaluates at the start, on the way and at the end.

        However it ends, the weights are those of the last good step.

        Args:
            observe: is given every row.
            starts_at_reference: whether the policy is the reference before the first step.
            after_step: is called when a step is done and its rows are told: training can go on from the state of then.

        Returns:
            Whether training ran to its end.

        Raises:
            NonFiniteError: a loss or gradient is not finite.
        """
        plans = ahead(self.plan_of(step) for step in range(self.progress.step, self.steps))
        self._asked_to_stop = False
        with stop.waited_for(), contextlib.closing(plans):
            if self.progress.step == 0:
                known = starts_at_reference and self.held_out.reference is not None and not self._looks_at_distributions
                observe(self._starting_point() if known else self.evaluate())
            while self.progress.step < self.steps:
                # What was asked of one of several ranks all know after a step that they took together.
                if self._asked_to_stop or (stop.requested and not self.ranks.several):
                    return False
                observe(self.step(next(plans), stop))
                if self._evaluates():
                    observe(self.evaluate())
                after_step(self)
        return True

    @property
    def _looks_at_distributions(self) -> bool:
        """Whether the loss depends on more of each token than the log-probability under policy and reference."""
        return self.objective.needs.squares or self.objective.needs.live

    def _evaluates(self) -> bool:
        """Whether the held-out examples are looked at after this step."""
        step, every = self.progress.step, self.training.eval_every
        return step == self.steps or bool(every and step % every == 0)

    def step(self, planned: Plan, stop: StopRequest) -> TrainRow:
        """One optimizer step. The device is asked for values once, after everything was asked of it.

        Raises:
            NonFiniteError: the loss or the gradient is not finite; the weights are as they were.
        """
        start, sums, training = time.perf_counter(), Sums(self.objective.needs.unit), self.training
        for group in self._optimizer.param_groups:
            group["lr"] = training.learning_rate * learning_rate_factor(self.progress.step, self.steps, training)
        self._optimizer.zero_grad(set_to_none=True)  # what a step left that was interrupted
        running = backward(self.scorer, planned, self.objective, self.precision, sums.add, self.ranks)
        gradients = [own.grad for own in self.scorer.trained().values() if own.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(gradients))
        units, device = self.objective.units(planned), self.scorer.device
        of_all = sums.over(self.ranks, device, units, planned.laid_out, stop.requested)
        with stop.held():
            self._change_weights(norm, sums.finite())
            means, (gradient_norm, *told) = sums.means(norm.to(device), *of_all)
            laid_out, asked_to_stop = told or (planned.laid_out, stop.requested)
            self._optimizer.zero_grad(set_to_none=True)
            seconds = time.perf_counter() - start
            if finite := math.isfinite(means.loss) and math.isfinite(gradient_norm):
                self.objective = self.objective.with_running(running)
                self.progress.step += 1
                self.progress.examples += planned.examples
                self.progress.tokens += int(laid_out)
                self.progress.seconds += seconds
                self._norms.append(gradient_norm)
                self._asked_to_stop = bool(asked_to_stop)
                self._move_reference()
        if not finite:
            raise self._non_finite(planned, sums.non_finite())
        return TrainRow(
            **dataclasses.asdict(means),
            step=self.progress.step,
            epoch=self._epoch(),
            gradient_norm=gradient_norm,
            learning_rate=self._optimizer.param_groups[0]["lr"],
            examples=planned.examples,
            tokens=int(laid_out),
            seconds=seconds,
        )

    def _change_weights(self, norm: Tensor, finite: Tensor) -> None:
        """The optimizer's step by the clipped gradient, unless loss or gradient are not finite.

        Fused optimizers skip a step, and divide gradients, on the device itself and as they go, as gradient scaling has
        them do; of others it must be asked and done first.
        """
        broken, clip = (norm.isfinite() & finite.to(norm.device)).logical_not(), self.training.gradient_clip
        if getattr(self._optimizer, "_step_supports_amp_scaling", False):
            scale = (norm / clip).clamp(min=1.0).float() if clip else None
            self._optimizer.grad_scale = scale  # type: ignore[attr-defined]
            self._optimizer.found_inf = broken.float()  # type: ignore[attr-defined]
            self._optimizer.step()
        elif not bool(broken):
            if clip:
                torch.nn.utils.clip_grads_with_norm_(self.scorer.trained().values(), clip, norm)
            self._optimizer.step()

    @property
    def _moving_reference(self) -> Scorer | None:
        return self.objective.reference if self.objective.moves is not None else None

    def _move_reference(self) -> None:
        """Lets the reference follow the policy, where it does and after as many steps as it does."""
        reference, update = self.objective.reference, self.objective.moves
        if reference is not None and update is not None and self.progress.step % update.every == 0:
            move(reference, self.scorer, update)

    def _non_finite(self, planned: Plan, units: list[int]) -> NonFiniteError:
        if self.ranks.several:
            every = self.ranks.gathered(planned.numbers)
            own = np.concatenate(every) if self.objective.needs.coupled else every[self.ranks.rank]
            guilty = self.ranks.gathered(self._examples_of(own, units))
            return NonFiniteError(told_of_ranks(self.progress.step + 1, self.train_examples.columns, guilty))
        columns, budget = self.train_examples.columns, self.training.token_budget
        step, rate = self.progress.step, self._optimizer.param_groups[0]["lr"]
        factor = learning_rate_factor(step - 1, self.steps, self.training) if step else None
        failed = FailedStep(
            number=step + 1,
            examples=planned.numbers.tolist(),
            guilty=self._examples_of(planned.numbers, units),
            rates=(None if factor is None else self.training.learning_rate * factor, rate),
            warmup=self.training.warmup_steps,
            norms=tuple(self._norms),
            clip=self.training.gradient_clip,
            columns=columns,
            plan=lambda some: self.train_examples.plan(np.asarray(some), budget, self.scorer.layout),
        )
        return NonFiniteError(explanation(failed, self.scorer, self.objective, self.precision))

    def _examples_of(self, numbers: np.ndarray, units: list[int]) -> list[int]:
        """The examples of some units of examples with these numbers, in their order."""
        columns = self.train_examples.columns
        if self.objective.needs.unit == "completion":
            own = [columns.labels[columns.members[e] : columns.members[e + 1]] for e in numbers]
            numbers = np.repeat(numbers, [int((labels >= 0).sum()) for labels in own])
        return list(dict.fromkeys(numbers[units].tolist()))

    def _epoch(self) -> float:
        return self.progress.step / self.plan_of.order.steps_per_epoch

    def _starting_point(self) -> EvalRow:
        """The evaluation before training where the policy is the reference: known without a forward pass."""
        sums, reference = Sums(self.objective.needs.unit), self.held_out.reference
        assert reference is not None
        scored = self.objective.scored_columns(self.held_out.columns, reference, reference, torch.float32)
        sums.add(Losses(scored, self.objective(scored)))
        return eval_row(sums, self._held_out_prompts, 0, 0.0, 0.0)

    def evaluate(self) -> EvalRow:
        """Loss and implicit rewards on held-out examples, in the same arithmetic as training."""
        start, moving = time.perf_counter(), None
        if self.objective.moves is None:
            sums = self._summed(self.objective)
        else:
            # Figures against a reference that follows say little of how far the policy has come: these are against the
            # first one, and those besides.
            sums = self._summed(dataclasses.replace(self.objective, reference=None))
            moving, _ = self._summed(self.objective).means()
        seconds = time.perf_counter() - start
        row = eval_row(sums, self._held_out_prompts, self.progress.step, self._epoch(), seconds)
        if moving is None:
            return row
        return dataclasses.replace(
            row, moving_loss=moving.loss, moving_margin=moving.margin, moving_accuracy=moving.accuracy
        )

    def _summed(self, objective: BoundObjective) -> Sums:
        sums = Sums(objective.needs.unit)
        with opened(self.scorer):
            for losses in evaluated(self.scorer, self._held_out_plan, objective, self.precision, self.ranks):
                sums.add(losses)
        sums.over(self.ranks, self.scorer.device, objective.units(self._held_out_plan))
        return sums
