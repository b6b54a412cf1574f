"""The training loop: a global batch of pairs at a time, whatever its layout (architecture, idea 5)."""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

import torch

from tiltlm.config import Config, TrainingConfig
from tiltlm.data.ordering import batches, steps_per_epoch
from tiltlm.data.tokens.grouping import prompt_groups
from tiltlm.data.tokens.packing import micro_batches, pack_pairs
from tiltlm.dpo_loss import LOSSES
from tiltlm.errors import NonFiniteError
from tiltlm.model.loading import arithmetic
from tiltlm.model.scorer import PairScorer, pair_logps
from tiltlm.records import LossOutput, LossSettings, PairLogps, ReferencedPair
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.training.metrics import MetricsLog, PairSums, eval_row
from tiltlm.training.optimization import OPTIMIZERS, learning_rate_factor


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a request to stop after the current step, where that is waited for.

    Elsewhere, and at the second signal, they interrupt at once (KeyboardInterrupt), but never within a change of the
    weights, which would be half made.
    """

    def __init__(self) -> None:
        self.requested = False
        self._waited_for = False
        self._held = False
        self._pending = False

    def __enter__(self) -> Self:
        self._previous: dict[int, Any] = {}
        # Handlers can be set in the main thread alone; elsewhere the program that called decides.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Within, the first signal only makes a request."""
        self._waited_for = True
        try:
            yield
        finally:
            self._waited_for = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, a signal waits until the end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._waited_for and not self.requested:
            self.requested = True
        elif self._held:
            self._pending = True
        else:
            self.requested = True
            raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What the loop did: its rows in order, and whether it ran to the end."""

    train_rows: list[TrainRow]
    eval_rows: list[EvalRow]
    completed: bool


def total_steps(training: TrainingConfig, pairs: int) -> int:
    """Optimizer steps of the whole training."""
    return training.max_steps or training.epochs * steps_per_epoch(pairs, training.batch_pairs)


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

    def score(self, group: Sequence[ReferencedPair]) -> tuple[PairLogps, LossOutput, int]:
        """Policy log-probabilities and losses of one micro-batch, and the number of columns it took."""
        batch = pack_pairs([item.pair for item in group], self.scorer.trees).to(self.scorer.device)
        with arithmetic(self.scorer.device, self.precision):
            logps_S = self.scorer(batch)
        policy = pair_logps(logps_S, batch)
        return policy, self.objective(policy, reference_logps(group, policy)), batch.tokens_RL.numel()

    def objective(self, policy: PairLogps, reference: PairLogps) -> LossOutput:
        """The configured objective."""
        settings = LossSettings(**dataclasses.asdict(self.config.loss.settings))
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

        However it ends, the weights are those of the last good step.

        Raises:
            NonFiniteError: a loss or gradient is not finite.
        """
        with stop.waited_for():
            return self._train(train_pairs, eval_pairs, log, stop, on_row)

    def _train(
        self,
        train_pairs: Sequence[ReferencedPair],
        eval_pairs: Sequence[ReferencedPair],
        log: MetricsLog,
        stop: StopRequest,
        on_row: Callable[[TrainRow | EvalRow], None],
    ) -> TrainingOutcome:
        training = self.config.training
        optimizer = OPTIMIZERS[training.optimizer](self.scorer.parameters(), training)
        steps = total_steps(self.config.training, len(train_pairs))
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
            record(self._step(optimizer, [train_pairs[i] for i in indices], step + 1, epoch, stop))
            due = training.eval_every and (step + 1) % training.eval_every == 0
            if due or step + 1 == steps:
                record(self.evaluate(eval_pairs, step + 1, epoch))
        return outcome

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        items: Sequence[ReferencedPair],
        step: int,
        epoch: float,
        stop: StopRequest,
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
        with stop.held():
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return TrainRow(
            step=step,
            epoch=epoch,
            **dataclasses.asdict(means),
            gradient_norm=gradient_norm,
            learning_rate=optimizer.param_groups[0]["lr"],
            examples=len(items),
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
        return eval_row(sums, prompt_groups([item.pair for item in items]), 0, 0.0, 0.0)

    @torch.no_grad()
    def evaluate(self, items: Sequence[ReferencedPair], step: int, epoch: float) -> EvalRow:
        """Loss and implicit rewards on held-out pairs, in the same arithmetic as training."""
        start, sums = time.perf_counter(), PairSums()
        for group in self.micro_batches(items):
            policy, output, _ = self.score(group)
            sums.add(policy, output)
        return eval_row(sums, prompt_groups([item.pair for item in items]), step, epoch, time.perf_counter() - start)


def reference_logps(group: Sequence[ReferencedPair], policy: PairLogps) -> PairLogps:
    """The group's reference log-probabilities, on the policy's device and with its token counts."""
    chosen, rejected = (
        torch.tensor(values, dtype=policy.chosen_P.dtype, device=policy.chosen_P.device)
        for values in ([item.chosen_logp for item in group], [item.rejected_logp for item in group])
    )
    return PairLogps(chosen, rejected, policy.chosen_tokens_P, policy.rejected_tokens_P)
