"""Losses and gradients of every objective: the layout changes nothing, and all of it is what the equation says.

The oracle knows no packing: stock transformers scores one sequence at a time, and autograd does the rest.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import tiny_runs
import torch
from tiny_runs import at_work, examples_for, measured, moved, tiny_model
from torch import Tensor

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score
from tiltlm.model.token_values import TokenValues
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import MISMATCHED, Needs, Scored
from tiltlm.plan.batches import MicroBatch, Plan
from tiltlm.plan.row_layout import BLOCKS, DENSE, SEQUENCES, Layout
from tiltlm.training.bound_objective import BoundObjective, needs_scores
from tiltlm.training.losses import Losses, agreeing, backward, evaluated
from tiltlm.training.step_plans import Referenced

every = pytest.mark.parametrize("name", OBJECTIVES)
layouts = pytest.mark.parametrize("layout", [DENSE, BLOCKS, SEQUENCES])
WHOLE, CUT = 100_000, 40
EXAMPLES = [4, 0, 7, 2, 6, 1, 5]
"""The examples of a step, of nine, in an order of their own."""


def dyadic(values: np.ndarray) -> np.ndarray:
    """Rounded so that sums of them are exact in float32, in whatever order."""
    rounded: np.ndarray = (np.round(values * 256) / 256).astype(np.float32)
    return rounded


def scorer(step: float = 0.0) -> Scorer:
    """In float64 throughout, which not every architecture is inside transformers."""
    return moved(Scorer(tiny_model("gpt2", torch.float64)), step)


def bound(name: str) -> BoundObjective:
    """An objective of the table, with the reference at work where it wants one."""
    objective = tiny_runs.bound(name)
    return at_work(objective, scorer(0.05))


def given(objective: BoundObjective) -> Referenced:
    """Nine examples and a reference that is another model than the policy."""
    columns = examples_for(objective.needs, 9)
    if not objective.needs.reference:
        return Referenced(columns, None)
    return Referenced(columns, dyadic(score(scorer(0.05), columns, torch.float32, WHOLE)))


def gradients(policy: Scorer) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()
    return found


def packed_gradients(policy: Scorer, plan: Plan, objective: BoundObjective) -> tuple[dict[str, Tensor], float]:
    """The gradient of the weights, and the mean loss."""
    seen: list[Losses] = []
    backward(policy, plan, objective, torch.float32, seen.append)
    loss = sum(float(losses.output.losses_U.detach().sum()) for losses in seen) / objective.units(plan)
    return gradients(policy), loss


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert largest > 1e-4
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-10 * max(1.0, largest))


def oracle(policy: Scorer, examples: Referenced, numbers: list[int], objective: BoundObjective) -> Scored:
    """One sequence at a time, with its own full logits."""
    columns, needs = examples.columns, objective.needs
    policy_T: list[Tensor] = []
    reference_T: list[Tensor] = []
    squares_T: list[Tensor] = []
    divergence_T: list[Tensor] = []
    credit_T: list[Tensor] = []
    sequence_T: list[int] = []
    offset_T: list[int] = []
    labels: list[int] = []
    for number in (n for e in numbers for n in range(columns.members[e], columns.members[e + 1])):
        ids, first = torch.from_numpy(columns.sequence(number).ids).long(), int(columns.first_scored[number])
        logps = policy.model(input_ids=ids[None], use_cache=False).logits[0].log_softmax(-1)
        logps = logps[first - 1 : -1]
        policy_T.append(logps.gather(-1, ids[first:, None]).squeeze(-1))
        squares_T.append(logps.detach().exp().square().sum(-1).log())
        own = slice(columns.scored_starts[number], columns.scored_starts[number + 1])
        if columns.credit is not None:
            credit_T.append(torch.from_numpy(columns.credit[own]).to(logps.dtype))
        if objective.reference is not None:
            with torch.no_grad():
                logits = objective.reference.model(input_ids=ids[None], use_cache=False).logits
            others = logits[0].log_softmax(-1)[first - 1 : -1]
            divergence_T.append((others.exp() * (others - logps)).sum(-1))
            reference_T.append(others.gather(-1, ids[first:, None]).squeeze(-1))
        elif examples.reference is not None:
            reference_T.append(torch.from_numpy(examples.reference[own]))
        sequence_T += [len(labels)] * (len(ids) - first)
        offset_T += range(len(ids) - first)
        labels.append(int(columns.labels[number]))
    assert needs.reference == bool(reference_T)
    return Scored(
        logps_N=torch.stack([one.sum() for one in policy_T]),
        tokens_N=torch.tensor([len(one) for one in policy_T]),
        labels_N=torch.tensor(labels, dtype=torch.int8),
        reference_logps_N=torch.stack([one.sum() for one in reference_T]) if needs.reference else None,
        token_logps_T=torch.cat(policy_T) if needs.tokens else None,
        reference_token_logps_T=torch.cat(reference_T) if needs.tokens and needs.reference else None,
        sequence_T=torch.tensor(sequence_T) if needs.of_tokens else None,
        offset_T=torch.tensor(offset_T) if needs.of_tokens else None,
        log_squares_T=torch.cat(squares_T) if needs.squares else None,
        credit_T=torch.cat(credit_T) if needs.credit else None,
        reference_kl_T=torch.cat(divergence_T) if needs.live else None,
        scores_N=torch.from_numpy(columns.take(numbers).scores).double() if needs_scores(needs) else None,
        list_UK=lists_by_hand(columns.take(numbers)) if needs.unit == "list" else None,
        tokens_per_unit=tokens_per_unit(columns.take(numbers), needs),
        running={name: value.double() for name, value in objective.running.items()},
    )


def lists_by_hand(columns: TokenColumns) -> Tensor:
    rows = [
        sorted(range(first, end), key=lambda number: -columns.scores[number])
        for first, end in pairwise(columns.members.tolist())
    ]
    most = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (most - len(row))] for row in rows])


def tokens_per_unit(columns: TokenColumns, needs: Needs) -> float:
    own = columns.scored_tokens[columns.labels != MISMATCHED]
    return float(own.sum()) / (len(own) if needs.unit == "completion" else len(columns))


# Gradients


@every
@layouts
def test_micro_batches_have_the_gradient_of_one(name: str, layout: Layout) -> None:
    """Coupled objectives too: their slopes are taken over the whole batch and carried back part by part."""
    objective, policy = bound(name), scorer()
    examples = given(objective)
    whole, cut = (examples.plan(np.array(EXAMPLES), budget, layout) for budget in (WHOLE, CUT))
    assert len(whole.micro_batches) == 1
    assert len(cut.micro_batches) >= 3
    wanted, wanted_loss = packed_gradients(policy, whole, objective)
    found, loss = packed_gradients(policy, cut, objective)
    assert loss == pytest.approx(wanted_loss, rel=1e-12, abs=1e-12)
    assert_same(found, wanted)


@every
@layouts
@pytest.mark.parametrize("budget", [WHOLE, CUT])
def test_the_gradient_is_that_of_the_oracle(name: str, layout: Layout, budget: int) -> None:
    objective, policy = bound(name), scorer()
    examples = given(objective)
    plan = examples.plan(np.array(EXAMPLES), budget, layout)
    found, loss = packed_gradients(policy, plan, objective)

    losses_U = objective(objective.moved(oracle(policy, examples, EXAMPLES, objective))).losses_U
    assert len(losses_U) == objective.units(plan)
    losses_U.mean().backward()
    assert loss == pytest.approx(losses_U.mean().item(), rel=1e-12, abs=1e-12)
    assert_same(found, gradients(policy))


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if OBJECTIVES[name].needs.coupled])
def test_parts_alone_would_have_another_gradient(name: str) -> None:
    """Otherwise nothing above would have told."""
    objective, policy = bound(name), scorer()
    plan = given(objective).plan(np.array(EXAMPLES), CUT, DENSE)
    together, _ = packed_gradients(policy, plan, objective)
    for batch in plan.micro_batches:
        part = dataclasses.replace(plan, micro_batches=(batch,))
        backward(policy, part, objective, torch.float32, lambda losses: None)
    apart = gradients(policy)
    assert max(float((apart[n] - gradient).abs().max()) for n, gradient in together.items()) > 1e-6


@every
def test_gradients_are_added_to_those_there_are(name: str) -> None:
    objective, policy = bound(name), scorer()
    plan = given(objective).plan(np.array(EXAMPLES), CUT, DENSE)
    once, _ = packed_gradients(policy, plan, objective)
    for _ in range(2):
        backward(policy, plan, objective, torch.float32, lambda losses: None)
    for parameter, twice in gradients(policy).items():
        torch.testing.assert_close(twice, 2 * once[parameter], rtol=0, atol=1e-10)


@every
@pytest.mark.parametrize("budget", [WHOLE, CUT])
def test_only_coupled_micro_batches_are_passed_twice(name: str, budget: int) -> None:
    objective, policy = bound(name), scorer()
    plan = given(objective).plan(np.array(EXAMPLES), budget, DENSE)
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    policy.register_forward_pre_hook(count)
    seen: list[Losses] = []
    backward(policy, plan, objective, torch.float32, seen.append)
    parts, coupled = len(plan.micro_batches), objective.needs.coupled
    assert passes == (2 * parts if coupled and parts > 1 else parts)
    assert len(seen) == (1 if coupled else parts)


@every
def test_units_are_known_before_any_pass(name: str) -> None:
    objective = bound(name)
    examples = given(objective)
    plan = examples.plan(np.array(EXAMPLES), CUT, DENSE)
    labels = [label for e in EXAMPLES for label in examples.columns[e].labels if label != MISMATCHED]
    assert objective.units(plan) == (len(labels) if objective.needs.unit == "completion" else len(EXAMPLES))


# Evaluation


@every
@pytest.mark.parametrize("budget", [WHOLE, CUT])
def test_evaluated_losses_are_those_of_the_oracle_and_have_no_gradient(name: str, budget: int) -> None:
    objective, policy = bound(name), scorer()
    examples = given(objective)
    plan = examples.plan(range(9), budget, DENSE)
    found = list(evaluated(policy, plan, objective, torch.float32))
    assert len(found) == (1 if objective.needs.coupled else len(plan.micro_batches))
    order = [e for batch in plan.micro_batches for e in batch.examples.tolist()]
    wanted = objective(oracle(policy, examples, order, objective))
    for field in ("losses_U", "rewards_N"):
        value = torch.cat([getattr(losses.output, field) for losses in found])
        assert not value.requires_grad
        torch.testing.assert_close(value, getattr(wanted, field).detach(), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if OBJECTIVES[name].needs.reference])
def test_agreeing_with_the_reference_is_having_its_values(name: str) -> None:
    objective = bound(name)
    examples = given(objective)
    assert examples.reference is not None
    values = measured(objective, scorer(), examples.columns)
    scored = objective.scored_columns(examples.columns, values, examples.reference)
    own = values if values.ndim == 1 else np.concatenate([examples.reference[:, None], values[:, 1:]], axis=1)
    if objective.needs.live:
        own[:, -1] = 0
    same = objective.scored_columns(
        examples.columns, examples.reference if values.ndim == 1 else own, examples.reference
    )
    wanted = objective(same).losses_U
    torch.testing.assert_close(objective(agreeing(scored)).losses_U, wanted, rtol=1e-12, atol=0)
    if name in ("sigmoid", "ld_dpo"):
        assert wanted.mean().item() == pytest.approx(math.log(2))


# What an objective is given


def sequences_of(columns: TokenColumns, plan: Plan) -> list[int]:
    """The numbers of a plan's sequences in the columns, in the order of its micro-batches."""
    examples = [e for batch in plan.micro_batches for e in batch.examples.tolist()]
    return [n for e in examples for n in range(columns.members[e], columns.members[e + 1])]


