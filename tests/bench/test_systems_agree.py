"""What is timed does the same work: the naive loop and every ablation give the losses and gradients of training."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import SHAREABLE, UNSHAREABLE, build
from tiny_runs import bound, pairs, referenced, tiny_model
from torch import Tensor

from tiltlm.bench.ablations import COMPOSITIONS, without_packing, without_sharing
from tiltlm.bench.naive_loop import completion_logps, naive_loss
from tiltlm.bench.own_training import as_trained
from tiltlm.bench.rounds import without_effect
from tiltlm.bench.systems import ABLATED, QUOTIENTS, SYSTEMS
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.scorer import Scorer
from tiltlm.plan.batches import Plan
from tiltlm.training.losses import Losses, backward
from tiltlm.training.step_plans import Referenced

OWN = [name for name in COMPOSITIONS if name != "compiled"]  # which needs a compiler, and half a minute of it


def shared(count: int) -> TokenColumns:
    """Pairs, the last of which has the first one's prompt."""
    columns = pairs(count)
    first = columns[0]
    again = type(first).pair("again", first.rejected, first.chosen)
    return TokenColumns.of([*columns, again])


def gradients(scorer: Scorer, plan: Plan) -> tuple[float, dict[str, Tensor]]:
    """The mean loss and the gradients of a plan, by training's own functions."""
    seen: list[Losses] = []
    scorer.zero_grad()
    backward(scorer, plan, bound(), torch.float32, seen.append)
    loss = sum(float(one.output.losses_U.sum().detach()) for one in seen) / plan.examples
    return loss, {name: own.grad.clone() for name, own in scorer.model.named_parameters() if own.grad is not None}


def close(ours: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert ours.keys() == others.keys()
    size = max(float(one.abs().max()) for one in ours.values())
    for name, gradient in ours.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-5 * size)


@pytest.fixture
def known(tmp_path: Path) -> tuple[Scorer, Referenced]:
    scorer = Scorer(tiny_model())
    return scorer, referenced(scorer, shared(7), tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "mistral, sliding window"])
def test_the_naive_loop_is_dpo(name: str, tmp_path: Path) -> None:
    scorer = Scorer(tiny_model(name))
    known = referenced(scorer, shared(7), tmp_path)
    reference = copy.deepcopy(scorer.model).requires_grad_(False)
    loss, ours = gradients(scorer, known.plan(range(8), 100, scorer.layout))
    scorer.zero_grad()
    naive = naive_loss(scorer.model, reference, list(known.columns), beta=0.1)
    naive.backward()
    assert naive.item() == pytest.approx(math.log(2), abs=1e-6)
    assert loss == pytest.approx(math.log(2), abs=1e-6)
    close(ours, {name: own.grad for name, own in scorer.model.named_parameters() if own.grad is not None})
    assert all(own.grad is None for own in reference.parameters())


def test_the_naive_loops_log_probabilities_are_those_of_the_scorer(known: tuple[Scorer, Referenced]) -> None:
    scorer, examples = known
    columns = examples.columns
    with torch.no_grad():
        sums = completion_logps(scorer.model, [columns.sequence(number) for number in range(columns.sequences)])
    assert examples.reference is not None
    own = np.add.reduceat(examples.reference, columns.scored_starts[:-1])
    np.testing.assert_allclose(sums.numpy(), own, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("budget", [10_000, 60])
def test_an_ablation_gives_what_training_gives(name: str, budget: int, known: tuple[Scorer, Referenced]) -> None:
    scorer, examples = known
    composition, some = COMPOSITIONS[name], np.array([7, 0, 2, 3, 5])
    loss, ours = gradients(scorer, as_trained(examples, some, budget, scorer))
    other = composition.scorer(scorer)
    again, others = gradients(other, composition.planned(examples, some, budget, other))
    assert again == pytest.approx(loss, abs=1e-6)
    close(ours, others)


def test_without_sharing_every_token_is_laid_out(known: tuple[Scorer, Referenced]) -> None:
    scorer, examples = known
    columns, some = examples.columns, np.array([0, 7, 3])
    whole = as_trained(examples, some, 10_000, scorer)
    apart = without_sharing(examples, some, 10_000, scorer)
    lengths = np.diff(columns.bounds)
    assert apart.laid_out == sum(int(lengths[2 * e : 2 * e + 2].sum()) - 2 for e in some) > whole.laid_out
    (batch,) = apart.micro_batches
    assert sorted(batch.examples.tolist()) == sorted(some.tolist())
    assert batch.tokens_RL.max() < scorer.head.out_features


def test_without_packing_each_pair_is_a_pass(known: tuple[Scorer, Referenced]) -> None:
    scorer, examples = known
    made = without_packing(examples, np.arange(4), 10_000, scorer)
    assert sorted(batch.examples.tolist() for batch in made.micro_batches) == [[0], [1], [2], [3]]
    assert all(len(batch.tokens_RL) == 1 for batch in made.micro_batches)


def test_without_a_scored_list_the_output_layer_is_run_on_every_column(known: tuple[Scorer, Referenced]) -> None:
    scorer, examples = known
    (batch,) = as_trained(examples, np.arange(5), 10_000, scorer).micro_batches
    rows: list[int] = []
    every = COMPOSITIONS["no-scored-list"].scorer(scorer)

    def counted(hidden: Tensor, tokens: Tensor, *_: object) -> Tensor:
        rows.append(len(hidden))
        return torch.zeros(len(tokens))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiltlm.bench.ablations.token_logps", counted)
        assert len(every(batch)) == len(batch.score_at_S)
    repeated = len(batch.score_at_S) - len(batch.score_at_S.unique())
    assert rows == [batch.tokens_RL.numel() + repeated]


def test_every_system_is_put_together_and_compared() -> None:
    assert set(COMPOSITIONS) == {one.name for one in SYSTEMS.values() if one.maker == "ours"}
    assert {name for quotient in QUOTIENTS for name in quotient} == set(SYSTEMS)
    assert all(not one.live for one in ABLATED)


@pytest.mark.parametrize(
    ("model", "device", "left_out"),
    [
        ("llama", "cpu", set()),
        ("llama", "cuda", {"dense-mask"}),
        ("mamba", "cpu", {"no-sharing", "no-packing", "dense-mask"}),
    ],
)
def test_what_would_change_nothing_is_left_out(model: str, device: str, left_out: set[str]) -> None:
    made = build(SHAREABLE[model]() if model in SHAREABLE else UNSHAREABLE[model][0]())
    assert set(without_effect(Scorer(made).model, torch.device(device))) == left_out


def test_under_a_dense_mask_there_are_no_blocks(known: tuple[Scorer, Referenced]) -> None:
    scorer, examples = known
    for name, blocks in (("ours", True), ("dense-mask", False)):
        made = COMPOSITIONS[name].planned(examples, np.arange(4), 10_000, scorer)
        assert all((batch.blocks is not None) == blocks for batch in made.micro_batches)
