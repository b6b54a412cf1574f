"""The figures of a saved model, and how much of what was trained is in its files, worked by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import at_work, bound, examples_for, measured, moved, pairs, referenced, sequence, tiny_model, trainer

from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample
from tiltlm.model.scorer import Scorer
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.outcomes import Evaluation
from tiltlm.training.held_out import HeldOut, evaluate_saved, share_survived
from tiltlm.training.paired_figures import held_out_pairs
from tiltlm.training.step_plans import Referenced


def spread(columns: TokenColumns, sums_N: list[float]) -> np.ndarray:
    """Values of tokens that add up to these sums by sequence."""
    counts = columns.scored_tokens
    return np.repeat(np.array(sums_N) / counts, counts).astype(np.float32)


def held_out(count: int = 3) -> HeldOut:
    columns = pairs(count)
    reference = spread(columns, [-10.0, -12.0] * count)
    return HeldOut(columns, reference, reference)


def mean_of(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.mean


def test_the_figures_by_hand() -> None:
    known = held_out()
    saved = spread(known.columns, [-9.0, -13.0, -10.0, -10.0, -12.0, -15.0])
    found = evaluate_saved(saved, None, known, bound(beta=0.5), "float32", 0.0)
    margins = [1.0, -1.0, 0.5]
    assert found.figures.margin == pytest.approx(np.mean(margins))
    assert found.figures.accuracy == pytest.approx(2 / 3)
    assert found.figures.loss == pytest.approx(np.mean([math.log1p(math.exp(-margin)) for margin in margins]))
    assert found.figures.chosen_reward == pytest.approx(0.5 * np.mean([1, 0, -2]))
    assert found.figures.rejected_logp == pytest.approx(np.mean([-13, -10, -15]))
    assert (found.figures.examples, found.figures.step) == (3, 0)
    assert mean_of(found.margin) == pytest.approx(np.mean(margins))
    assert mean_of(found.chosen_logp_change) == pytest.approx(-1 / 3)
    assert mean_of(found.rejected_logp_change) == pytest.approx(-2 / 3)
    assert found.rejected_logp_change is not None and found.rejected_logp_change.interval is not None
    assert found.saved_as == "float32"
    assert found.survived is None
    assert found.trained_margin is None
    assert found.figures.seconds > 0


def test_changes_are_from_the_model_as_loaded_and_rewards_from_the_reference() -> None:
    known = held_out()
    start = spread(known.columns, [-5.0] * 6)
    found = evaluate_saved(start, None, dataclasses.replace(known, start=start), bound(beta=1.0), "float32", 0.0)
    assert (mean_of(found.chosen_logp_change), mean_of(found.rejected_logp_change)) == (0, 0)
    assert found.figures.chosen_reward == pytest.approx(5)
    assert found.figures.margin == pytest.approx(-2)


def test_without_a_reference_changes_are_from_the_model_as_loaded() -> None:
    columns = pairs(3)
    start = spread(columns, [-10.0] * 6)
    saved = spread(columns, [-9.0, -13.0, -10.0, -10.0, -12.0, -15.0])
    found = evaluate_saved(saved, None, HeldOut(columns, None, start), bound("simpo", beta=2.0), "float32", 0.0)
    assert mean_of(found.chosen_logp_change) == pytest.approx(-1 / 3, abs=1e-5)
    assert mean_of(found.rejected_logp_change) == pytest.approx(-8 / 3, abs=1e-5)
    per_token = np.array([-9.0, -13.0, -10.0, -10.0, -12.0, -15.0]) / columns.scored_tokens
    assert mean_of(found.margin) == pytest.approx(2 * np.mean(per_token[0::2] - per_token[1::2]), abs=1e-5)


def labelled(*examples: tuple[int, ...]) -> TokenColumns:
    """Examples of completions with these labels, each with a prompt of its own."""
    return TokenColumns.of(
        TokenizedExample(
            f"{n}", tuple(sequence([1, 5 + n, 9, 10 + place, 2], 3) for place in range(len(labels))), labels
        )
        for n, labels in enumerate(examples)
    )


def evaluated(columns: TokenColumns, changes_N: list[float], trained: list[float] | None = None) -> Evaluation:
    """By kto, beta 1: of a saved model whose log-probabilities are so much above those of the reference."""
    reference = spread(columns, [-10.0] * columns.sequences)
    saved = spread(columns, [change - 10 for change in changes_N])
    before = None if trained is None else spread(columns, [change - 10 for change in trained])
    return evaluate_saved(saved, before, HeldOut(columns, reference, reference), bound("kto", beta=1.0), "bfloat16", 0)


def test_completions_that_are_no_pairs_have_changes_but_no_margins() -> None:
    columns = labelled((CHOSEN, MISMATCHED), (CHOSEN, MISMATCHED), (REJECTED, MISMATCHED))
    changes = [1.0, 50.0, 3.0, -50.0, -2.0, 0.0]
    found = evaluated(columns, changes, changes)
    assert mean_of(found.chosen_logp_change) == pytest.approx(2)
    assert mean_of(found.rejected_logp_change) == pytest.approx(-2)
    assert (found.margin, found.trained_margin, found.survived) == (None, None, None)
    assert found.figures.margin == pytest.approx(2 - -2), "of the means"
    assert found.figures.accuracy == 1
    assert found.figures.examples == 3


def test_of_one_kind_of_completion_there_is_no_change_of_the_other() -> None:
    found = evaluated(labelled((CHOSEN, MISMATCHED), (CHOSEN, MISMATCHED)), [1.0, 0.0, 3.0, 0.0])
    assert mean_of(found.chosen_logp_change) == pytest.approx(2)
    assert found.rejected_logp_change is None
    assert found.figures.rejected_reward is None


@pytest.mark.parametrize(
    "labels",
    [
        [(CHOSEN, REJECTED), (REJECTED, CHOSEN)],
        [(CHOSEN, REJECTED), (CHOSEN, REJECTED, REJECTED)],
        [(CHOSEN, REJECTED), (CHOSEN,)],
        [(CHOSEN,), (REJECTED, CHOSEN, REJECTED)],
        [(CHOSEN,), (REJECTED,)],
    ],
)
def test_margins_are_of_examples_that_are_all_pairs(labels: list[tuple[int, ...]]) -> None:
    """Not of answers to two prompts that stand side by side."""
    columns = labelled(*((*own, MISMATCHED) for own in labels))
    assert evaluated(columns, [0.0] * columns.sequences).margin is None


def test_labelled_completions_that_are_pairs_have_margins() -> None:
    columns = labelled((CHOSEN, REJECTED, MISMATCHED), (CHOSEN, REJECTED, MISMATCHED))
    changes = [2.0, 1.0, 9.0, 4.0, -1.0, 9.0]
    found = evaluated(columns, changes, [2 * change for change in changes])
    assert mean_of(found.margin) == pytest.approx((1 + 5) / 2)
    assert found.trained_margin == pytest.approx(6)
    assert mean_of(found.survived) == pytest.approx(0.5)


def test_single_pairs_by_hand() -> None:
    known = held_out()
    found = held_out_pairs(
        spread(known.columns, [-9.0, -13.0, -10.0, -10.0, -12.0, -15.0]), known, bound("sigmoid", beta=0.5)
    )
    assert [pair.margin for pair in found] == pytest.approx([1.0, -1.0, 0.5])
    assert [pair.change for pair in found] == pytest.approx([2.0, -2.0, 1.0])


@pytest.mark.parametrize("count", [1, 2], ids=["3 answers", "6 answers"])
def test_lists_are_compared_by_their_best_and_worst_answers(count: int) -> None:
    scores = (3.0, 1.0, 1.0)
    columns = TokenColumns.of(
        TokenizedExample(
            f"{n}",
            tuple(sequence([1, 5 + n, 9, 10 + place, 2], 3) for place in range(3)),
            (CHOSEN, REJECTED, REJECTED),
            scores=scores,
        )
        for n in range(count)
    )
    reference = spread(columns, [-10.0] * 3 * count)
    saved = spread(columns, [-8.0, -11.0, -14.0] * count)
    found = held_out_pairs(saved, HeldOut(columns, reference, reference), bound("plackett_luce", beta=0.5))
    assert [pair.id for pair in found] == [f"{n}" for n in range(count)]
    assert [pair.change for pair in found] == pytest.approx([2 - -2.5] * count)
    assert [pair.margin for pair in found] == pytest.approx([0.5 * (2 - -2.5)] * count)


def test_what_survived_is_a_share_of_the_margin_before_rounding() -> None:
    known = held_out(4)
    trained = spread(known.columns, [-9.0, -13.0, -10.0, -14.0, -12.0, -15.0, -8.0, -12.0])
    saved = spread(known.columns, [-9.5, -12.5, -10.0, -13.0, -11.0, -13.5, -9.0, -12.0])
    found = evaluate_saved(saved, trained, known, bound(beta=0.5), "bfloat16", 0.0)
    assert found.trained_margin == pytest.approx(0.5 * np.mean([2, 2, 1, 2]))
    assert mean_of(found.margin) == pytest.approx(0.5 * np.mean([1, 1, 0.5, 1]))
    assert mean_of(found.survived) == pytest.approx(0.5)
    assert found.saved_as == "bfloat16"


def test_the_share_that_survived() -> None:
    trained = np.array([1.0, 2.0, 3.0, 4.0])
    exactly_half = share_survived(trained / 2, trained)
    assert exactly_half is not None
    assert exactly_half.mean == pytest.approx(0.5)
    assert exactly_half.interval == pytest.approx((0.5, 0.5))
    noisy = share_survived(trained + np.array([0.5, -0.5, 0.5, -0.5]), trained)
    assert noisy is not None and noisy.interval is not None
    assert noisy.mean == pytest.approx(1)
    error = np.std([0.5, -0.5, 0.5, -0.5], ddof=1) / (2 * 2.5)
    assert noisy.interval[1] - noisy.mean == pytest.approx(1.959964 * error)
    assert share_survived(trained, np.zeros(4)) is None
    assert share_survived(trained[:1], trained[:1]) is None


def test_answers_to_one_prompt_do_not_narrow_the_interval() -> None:
    known = held_out(6)
    saved = spread(known.columns, np.random.default_rng(0).normal(-11, 3, 12).tolist())
    once = evaluate_saved(saved, None, known, bound(), "float32", 0.0)
    four_times = np.tile(spread(known.columns, [-10.0, -12.0] * 6), 4)
    often = HeldOut(known.columns.take([*range(6)] * 4), four_times, four_times)
    found = evaluate_saved(np.tile(saved, 4), None, often, bound(), "float32", 0.0)
    assert found.figures.examples == 24
    assert found.figures.accuracy_interval == pytest.approx(once.figures.accuracy_interval)
    for one, other in ((once.margin, found.margin), (once.chosen_logp_change, found.chosen_logp_change)):
        assert one is not None and one.interval is not None
        assert other is not None and other.interval is not None
        assert other.mean == pytest.approx(one.mean)
        assert other.interval == pytest.approx(one.interval, rel=0.1)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_saved_models_row_is_the_trainers_own_evaluation(tmp_path: Path, name: str) -> None:
    scorer, objective = Scorer(tiny_model()), bound(name)
    columns = examples_for(objective.needs, 7)
    examples = Referenced(columns, None)
    if objective.needs.reference:
        examples = referenced(scorer, columns, tmp_path)
    objective = at_work(objective, scorer)
    moved(scorer, 0.02)
    values = measured(objective, scorer, columns)
    known = HeldOut(columns, examples.reference, values)
    found = evaluate_saved(values, None, known, objective, "float32", 0.0).figures
    row = trainer(scorer, examples, loss=objective).evaluate()
    for field in dataclasses.fields(row):
        if field.name != "seconds" and not field.name.startswith("moving_"):
            wanted = getattr(row, field.name)
            close = wanted if wanted is None else pytest.approx(wanted, rel=1e-6, abs=2e-5)
            assert getattr(found, field.name) == close, field.name
