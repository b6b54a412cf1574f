"""What is recorded of training: one row per step and per evaluation, in `metrics.jsonl`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from tiltlm.records import LossOutput, PairLogps
from tiltlm.runs.rows import EvalRow, RewardMeans, TrainRow, metrics_line
from tiltlm.statistics import effective_number, wilson_interval


class PairSums:
    """Sums over pairs that stay on the device until `means` brings them over, once."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._losses: list[Tensor] = []
        self.pairs = 0

    def add(self, policy: PairLogps, output: LossOutput) -> None:
        """Takes in one micro-batch."""
        difference_P = output.chosen_rewards_P - output.rejected_rewards_P
        losses_P = output.losses_P.detach()
        per_pair = (
            losses_P,
            output.chosen_rewards_P,
            output.rejected_rewards_P,
            difference_P,
            (difference_P > 0) + 0.5 * (difference_P == 0),
            policy.chosen_P.detach(),
            policy.rejected_P.detach(),
        )
        self._rows.append(torch.stack([values.float().sum() for values in per_pair]))
        self._losses.append(losses_P)
        self.pairs += len(losses_P)

    def means(self, *also: Tensor) -> tuple[RewardMeans, list[float]]:
        """The means, and the values of further scalars, in one transfer from the device."""
        sums = torch.stack(self._rows).sum(0) / self.pairs
        values = torch.cat([sums, *(scalar.detach().float().reshape(1) for scalar in also)]).tolist()
        fields = len(dataclasses.fields(RewardMeans))
        return RewardMeans(*values[:fields]), values[fields:]

    def non_finite(self) -> list[int]:
        """Which pairs, in the order they were added, have a loss that is NaN or infinite."""
        return torch.cat(self._losses).isfinite().logical_not().nonzero().flatten().tolist()


def eval_row(sums: PairSums, prompts: Sequence[int], step: int, epoch: float, seconds: float) -> EvalRow:
    """The row of an evaluation whose pairs are summed up.

    prompts: of each pair, the number of its prompt, which is the unit of the interval.
    """
    means, _ = sums.means()
    trials = effective_number(prompts)
    assert means.accuracy is not None  # every unit is a pair
    return EvalRow(
        step=step,
        epoch=epoch,
        examples=sums.pairs,
        **dataclasses.asdict(means),
        accuracy_interval=wilson_interval(means.accuracy * trials, trials),
        seconds=seconds,
    )


class MetricsLog:
    """Appends rows to `metrics.jsonl`; each is on disk before the next step starts."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, row: TrainRow | EvalRow) -> None:
        self._file.write(metrics_line(row))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
