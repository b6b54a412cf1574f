"""`tr_dpo`, `tr_ipo`, `tr_kto`: the losses are those of the others, and the reference moves as the paper has it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from scored_examples import losses, random_examples, scored
from tiny_runs import Kept, at_work, bound, examples_for, moved, referenced, tiny_model, trainer

from tiltlm.config import TrainingConfig
from tiltlm.errors import ModelError
from tiltlm.model.scorer import Scorer
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import ReferenceUpdate
from tiltlm.objectives.trust_region import following
from tiltlm.training.loop import Trainer
from tiltlm.training.moving_reference import move, require_alike
from tiltlm.training.stop import StopRequest

BASES = {"tr_dpo": "sigmoid", "tr_ipo": "ipo", "tr_kto": "kto"}
each = pytest.mark.parametrize(("name", "base"), BASES.items())
Weights = list[torch.Tensor]


@each
def test_the_loss_is_that_of_the_objective_it_is_made_of(name: str, base: str) -> None:
    given_scored = scored(random_examples(OBJECTIVES[base].needs, 20, seed=5), OBJECTIVES[base].needs)
    assert losses(OBJECTIVES[name], given_scored, beta=0.3) == losses(OBJECTIVES[base], given_scored, beta=0.3)
    assert OBJECTIVES[name].needs == OBJECTIVES[base].needs


@each
def test_its_settings_are_those_of_that_one_and_how_the_reference_follows(name: str, base: str) -> None:
    own = OBJECTIVES[name].settings(beta=0.25, alpha=0.5, update_every=64)
    assert vars(OBJECTIVES[base].settings(beta=0.25)).items() <= vars(own).items()
    assert following(own) == ReferenceUpdate(weight=0.5, every=64)
    assert following(OBJECTIVES[name].settings()) == ReferenceUpdate(weight=0.6, every=1), "soft, after every step"
    for wrong in ({"alpha": 0.0}, {"alpha": 1.1}, {"update_every": 0}, {"update_every": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            OBJECTIVES[name].settings(**wrong)


def weights(scorer: Scorer) -> Weights:
    return [parameter.detach().clone() for parameter in scorer.parameters()]


@pytest.mark.parametrize("weight", [0.25, 0.6, 1.0])
def test_moving_is_the_weighted_sum_of_weights(weight: float) -> None:
    """theta_ref <- alpha * theta + (1 - alpha) * theta_ref (arXiv 2404.09656, section 3)."""
    policy, reference = Scorer(tiny_model()), moved(Scorer(tiny_model()), 0.3)
    before, target = weights(reference), weights(policy)
    move(reference, policy, ReferenceUpdate(weight, 1))
    for own, old, new in zip(weights(reference), before, target, strict=True):
        torch.testing.assert_close(own, weight * new + (1 - weight) * old)
        if weight == 1:
            assert torch.equal(own, new)
    assert all(torch.equal(one, other) for one, other in zip(weights(policy), target, strict=True))


def test_a_reference_that_is_built_otherwise_cannot_follow() -> None:
    require_alike(Scorer(tiny_model()), Scorer(tiny_model()))
    with pytest.raises(ModelError, match=r"built differently \(.*leave model.reference out"):
        require_alike(Scorer(tiny_model("gpt2")), Scorer(tiny_model()))


def made(tmp_path: Path, **settings: float) -> Trainer:
    scorer, objective = Scorer(tiny_model()), bound("tr_dpo", **settings)
    examples = referenced(scorer, examples_for(objective.needs, 8), tmp_path)
    training = TrainingConfig(max_steps=6, batch_pairs=4, learning_rate=1e-2, eval_every=2)
    return trainer(scorer, examples, training=training, loss=at_work(objective, scorer))


def references(maker: Trainer) -> list[Weights]:
    """The reference's weights and the policy's after every step, in turns; those before the first step first."""
    assert maker.objective.reference is not None
    reference = maker.objective.reference
    found = [weights(reference), weights(maker.scorer)]
    with StopRequest() as stop:
        maker.train(
            stop, Kept(), after_step=lambda trainer: found.extend((weights(reference), weights(trainer.scorer)))
        )
    return found


def test_soft_updates_come_after_every_step(tmp_path: Path) -> None:
    found = references(made(tmp_path, alpha=0.3))
    for before, after, policy in zip(found[::2], found[2::2], found[3::2], strict=False):
        for old, new, target in zip(before, after, policy, strict=True):
            torch.testing.assert_close(new, 0.3 * target + 0.7 * old)


def test_hard_updates_come_after_every_tau_steps_and_not_between(tmp_path: Path) -> None:
    found = references(made(tmp_path, alpha=1.0, update_every=3))
    own, policy = found[::2], found[1::2]
    for step in range(1, 7):
        wanted = policy[step] if step % 3 == 0 else own[step - 1]
        assert all(torch.equal(one, other) for one, other in zip(own[step], wanted, strict=True)), step


def test_a_copied_reference_begins_again_at_ln_2(tmp_path: Path) -> None:
    maker, kept = made(tmp_path, alpha=1.0, update_every=2), Kept()
    with StopRequest() as stop:
        maker.train(stop, kept)
    assert [kept.losses[step] for step in (0, 2, 4)] == pytest.approx([0.693147] * 3, abs=1e-4)
    assert all(abs(kept.losses[step] - 0.693147) > 1e-3 for step in (1, 3, 5))


def test_evaluations_are_against_the_first_reference_and_the_moved_one_besides(tmp_path: Path) -> None:
    maker, kept = made(tmp_path, alpha=1.0, update_every=2), Kept()
    with StopRequest() as stop:
        maker.train(stop, kept)
    first, *others = kept.evaluations
    assert first.moving_margin is None
    for row in others:  # each just after a copy
        assert (row.moving_loss, row.moving_margin) == pytest.approx((0.693147, 0.0), abs=1e-4)
        assert row.margin is not None and row.margin > 0.01
    plain = trainer(maker.scorer, maker.train_examples, loss=bound("sigmoid")).evaluate()
    assert (others[-1].loss, others[-1].margin) == pytest.approx((plain.loss, plain.margin), abs=1e-6)


def test_the_reference_takes_no_gradient_and_no_step_of_its_own(tmp_path: Path) -> None:
    maker = made(tmp_path, alpha=1.0, update_every=1000)
    assert maker.objective.reference is not None
    before = copy.deepcopy(weights(maker.objective.reference))
    found = references(maker)
    assert all(torch.equal(one, other) for one, other in zip(found[-2], before, strict=True))
    assert not any(parameter.requires_grad for parameter in maker.objective.reference.parameters())
