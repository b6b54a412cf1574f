"""Means over the examples of a step or an evaluation, kept on the device until a row is made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tiltlm.distributed.ranks import Ranks
from tiltlm.objectives.interface import CHOSEN, REJECTED, Unit, sides
from tiltlm.runs.rows import EvalRow, RewardMeans
from tiltlm.statistics import effective_number, wilson_interval
from tiltlm.training.losses import Losses

_Columns = Callable[[Losses], tuple[Tensor, ...]]


class Sums:
    """Sums over units that stay on the device until `means` brings them over, once.

    Of pairs the chosen and the rejected answers are compared one by one. Of labelled completions those labelled chosen
    are set against those labelled rejected, and one counts as right where its reward has the sign of its label. Of
    lists the best answers are set against the worst, and what is right is the share of ordered pairs in which the
    better one has the higher reward; equals count half. Of demonstrations there is nothing to compare: their loss and
    log-probability alone are known.
    """

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._rows: list[Tensor] = []
        self._losses: list[Tensor] = []
        self.units = 0

    def add(self, losses: Losses) -> None:
        """Takes in the losses of some examples."""
        losses_U = losses.output.losses_U.detach()
        summed = (losses_U, *_SUMMED[self._unit](losses))
        self._rows.append(torch.stack([values.float().sum() for values in summed]))
        self._losses.append(losses_U)
        self.units += len(losses_U)

    def over(self, ranks: Ranks, device: torch.device, units: int, *also: float) -> list[Tensor]:
        """Makes the sums those of all ranks, each of which took in the losses of its own examples; in one collective.

        units: of all ranks together. also: further numbers, of which the sums over the ranks are given, as scalars;
            none where there is one rank.
        """
        if not ranks.several:
            return []
        own = torch.stack(self._rows).sum(0) if self._rows else torch.zeros(_WIDTH[self._unit], device=device)
        numbers = torch.tensor(also, dtype=torch.float64).to(device, non_blocking=True)
        summed = ranks.sum(torch.cat([own.double(), numbers]))
        self._rows, self.units = [summed[: len(own)].float()], units
        return list(summed[len(own) :].unbind())

    def means(self, *also: Tensor) -> tuple[RewardMeans, list[float]]:
        """The means, and the values of further scalars, in one transfer from the device."""
        scalars = [scalar.detach().float().reshape(1) for scalar in also]
        total = torch.stack(self._rows).sum(0)
        if self._unit == "completion":
            values = torch.cat([total, *scalars]).tolist()
            return _means_of_completions(values[: len(total)], self.units), values[len(total) :]
        values = torch.cat([total / self.units, *scalars]).tolist()
        names = ("chosen_logp",) if self._unit == "demonstration" else _NAMES
        return (
            RewardMeans(loss=values[0], **dict(zip(names, values[1 : len(total)], strict=True))),
            values[len(total) :],
        )

    def finite(self) -> Tensor:
        """Whether all losses are finite, still on the device."""
        return torch.stack([row[0] for row in self._rows]).sum().isfinite()

    def non_finite(self) -> list[int]:
        """Which units, in the order they were added, have a loss that is NaN or infinite."""
        if not self._losses:  # of several ranks, one that has no examples, or whose losses another has
            return []
        return torch.cat(self._losses).isfinite().logical_not().nonzero().flatten().tolist()


_WIDTH: Mapping[Unit, int] = {"pair": 7, "completion": 7, "list": 7, "demonstration": 2}
"""How many sums there are, the loss's first."""
_NAMES = ("chosen_reward", "rejected_reward", "margin", "accuracy", "chosen_logp", "rejected_logp")


def _of_pairs(losses: Losses) -> tuple[Tensor, ...]:
    """What is summed of pairs, as _NAMES."""
    chosen_P, rejected_P = (side_P.contiguous() for side_P in sides(losses.output.rewards_N))
    chosen_logp_P, rejected_logp_P = sides(losses.scored.logps_N.detach())
    difference_P = chosen_P - rejected_P
    right_P = (difference_P > 0) + 0.5 * (difference_P == 0)
    return (chosen_P, rejected_P, difference_P, right_P, chosen_logp_P, rejected_logp_P)


