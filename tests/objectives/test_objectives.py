"""What holds for every objective, whatever its equation: a new one is held to it by being declared."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter
from scored_examples import Completion, random_examples, scored, with_running
from torch import Tensor

from tiltlm.objectives import ALIASES, OBJECTIVES, gathered
from tiltlm.objectives.divergences import Divergence
from tiltlm.objectives.interface import MISMATCHED, Objective, Scored, sides
from tiltlm.training.derivatives import HeldFixed, finite_differences

every = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


def of(
    objective: Objective, examples: list[list[Completion]], batch: list[list[Completion]] | None = None
) -> tuple[Tensor, Tensor]:
    """Losses and rewards as in the first step of a training.

    batch: of which `examples` are a part, for what is known of it beforehand.
    """
    output = objective.loss(given(objective, examples, batch), objective.settings())
    return output.losses_U, output.rewards_N


def given(
    objective: Objective, examples: list[list[Completion]], batch: list[list[Completion]] | None = None
) -> Scored:
    return with_running(scored(examples, objective.needs, batch), objective, objective.settings())


@every
def test_one_loss_a_unit_and_one_detached_reward_a_sequence(objective: Objective) -> None:
    examples = random_examples(objective.needs, 5)
    for example in examples:
        for completion in example:
            completion.policy.requires_grad_()
    losses_U, rewards_N = of(objective, examples)
    assert losses_U.shape == (5,)
    assert rewards_N.shape == (sum(len(example) for example in examples),)
    assert losses_U.requires_grad
    assert not rewards_N.requires_grad, "detach the rewards: they are reported, not learned from"


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_come_in_the_type_of_the_log_probabilities(objective: Objective, dtype: torch.dtype) -> None:
    examples = [
        [dataclasses.replace(one, policy=one.policy.to(dtype), reference=one.reference.to(dtype)) for one in example]
        for example in random_examples(objective.needs, 3)
    ]
    assert all(values.dtype == dtype for values in of(objective, examples))


@every
def test_the_gradient_is_that_of_finite_differences(objective: Objective) -> None:
    """In every token of every completion but mismatched ones, which only set a level and are not trained. Of an
    objective that keeps a part of its loss from the gradient, with that part as it was; else the two would differ. So
    are statistics that the objective keeps."""
    examples = random_examples(objective.needs, 4, seed=1)
    trained = [one for example in examples for one in example if one.label != MISMATCHED]
    settings, running = objective.settings(), given(objective, examples).running
    divergences = [one.divergence for one in trained if one.divergence is not None]

    def loss(values: Sequence[Tensor]) -> Tensor:
        changed = dict(zip(map(id, trained), values, strict=False))
        apart = dict(zip(map(id, trained), values[len(trained) :], strict=False))
        stepped = [
            [
                dataclasses.replace(
                    one, policy=changed.get(id(one), one.policy), divergence=apart.get(id(one), one.divergence)
                )
                for one in e
            ]
            for e in examples
        ]
        own = dataclasses.replace(scored(stepped, objective.needs), running=running)
        losses_U: Tensor = objective.loss(own, settings).losses_U
        return losses_U.square().sum()

    values = [one.policy for one in trained] + divergences
    leaves = [value.clone().requires_grad_() for value in values]
    held = HeldFixed()
    with held:
        total = loss(leaves)
    wanted = torch.autograd.grad(total, leaves, materialize_grads=True)

    def loss_held(values: Sequence[Tensor]) -> Tensor:
        with held:
            return loss(values)

    found = finite_differences(loss_held if objective.detaches else loss, values)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    if objective.detaches:
        whole = finite_differences(loss, values)
        assert not all(torch.allclose(one, other, rtol=1e-4) for one, other in zip(whole, wanted, strict=True))


@every
def test_examples_in_another_order_have_their_losses_in_that_order(objective: Objective) -> None:
    examples = random_examples(objective.needs, 6, seed=2)
    order = [3, 0, 5, 1, 4, 2]
    losses_U, _ = of(objective, examples)
    shuffled_U, _ = of(objective, [examples[number] for number in order])
    torch.testing.assert_close(shuffled_U, losses_U[order], rtol=1e-14, atol=1e-14)


@every
def test_only_coupled_losses_depend_on_the_batch(objective: Objective) -> None:
    examples = random_examples(objective.needs, 6, seed=3, spread=3.0)
    whole, _ = of(objective, examples)
    parts = torch.cat([of(objective, examples[:2], examples)[0], of(objective, examples[2:], examples)[0]])
    assert torch.allclose(whole, parts, rtol=1e-12, atol=0) != objective.needs.coupled


def require_finite(objective: Objective, examples: list[list[Completion]], settings: Any) -> None:
    """Loss, rewards and the gradient in every token of the policy."""
    policies = [one.policy.clone().requires_grad_() for example in examples for one in example]
    drawn = iter(policies)
    learnt = [[dataclasses.replace(one, policy=next(drawn)) for one in example] for example in examples]
    output = objective.loss(with_running(scored(learnt, objective.needs), objective, settings), settings)
    output.losses_U.sum().backward()
    assert output.losses_U.isfinite().all()
    assert output.rewards_N.isfinite().all()
    assert all(policy.grad is None or policy.grad.isfinite().all() for policy in policies)


def in_type(examples: list[list[Completion]], dtype: torch.dtype) -> list[list[Completion]]:
    return [
        [dataclasses.replace(one, policy=one.policy.to(dtype), reference=one.reference.to(dtype)) for one in example]
        for example in examples
    ]


VARIANTS = [
    pytest.param(objective, settings, id=f"{objective.name}-{settings.divergence}")
    for objective in OBJECTIVES.values()
    if hasattr(objective.settings(), "divergence")
    for settings in (objective.settings(divergence=kind) for kind in get_args(get_args(Divergence)[0]))
]
ALL_SETTINGS = VARIANTS + [
    pytest.param(objective, objective.settings(), id=name) for name, objective in OBJECTIVES.items()
]
types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.mark.parametrize(("objective", "settings"), ALL_SETTINGS)
@pytest.mark.parametrize("ratio", [-1e4, -100.0, 100.0, 1e4])
@types
def test_far_from_the_reference_loss_and_gradient_are_finite(
    objective: Objective, settings: Any, ratio: float, dtype: torch.dtype
) -> None:
    """All log-ratios far either way, both sides opposed, and each side alone; in float32, as in training, and in
    float64."""
    for far in ((ratio, ratio), (ratio, -ratio), (ratio, 0.0), (0.0, ratio)):
        examples = random_examples(objective.needs, 4, seed=4, same=True)
        displaced = [
            [
                dataclasses.replace(one, policy=one.policy + far[place % 2] / len(one.policy))
                for place, one in enumerate(example)
            ]
            for example in examples
        ]
        require_finite(objective, in_type(displaced, dtype), settings)


@pytest.mark.parametrize(("objective", "settings"), ALL_SETTINGS)
@types
def test_equal_inputs_are_finite(objective: Objective, settings: Any, dtype: torch.dtype) -> None:
    """Policy and reference agree; answers of an example are the same; all examples are; answers are certain."""
    same = random_examples(objective.needs, 4, seed=7, same=True)
    tied = [[dataclasses.replace(example[0], label=one.label) for one in example] for example in same]
    certain = [[dataclasses.replace(one, policy=torch.zeros_like(one.policy)) for one in example] for example in same]
    for examples in (same, tied, [tied[0]] * 3, certain, [same[0]]):
        require_finite(objective, in_type(examples, dtype), settings)


LN2 = math.log(2)
LIMITS = {
    **dict.fromkeys(["sigmoid", "robust", "ld_dpo", "simpo", "sigmoid_norm"], LN2),
    "bco": LN2,
    "kto": 0.5,
    "hinge": 1.0,
    "exo_pair": -LN2 - math.log(1e-3 * (1 - 1e-3)) / 2,
    **dict.fromkeys(["nca_pair", "bco_pair"], 2 * LN2),
    **dict.fromkeys(["apo_zero", "apo_down"], 1.0),
    "discopop": (1 + LN2) / 2,
    **dict.fromkeys(["aot", "aot_unpaired", "dpop"], LN2),
    "sppo_hard": 1.0,
    "cal_dpo": 1.0,
    "ipo": 1.0,
}
"""What a loss tends to as beta tends to 0; that of those in OF_TARGETS in units of its first loss."""
OF_TARGETS: dict[str, Callable[[float], float]] = {
    "ipo": lambda beta: 1 / (4 * beta**2),
    "sppo_hard": lambda beta: 1 / (4 * beta**2),
    "cal_dpo": lambda beta: 1 / (2 * beta**2),
}


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_without_beta_nothing_is_told_apart(name: str, limit: float) -> None:
    objective, beta = OBJECTIVES[name], 1e-12
    examples, settings = random_examples(objective.needs, 5, seed=6), objective.settings(beta=beta)
    given_scored = with_running(scored(examples, objective.needs), objective, settings)
    found = objective.loss(given_scored, settings).losses_U / (OF_TARGETS[name](beta) if name in OF_TARGETS else 1.0)
    torch.testing.assert_close(found, torch.full_like(found, limit), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("objective", "settings"), ALL_SETTINGS)
def test_the_gradient_raises_the_chosen_answer_over_the_rejected(objective: Objective, settings: Any) -> None:
    """Where policy and reference agree, a step down the gradient widens the margin of log-probabilities of a pair."""
    if objective.needs.unit != "pair":
        pytest.skip("it compares no pairs")
    if objective.name == "discopop":
        pytest.skip("near a margin of 0 it goes the other way: see its own test")
    examples = random_examples(objective.needs, 3, seed=9, same=True)
    given_scored = with_running(scored(examples, objective.needs), objective, settings)
    leaves = [one.requires_grad_() for one in (given_scored.logps_N, given_scored.token_logps_T) if one is not None]
    slopes = torch.autograd.grad(objective.loss(given_scored, settings).losses_U.sum(), leaves, allow_unused=True)
    read = next(slope for slope in slopes if slope is not None)
    chosen_P, rejected_P = sides(read if len(read) == len(given_scored.labels_N) else given_scored.sums(read))
    assert (chosen_P < rejected_P).all()


@every
def test_scores_are_read_as_declared(objective: Objective) -> None:
    """Their values, or their order alone; an objective that reads none is given none."""
    examples = random_examples(objective.needs, 4, seed=5)
    losses_U, _ = of(objective, examples)
    given_scored = given(objective, examples)
    if objective.needs.scores == "none":
        assert given_scored.scores_N is None or objective.needs.unit == "list"
        return
    assert given_scored.scores_N is not None
    stretched = dataclasses.replace(given_scored, scores_N=2 * given_scored.scores_N + 1)
    if objective.needs.credit:  # it is made of scores, and read in place of them
        assert given_scored.credit_T is not None
        stretched = dataclasses.replace(given_scored, credit_T=2 * given_scored.credit_T)
    found = objective.loss(stretched, objective.settings()).losses_U
    assert torch.allclose(found, losses_U) == (objective.needs.scores == "order")
    if objective.needs.unit == "list" and not objective.needs.credit:
        turned = [[dataclasses.replace(one, score=-one.score) for one in example] for example in examples]
        assert not torch.allclose(of(objective, turned)[0], losses_U)


@every
def test_it_reads_what_it_declares_to_need_and_nothing_else(objective: Objective) -> None:
    """`scored` leaves out what is not declared; and what is declared is read: the losses move with it."""
    examples = random_examples(objective.needs, 4, seed=5)
    losses_U, _ = of(objective, examples)
    if objective.needs.reference:
        further = [[dataclasses.replace(one, reference=one.reference * 1.5) for one in e] for e in examples]
        assert not torch.allclose(of(objective, further)[0], losses_U)
    given_scored = given(objective, examples)
    assert given_scored.tokens_per_unit is not None
    longer = dataclasses.replace(
        given_scored, tokens_N=given_scored.tokens_N + 1, tokens_per_unit=given_scored.tokens_per_unit + 1
    )
    if objective.needs.squares:
        assert given_scored.log_squares_T is not None
        flatter = dataclasses.replace(given_scored, log_squares_T=given_scored.log_squares_T - 0.3)
        assert not torch.allclose(objective.loss(flatter, objective.settings()).losses_U, losses_U)
    if objective.needs.live:
        assert given_scored.reference_kl_T is not None
        nearer = dataclasses.replace(given_scored, reference_kl_T=given_scored.reference_kl_T.square())
        assert not torch.allclose(objective.loss(nearer, objective.settings()).losses_U, losses_U)
    reads_counts = not torch.allclose(objective.loss(longer, objective.settings()).losses_U, losses_U)
    assert reads_counts == objective.needs.counts or objective.needs.of_tokens
    if objective.needs.mismatched:
        far = [
            [dataclasses.replace(o, policy=o.reference + 1) if o.label == MISMATCHED else o for o in e]
            for e in examples
        ]
        assert not torch.allclose(of(objective, far)[0], losses_U)


@every
def test_settings_have_defaults_and_help_and_refuse_what_is_not_theirs(objective: Objective) -> None:
    settings = objective.settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.beta = 1.0
    ranges = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "enum"}
    for name, field in TypeAdapter(objective.settings).json_schema()["properties"].items():
        assert "default" in field, f"`{name}` has no default"
        assert field.get("description"), f"`{name}` has no help: a text below it"
        assert ranges & set(field), f"`{name}` has no range: Annotated[float, Field(gt=0)] or the like"
    with pytest.raises(ValueError, match="betta"):
        objective.settings(betta=0.1)
    with pytest.raises(ValueError, match="beta"):
        objective.settings(beta="0.1")


@every
def test_it_says_what_it_is_and_where_it_comes_from(objective: Objective) -> None:
    assert objective.what.endswith("."), "`what` is a sentence"
    text = objective.loss.__doc__ or ""
    lacking = [said for said in ("loss", "Units:", "At the start", "Rewards:") if said not in text]
    assert not lacking, f"the docstring of `{objective.loss.__name__}` does not say {lacking}"
    assert objective.source is not None, "the docstring names no source: `arXiv 2305.18290, eq. 7`, or an address"
    assert objective.source.startswith("http")


def test_settings_are_read_without_torch() -> None:
    code = "import sys, tiltlm.objectives as o; o.OBJECTIVES['sigmoid'].settings(); sys.exit('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)})
    assert ended.returncode == 0, "a module of objectives imports torch at its top: see `log_sigmoid` of logistic.py"


def test_aliases_lead_to_objectives_and_shadow_none() -> None:
    assert set(ALIASES.values()) <= set(OBJECTIVES)
    assert not set(ALIASES) & set(OBJECTIVES)


NEW = """
from tiltlm.objectives.dpo import SIGMOID
from tiltlm.objectives.interface import Needs, Objective

NEW = Objective("{name}", SIGMOID.loss, SIGMOID.settings, Needs(), "For a test.", ({aliases}))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "more_objectives"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def test_a_new_file_is_a_new_objective(package: Path) -> None:
    (package / "novel.py").write_text(NEW.format(name="novel", aliases="'newest',"))
    found = gathered(package.name, [str(package)])
    assert set(found) == {"novel", "sigmoid"}
    assert found["sigmoid"] is OBJECTIVES["sigmoid"], "one that is imported from elsewhere is the same, not another"


@pytest.mark.parametrize(("name", "aliases"), [("novel", ""), ("other", "'novel',"), ("other", "'dpo',")])
def test_two_of_one_name_are_refused(package: Path, name: str, aliases: str) -> None:
    (package / "novel.py").write_text(NEW.format(name="novel", aliases=""))
    (package / "same.py").write_text(NEW.format(name=name, aliases=aliases))
    with pytest.raises(ValueError, match=r"novel|dpo"):
        gathered(package.name, [str(package)])
