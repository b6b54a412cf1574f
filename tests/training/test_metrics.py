"""Means over pairs and over labelled completions, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_runs import bound, examples_for

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED, LossOutput, Scored, Unit
from tiltlm.runs.rows import RewardMeans
from tiltlm.statistics import effective_number, wilson_interval
from tiltlm.training.losses import Losses
from tiltlm.training.metrics import Sums, eval_row


def losses(
    losses_U: list[float], rewards_N: list[float], logps_N: list[float], labels_N: list[int] | None = None
) -> Losses:
    """Of given numbers, as on a device in training: log-probabilities and losses have a gradient."""
    labels = [CHOSEN, REJECTED] * len(losses_U) if labels_N is None else labels_N
    scored = Scored(
        logps_N=torch.tensor(logps_N, requires_grad=True),
        tokens_N=torch.ones(len(labels), dtype=torch.int64),
        labels_N=torch.tensor(labels, dtype=torch.int8),
    )
    return Losses(scored, LossOutput(torch.tensor(losses_U, requires_grad=True), torch.tensor(rewards_N)))


def test_pairs_by_hand() -> None:
    """In two parts of uneven size: the means are those of all pairs, not of the parts' means."""
    sums = Sums("pair")
    sums.add(losses([1.0, 2.0], [3.0, 1.0, 0.5, 0.5], [-1.0, -2.0, -3.0, -4.0]))  # right, and a tie
    sums.add(losses([6.0], [-2.0, 1.0], [-8.0, -9.0]))  # wrong
    means, also = sums.means(torch.tensor(7.0), torch.tensor(8, dtype=torch.float64))
    assert sums.units == 3
    assert also == [7.0, 8.0]
    assert means.loss == pytest.approx(3.0)
    assert means.chosen_reward == pytest.approx((3.0 + 0.5 - 2.0) / 3)
    assert means.rejected_reward == pytest.approx((1.0 + 0.5 + 1.0) / 3)
    assert means.margin == pytest.approx((2.0 + 0.0 - 3.0) / 3)
    assert means.accuracy == pytest.approx((1 + 0.5 + 0) / 3)
    assert means.chosen_logp == pytest.approx((-1 - 3 - 8) / 3)
    assert means.rejected_logp == pytest.approx((-2 - 4 - 9) / 3)


def test_labelled_completions_by_hand() -> None:
    """Mismatched ones are in no figure; one is right whose reward has the sign of its label, and 0 counts half."""
    sums = Sums("completion")
    labels = [CHOSEN, MISMATCHED, REJECTED, MISMATCHED]
    sums.add(losses([1.0, 2.0], [2.0, 100.0, -1.0, 100.0], [-1.0, -50.0, -2.0, -50.0], labels))  # right, right
    sums.add(losses([3.0, 6.0, 3.0], [-4.0, 0.0, 5.0], [-3.0, -5.0, -9.0], [CHOSEN, CHOSEN, REJECTED]))  # no, half, no
    means, also = sums.means(torch.tensor(7.0))
    assert sums.units == 5
    assert also == [7.0]
    assert means.loss == pytest.approx(15 / 5)
    assert means.chosen_reward == pytest.approx((2 - 4 + 0) / 3)
    assert means.rejected_reward == pytest.approx((-1 + 5) / 2)
    assert means.margin == pytest.approx((2 - 4 + 0) / 3 - (-1 + 5) / 2)
    assert means.accuracy == pytest.approx((1 + 1 + 0 + 0.5 + 0) / 5)
    assert means.chosen_logp == pytest.approx((-1 - 3 - 5) / 3)
    assert means.rejected_logp == pytest.approx((-2 - 9) / 2)


@pytest.mark.parametrize(("label", "side", "other"), [(CHOSEN, "chosen", "rejected"), (REJECTED, "rejected", "chosen")])
def test_what_a_batch_has_none_of_is_none(label: int, side: str, other: str) -> None:
    sums = Sums("completion")
    sums.add(losses([1.0, 2.0], [1.0, 9.0, 3.0], [-1.0, -9.0, -4.0], [label, MISMATCHED, label]))
    means, _ = sums.means()
    assert getattr(means, f"{side}_reward") == pytest.approx(2.0)
    assert getattr(means, f"{side}_logp") == pytest.approx(-2.5)
    assert getattr(means, f"{other}_reward") is None
    assert getattr(means, f"{other}_logp") is None
    assert means.margin is None
    assert means.accuracy == (label == CHOSEN)
    assert means.loss == pytest.approx(1.5)