def _of_lists(losses: Losses) -> tuple[Tensor, ...]:
    """What is summed of lists, as _NAMES."""
    scored = losses.scored
    assert scored.scores_N is not None
    rewards_UK, there_UK = scored.in_lists(losses.output.rewards_N)
    scores_UK, _ = scored.in_lists(scored.scores_N)
    logps_UK, _ = scored.in_lists(scored.logps_N.detach())
    ordered_UKK = (scores_UK[:, :, None] > scores_UK[:, None, :]) & there_UK[:, :, None] & there_UK[:, None, :]
    differences_UKK = rewards_UK[:, :, None] - rewards_UK[:, None, :]
    right_UKK = ((differences_UKK > 0) + 0.5 * (differences_UKK == 0)) * ordered_UKK
    # The best stand first, and the last that is there is among the worst.
    lowest_U = scores_UK.masked_fill(~there_UK, torch.inf).amin(dim=1, keepdim=True)
    best_UK, worst_UK = (scores_UK == scores_UK[:, :1]) & there_UK, (scores_UK == lowest_U) & there_UK

    def mean(values_UK: Tensor, of_UK: Tensor) -> Tensor:
        return (values_UK * of_UK).sum(dim=1) / of_UK.sum(dim=1)

    best_U, worst_U = mean(rewards_UK, best_UK), mean(rewards_UK, worst_UK)
    right_U = right_UKK.sum(dim=(1, 2)) / ordered_UKK.sum(dim=(1, 2))
    return (best_U, worst_U, best_U - worst_U, right_U, mean(logps_UK, best_UK), mean(logps_UK, worst_UK))


def _of_demonstrations(losses: Losses) -> tuple[Tensor, ...]:
    return (losses.scored.logps_N.detach(),)


def _of_completions(losses: Losses) -> tuple[Tensor, ...]:
    labels_N, rewards_N = losses.scored.labels_N, losses.output.rewards_N
    logps_N = losses.scored.logps_N.detach()
    chosen, rejected = labels_N == CHOSEN, labels_N == REJECTED
    right_N = (rewards_N > 0) * chosen + (rewards_N < 0) * rejected + 0.5 * (rewards_N == 0) * (chosen | rejected)
    return (rewards_N * chosen, rewards_N * rejected, chosen, right_N, logps_N * chosen, logps_N * rejected)


def _means_of_completions(sums: Sequence[float], units: int) -> RewardMeans:
    loss, chosen_reward, rejected_reward, chosen, right, chosen_logp, rejected_logp = sums
    rejected = units - chosen
    rewards = (_mean(chosen_reward, chosen), _mean(rejected_reward, rejected))
    margin = None if rewards[0] is None or rewards[1] is None else rewards[0] - rewards[1]
    values = (*rewards, margin, right / units, _mean(chosen_logp, chosen), _mean(rejected_logp, rejected))
    return RewardMeans(loss=loss / units, **dict(zip(_NAMES, values, strict=True)))


_SUMMED: Mapping[Unit, _Columns] = {
    "pair": _of_pairs,
    "completion": _of_completions,
    "list": _of_lists,
    "demonstration": _of_demonstrations,
}


def _mean(total: float, count: float) -> float | None:
    return total / count if count else None


def eval_row(sums: Sums, prompts: Sequence[int], step: int, epoch: float, seconds: float) -> EvalRow:
    """The row of an evaluation whose examples are summed up.

    prompts: of each example, the number of its prompt, which is the unit of the interval.
    """
    means, _ = sums.means()
    trials = effective_number(prompts)
    interval = None if means.accuracy is None else wilson_interval(means.accuracy * trials, trials)
    return EvalRow(
        **dataclasses.asdict(means),
        step=step,
        epoch=epoch,
        examples=len(prompts),
        accuracy_interval=interval,
        seconds=seconds,
    )