def tokens_of(scored: Scored, numbers: list[int]) -> dict[tuple[int, int], tuple[float, float | None]]:
    """The values of a token, by the number of its sequence in the columns and its place in the completion."""
    assert scored.token_logps_T is not None
    assert scored.sequence_T is not None
    assert scored.offset_T is not None
    references: list[float | None] = [None] * len(scored.token_logps_T)
    if scored.reference_token_logps_T is not None:
        references = scored.reference_token_logps_T.tolist()
    places = [(numbers[n], t) for n, t in zip(scored.sequence_T.tolist(), scored.offset_T.tolist(), strict=True)]
    return dict(zip(places, zip(scored.token_logps_T.tolist(), references, strict=True), strict=True))


@every
@layouts
@pytest.mark.parametrize("budget", [WHOLE, CUT])
def test_columns_give_what_micro_batches_give(name: str, layout: Layout, budget: int) -> None:
    objective, rng = bound(name), np.random.default_rng(3)
    needs, columns = objective.needs, examples_for(objective.needs, 9)
    tokens = int(columns.scored_starts[-1])
    reference = dyadic(-3 * rng.random(tokens))
    values = dyadic(-3 * rng.random((tokens, *objective.columns.shape)))
    plan = Referenced(columns, reference).plan(range(9), budget, layout)

    def known(batch: MicroBatch) -> TokenValues:
        own = objective.columns.values(values[batch.places], torch.float32)
        return replace(own, reference_S=batch.reference_S)

    batches = objective.scored(plan.micro_batches, [known(batch) for batch in plan.micro_batches])
    whole = objective.scored_columns(columns, values, reference, torch.float32)
    numbers = sequences_of(columns, plan)
    for field in ("logps_N", "tokens_N", "labels_N", "reference_logps_N"):
        one, other = getattr(whole, field), getattr(batches, field)
        assert (one is None) == (other is None) == (field == "reference_logps_N" and not needs.reference), field
        if one is not None:
            assert one.dtype == other.dtype, field
            assert one[numbers].tolist() == other.tolist(), field
    assert (whole.token_logps_T is None) == (batches.token_logps_T is None) == (not needs.tokens)
    if needs.tokens:
        everything = list(range(columns.sequences))
        assert tokens_of(whole, everything) == tokens_of(batches, numbers)
        assert len(tokens_of(whole, everything)) == tokens
    first, second = objective(whole), objective(batches)
    torch.testing.assert_close(first.rewards_N[numbers], second.rewards_N)
    torch.testing.assert_close(first.losses_U.sort().values, second.losses_U.sort().values)


@every
def test_columns_are_seen_in_float64_unless_asked_otherwise(name: str) -> None:
    objective = bound(name)
    columns = examples_for(objective.needs, 3)
    reference = np.full(int(columns.scored_starts[-1]), -0.1, dtype=np.float32)
    values = np.full((len(reference), *objective.columns.shape), -0.1, dtype=np.float32)
    scored = objective.scored_columns(columns, values, reference)
    assert scored.logps_N.dtype == torch.float64
    assert scored.logps_N.tolist() == scored.logps_N.float().tolist(), "sums are those of float32"


def test_held_out_examples_are_on_the_device_a_micro_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[MicroBatch] = []
    move = MicroBatch.to

    def counted(batch: MicroBatch, device: torch.device) -> MicroBatch:
        moves.append(batch)
        return move(batch, device)

    objective = bound("sigmoid")
    plan = given(objective).plan(range(9), CUT, DENSE)
    assert len(plan.micro_batches) > 1
    monkeypatch.setattr(MicroBatch, "to", counted)
    for number, _ in enumerate(evaluated(scorer(), plan, objective, torch.float32), start=1):
        assert len(moves) == number