@pytest.mark.parametrize("unit", ["pair", "completion"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_units_that_are_not_finite_are_numbered_as_they_came(unit: Unit, bad: float) -> None:
    sums = Sums(unit)
    sums.add(losses([1.0, 2.0], [0.0] * 4, [0.0] * 4, [CHOSEN, REJECTED, CHOSEN, REJECTED]))
    assert bool(sums.finite())
    assert sums.non_finite() == []
    sums.add(losses([3.0, bad, 5.0, bad], [0.0] * 8, [0.0] * 8, [CHOSEN, REJECTED] * 4))
    assert not bool(sums.finite())
    assert sums.non_finite() == [3, 5]
    assert not math.isfinite(sums.means()[0].loss)


def test_infinities_of_both_signs_do_not_cancel() -> None:
    sums = Sums("pair")
    sums.add(losses([math.inf], [0.0] * 2, [0.0] * 2))
    sums.add(losses([-math.inf], [0.0] * 2, [0.0] * 2))
    assert not bool(sums.finite())


def test_nothing_is_kept_alive_by_the_sums() -> None:
    sums = Sums("pair")
    sums.add(losses([1.0], [1.0, 0.0], [-1.0, -2.0]))
    assert not sums.finite().requires_grad
    assert all(not row.requires_grad for row in (*sums._rows, *sums._losses))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("cuts", [[3, 6], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_parts_add_up(name: str, cuts: list[int]) -> None:
    """Of an objective's own rewards, on examples of its kind: cut anywhere, the means are the same."""
    objective = bound(name)
    columns = examples_for(objective.needs, 9)
    generator = torch.Generator().manual_seed(0)
    tokens = int(columns.scored_starts[-1])
    values = -torch.rand((tokens, *objective.columns.shape), generator=generator)
    reference = -torch.rand(tokens, generator=generator)
    scored = objective.scored_columns(columns, values.numpy(), reference.numpy(), torch.float32)
    output = objective(scored)
    whole, parts = Sums(objective.needs.unit), Sums(objective.needs.unit)
    whole.add(Losses(scored, output))
    own = [int((columns.labels[columns.members[e] : columns.members[e + 1]] != MISMATCHED).sum()) for e in range(9)]
    units = torch.tensor(own if objective.needs.unit == "completion" else [1] * 9).cumsum(0).tolist()
    for start, end in zip([0, *cuts], [*cuts, 9], strict=True):
        sequences = slice(int(columns.members[start]), int(columns.members[end]))
        some = slice(units[start - 1] if start else 0, units[end - 1])
        part = Scored(
            scored.logps_N[sequences],
            scored.tokens_N[sequences],
            scored.labels_N[sequences],
            scores_N=None if scored.scores_N is None else scored.scores_N[sequences],
            list_UK=None if scored.list_UK is None else lists_from(scored.list_UK[some], sequences.start),
        )
        parts.add(Losses(part, LossOutput(output.losses_U[some], output.rewards_N[sequences])))
    assert parts.units == whole.units == units[-1]
    one, other = whole.means()[0], parts.means()[0]
    for field in ("loss", "chosen_reward", "rejected_reward", "margin", "accuracy", "chosen_logp", "rejected_logp"):
        assert (getattr(one, field) is None) == (getattr(other, field) is None), field
        wanted = getattr(other, field)
        assert getattr(one, field) == (wanted if wanted is None else pytest.approx(wanted, rel=1e-6, abs=1e-5)), field


def test_demonstrations_by_hand() -> None:
    """Nothing is compared with them, so there is neither reward nor margin nor accuracy."""
    sums = Sums("demonstration")
    sums.add(losses([1.0, 2.0], [5.0, 6.0], [-1.0, -2.0], [CHOSEN, CHOSEN]))
    sums.add(losses([6.0], [7.0], [-6.0], [CHOSEN]))
    means, also = sums.means(torch.tensor(7.0))
    assert also == [7.0]
    assert means == RewardMeans(loss=3.0, chosen_logp=-3.0)


def lists_from(list_UK: torch.Tensor, first: int) -> torch.Tensor:
    return list_UK.where(list_UK < 0, list_UK - first)


def test_lists_by_hand() -> None:
    """Scores 3, 1, 1 with rewards 2, 0, 5, and scores 2, 1 with rewards 1, 1; the best against the worst."""
    sums = Sums("list")
    scored = Scored(
        logps_N=torch.tensor([-1.0, -2.0, -4.0, -5.0, -6.0]),
        tokens_N=torch.ones(5, dtype=torch.int64),
        labels_N=torch.tensor([CHOSEN, REJECTED, REJECTED, CHOSEN, REJECTED], dtype=torch.int8),
        scores_N=torch.tensor([3.0, 1.0, 1.0, 2.0, 1.0]),
        list_UK=torch.tensor([[0, 1, 2], [3, 4, -1]]),
    )
    sums.add(Losses(scored, LossOutput(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0, 5.0, 1.0, 1.0]))))
    means, _ = sums.means()
    assert means.loss == pytest.approx(1.5)
    assert [means.chosen_reward, means.rejected_reward] == pytest.approx([1.5, 1.75])
    assert means.margin == pytest.approx((2 - 2.5 + 0) / 2)
    assert means.accuracy == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert [means.chosen_logp, means.rejected_logp] == pytest.approx([-3.0, -4.5])


def test_the_row_of_an_evaluation() -> None:
    """Its interval knows that examples of one prompt are not independent."""
    sums = Sums("pair")
    sums.add(losses([1.0, 2.0, 3.0], [1.0, 0.0, 1.0, 0.0, 0.0, 1.0], [-1.0] * 6))
    row = eval_row(sums, [0, 0, 1], 7, 0.5, 2.0)
    trials = effective_number([0, 0, 1])
    assert (row.step, row.epoch, row.examples, row.seconds) == (7, 0.5, 3, 2.0)
    assert row.loss == pytest.approx(2.0)
    assert row.accuracy == pytest.approx(2 / 3)
    assert row.accuracy_interval == pytest.approx(wilson_interval(trials * 2 / 3, trials))


def test_the_row_of_an_evaluation_of_one_kind_of_completion() -> None:
    sums = Sums("completion")
    sums.add(losses([1.0, 2.0], [1.0, 2.0], [-1.0, -3.0], [CHOSEN, CHOSEN]))
    row = eval_row(sums, [0, 1], 0, 0.0, 0.0)
    assert (row.rejected_reward, row.margin, row.rejected_logp) == (None, None, None)
    assert (row.chosen_reward, row.chosen_logp, row.accuracy) == (1.5, -2.0, 1.0)
