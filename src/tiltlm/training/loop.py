"""The training loop: a global batch of pairs at a time, whatever its layout (architecture, idea 5)."""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

import torch

from tiltlm.config import Config
from tiltlm.data.grouping import prompt_groups
from tiltlm.data.ordering import batches, steps_per_epoch
from tiltlm.data.packing import micro_batches, pack_pairs
from tiltlm.dpo_loss import LOSSES
from tiltlm.errors import NonFiniteError
from tiltlm.model.loading import arithmetic
from tiltlm.model.scorer import PairScorer, pair_logps
from tiltlm.records import LossOutput, LossSettings, PairLogps, ReferencedPair
from tiltlm.runs.records import EvalRow, TrainRow
from tiltlm.statistics import effective_number, wilson_interval
from tiltlm.training.metrics import MetricsLog, PairScores, PairSums
from tiltlm.training.optimization import OPTIMIZERS, learning_rate_factor


class StopRequest:
    """Turns Ctrl-C into a request to stop after the current step; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        self._previous: Any = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What the loop did: its rows in order, and whether it ran to the end."""

    train_rows: list[TrainRow]
    eval_rows: list[EvalRow]
    completed: bool


@dataclass(frozen=True, slots=True)
class Trainer:
    """Everything a step needs, gathered once.

    Attributes:
        scorer: the policy; its weights are changed in place.
        config: the resolved settings.
        precision: arithmetic of forward and backward passes; float32 weights either way.
    """

    scorer: PairScorer
    config: Config
    precision: torch.dtype

    def total_steps(self, pairs: int) -> int:
        """Optimizer steps of the whole training."""
        training = self.config.training
        return training.max_steps or training.epochs * steps_per_epoch(pairs, training.batch_pairs)

    def score(self, group: Sequence[ReferencedPair]) -> tuple[PairLogps, LossOutput, int]:
        """Policy log-probabilities and losses of one micro-batch, and the number of columns it took."""
        batch = pack_pairs([item.pair for item in group], self.scorer.trees).to(self.scorer.device)
        with arithmetic(self.scorer.device, self.precision):
            logps_S = self.scorer(batch)
        policy = pair_logps(logps_S, batch)
        return policy, self.objective(policy, reference_logps(group, policy)), batch.tokens_RL.numel()

    def objective(self, policy: PairLogps, reference: PairLogps) -> LossOutput:
        """The configured objective."""
        settings = LossSettings(self.config.loss.beta, self.config.loss.label_smoothing)
        return LOSSES[self.config.loss.name](policy, reference, settings)

    def micro_batches(self, items: Sequence[ReferencedPair]) -> list[list[ReferencedPair]]:
        """The items in groups that fit the token budget."""
        by_id = {id(item.pair): item for item in items}
        groups = micro_batches(
            [item.pair for item in items], self.config.training.micro_batch_tokens, self.scorer.trees
        )
        return [[by_id[id(pair)] for pair in group] for group in groups]

    def train(
        self,
        train_pairs: Sequence[ReferencedPair],
        eval_pairs: Sequence[ReferencedPair],
        log: MetricsLog,
        stop: StopRequest,
        on_row: Callable[[TrainRow | EvalRow], None],
    ) -> TrainingOutcome:
        """Trains to the end, or until a stop is requested; evaluates at the start, on the way and at the end.

        Raises:
            NonFiniteError: a loss or gradient is not finite; the weights are those of the last good step.
        """
        training = self.config.training
        optimizer = OPTIMIZERS[training.optimizer](self.scorer.parameters(), training)
        steps = self.total_steps(len(train_pairs))
        outcome = TrainingOutcome([], [], completed=True)

        def record(row: TrainRow | EvalRow) -> None:
            log.write(row)
            if isinstance(row, TrainRow):
                outcome.train_rows.append(row)
            else:
                outcome.eval_rows.append(row)
            on_row(row)

        record(self.evaluate(eval_pairs, 0, 0.0) if self.config.model.reference else self.starting_point(eval_pairs))
        order = batches(len(train_pairs), training.batch_pairs, steps, self.config.run.seed)
        for step, indices in enumerate(order):
            if stop.requested:
                return TrainingOutcome(outcome.train_rows, outcome.eval_rows, completed=False)
            epoch = (step + 1) / steps_per_epoch(len(train_pairs), training.batch_pairs)
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * learning_rate_factor(step, steps, training)
            record(self._step(optimizer, [train_pairs[i] for i in indices], step + 1, epoch))
            due = training.eval_every and (step + 1) % training.eval_every == 0
            if due or step + 1 == steps:
                record(self.evaluate(eval_pairs, step + 1, epoch))
        return outcome

    def _step(
        self, optimizer: torch.optim.Optimizer, items: Sequence[ReferencedPair], step: int, epoch: float
    ) -> TrainRow:
        start, sums, tokens = time.perf_counter(), PairSums(), 0
        seen: list[ReferencedPair] = []
        for group in self.micro_batches(items):
            policy, output, columns = self.score(group)
            # The loss is the mean over the global batch, whose size is known before any backward pass.
            (output.losses_P.sum() / len(items)).backward()
            sums.add(policy, output)
            seen.extend(group)
            tokens += columns
        norm = torch.nn.utils.clip_grad_norm_(
            self.scorer.parameters(), self.config.training.gradient_clip or float("inf")
        )
        means, (gradient_norm,) = sums.means(norm)
        if not math.isfinite(means.loss) or not math.isfinite(gradient_norm):
            guilty = [seen[i].pair.id for i in sums.non_finite()] or [item.pair.id for item in items]
            raise NonFiniteError(
                f"step {step}: the {'loss' if sums.non_finite() else 'gradient'} is not finite, at these pairs: "
                f"{', '.join(guilty[:10])}{' ...' if len(guilty) > 10 else ''}. The weights were not changed by this "
                "step. Try a lower training.learning_rate, or model.precision float32; and look at the pairs."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return TrainRow(
            step=step,
            epoch=epoch,
            **dataclasses.asdict(means),
            gradient_norm=gradient_norm,
            learning_rate=optimizer.param_groups[0]["lr"],
            pairs=len(items),
            tokens=tokens,
            seconds=time.perf_counter() - start,
        )

    def starting_point(self, items: Sequence[ReferencedPair]) -> EvalRow:
        """The evaluation before training where the policy is the reference: known without a forward pass."""
        counts = torch.tensor([[item.pair.chosen.scored_tokens, item.pair.rejected.scored_tokens] for item in items])
        logps = torch.tensor([[item.chosen_logp, item.rejected_logp] for item in items])
        both = PairLogps(logps[:, 0], logps[:, 1], counts[:, 0], counts[:, 1])
        sums = PairSums()
        sums.add(both, self.objective(both, both))
        return _eval_row(sums, items, 0, 0.0, 0.0)

    @torch.no_grad()
    def evaluate(self, items: Sequence[ReferencedPair], step: int, epoch: float) -> EvalRow:
        """Loss and implicit rewards on held-out pairs, in the same arithmetic as training."""
        start, sums = time.perf_counter(), PairSums()
        for group in self.micro_batches(items):
            policy, output, _ = self.score(group)
            sums.add(policy, output)
        return _eval_row(sums, items, step, epoch, time.perf_counter() - start)

    @torch.no_grad()
    def score_pairs(self, items: Sequence[ReferencedPair]) -> PairScores:
        """The policy's log-probabilities of each pair, in the same arithmetic as training."""
        place = {id(item): index for index, item in enumerate(items)}
        groups = self.micro_batches(items)
        scored = [self.score(group)[0] for group in groups]
        logps_2P = torch.cat([torch.stack([logps.chosen_P, logps.rejected_P]) for logps in scored], 1)
        order = torch.tensor([place[id(item)] for group in groups for item in group]).argsort()
        chosen, rejected = logps_2P.cpu()[:, order].tolist()
        return PairScores(tuple(chosen), tuple(rejected))


def _eval_row(sums: PairSums, items: Sequence[ReferencedPair], step: int, epoch: float, seconds: float) -> EvalRow:
    means, _ = sums.means()
    trials = effective_number(prompt_groups([item.pair for item in items]))
    return EvalRow(
        step=step,
        epoch=epoch,
        pairs=sums.pairs,
        **dataclasses.asdict(means),
        accuracy_interval=wilson_interval(means.accuracy * trials, trials),
        seconds=seconds,
    )


def reference_logps(group: Sequence[ReferencedPair], policy: PairLogps) -> PairLogps:
    """The group's reference log-probabilities, on the policy's device and with its token counts."""
    chosen, rejected = (
        torch.tensor(values, dtype=policy.chosen_P.dtype, device=policy.chosen_P.device)
        for values in ([item.chosen_logp for item in group], [item.rejected_logp for item in group])
    )
    return PairLogps(chosen, rejected, policy.chosen_tokens_P, policy.rejected_tokens_P)
