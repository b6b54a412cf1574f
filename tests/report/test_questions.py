"""What people ask of every run: each answer at its thresholds, and how often chance alone would be claimed."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import example_run
import numpy as np
import pytest

from tiltlm.config import option_names
from tiltlm.report.questions.asking import QUESTIONS, answers
from tiltlm.report.questions.authorship import CAVEAT, GAP, MISFIT, SAME, WORTH, author, authorship
from tiltlm.report.questions.displacement import HARM_PER_TOKEN, displacement
from tiltlm.report.questions.drift import CAPPED, LONGER, MORE_REPETITION, MORE_SURPRISE, drift
from tiltlm.report.questions.evidence import FEWEST, Evidence, above, below, within
from tiltlm.report.questions.label_noise import BESIDE, CONFIDENT, LISTED, label_noise
from tiltlm.report.questions.learning_rate import COLLAPSED, LITTLE, learning_rate
from tiltlm.report.questions.overfitting import KEPT, overfitting
from tiltlm.report.questions.step_zero import APART, step_zero
from tiltlm.report.verdict import verdict
from tiltlm.runs.data_account import DataReport
from tiltlm.runs.environment import Environment
from tiltlm.runs.estimates import AnswerStatistics, Divergence, Estimate
from tiltlm.runs.outcomes import Evaluation, Figures, Outcome, Summary
from tiltlm.runs.pair_origins import PairOrigins, PairWeights
from tiltlm.runs.question_answers import QuestionAnswer
from tiltlm.runs.rows import EvalRow, Metrics
from tiltlm.runs.run_files import RunFiles, read_run
from tiltlm.runs.seen_pairs import SeenPair, SeenPairs
from tiltlm.statistics import clustered_mean, difference_of_means, wilson_interval

ROOT = Path(__file__).parents[2]
EARLIER = ROOT / "tests" / "runs" / "run_of_0_1"
CLEAR = 0.01
"""Half the width of the intervals below."""
NOTHING = Estimate(0.0, (-CLEAR, CLEAR), 40)


def at(mean: float, clusters: int | None = 40, half: float = CLEAR) -> Estimate:
    return Estimate(mean, (mean - half, mean + half), clusters)


def seen_of(margins: list[float], **changed: Any) -> SeenPairs:
    pairs = tuple(SeenPair(f"pair {n}", n, margin) for n, margin in enumerate(margins))
    still = {"margin": NOTHING, "growth": NOTHING, "gap": NOTHING, "loss_change": NOTHING}
    return SeenPairs(pairs=pairs, **{**still, **changed})


def origins(**changed: Any) -> PairOrigins:
    """Those of answers that the model wrote itself at temperature 1, but for what is changed."""
    same = {"chosen": at(2.0), "rejected": at(2.1), "own": at(2.0), "gap": at(0.05)}
    sides = {"chosen_minus_own": NOTHING, "rejected_minus_own": at(0.1)}
    fit = {"temperature": at(1.0), "token_scatter": at(1.0), "answer_scatter": at(1.0)}
    shares = {"sayable": at(0.98), "own_sayable": at(0.99), "aligned": at(0.6)}
    counts = {"prompts": 40, "too_long": 0, "first_tokens": 32, "temperatures_tried": (0.25, 2.0)}
    return PairOrigins(**{**same, **sides, **fit, **shares, **counts, **changed})


def given(
    answers: Figures | None = None,
    status: str = "completed",
    message: str | None = None,
    settings: dict[str, dict[str, object]] | None = None,
    origins: PairOrigins | None = None,
    **evaluation: Any,
) -> Evidence:
    """Evidence of a run with these figures; without any, nothing was evaluated."""
    row = example_run.record(EvalRow, example_run.eval_row(40))
    accuracy = evaluation.pop("accuracy", None)
    if accuracy is not None:
        row = EvalRow(
            step=0, epoch=0, examples=40, loss=0.5, accuracy=accuracy[0], accuracy_interval=accuracy[1:], seconds=0
        )
    run = RunFiles(
        settings={**example_run.config(), **(settings or {})},
        environment=example_run.record(Environment, example_run.environment()),
        metrics=Metrics((), ()),
        data=example_run.record(DataReport, example_run.data_report()),
        outcome=Outcome(status=status, message=message, checks=(), seconds=1.0, stages={}),
        evaluation=Evaluation(saved_as="float32", figures=row, **evaluation) if evaluation or accuracy else None,
        comparison=None,
        summary=None,
        origins=origins,
    )
    return Evidence(run, answers or Figures(counted_prompts=0))


@pytest.mark.parametrize("question", QUESTIONS)
def test_without_figures_nothing_is_claimed(question: Callable[[Evidence], QuestionAnswer]) -> None:
    found = question(given())
    assert (found.verdict, found.figures, found.change, found.line) == ("not measured", {}, None, None)
    assert found.question.endswith("?") and found.sentence.startswith("Not measured: ")


def test_an_interval_tells_only_over_enough_prompts_and_clear_of_the_value() -> None:
    assert above(at(0.02), 0.0) and below(at(-0.02), 0.0) and within(at(0.0), 0.02)
    assert not above(at(CLEAR), 0.0) and not below(at(-CLEAR), 0.0) and not within(at(0.0), CLEAR)
    assert above(at(0.02, FEWEST)) and not above(at(0.02, FEWEST - 1))
    assert above(at(0.02, None)), "older files do not say of how many"
    assert not above(Estimate(0.5)) and not above(None)


# Displacement


def test_the_chosen_answers_fall_where_the_interval_is_below_zero() -> None:
    fell = displacement(given(chosen_logp_change=at(-0.02), rejected_logp_change=at(-2.0)))
    assert fell.verdict == "shown" and "That it harms is not shown." in fell.sentence and fell.line is None
    assert fell.change is not None and "training.learning_rate (5e-06)" in fell.change
    assert "training.epochs (2)" in fell.change and "loss.beta (0.1)" in fell.change
    rose = displacement(given(chosen_logp_change=at(0.5), rejected_logp_change=at(-2.0)))
    assert rose.verdict == "not shown" and rose.sentence.startswith("They became more likely: chosen +0.5")
    for change in (at(-CLEAR), at(0.5), at(-3.0, FEWEST - 1)):
        within = displacement(given(chosen_logp_change=change, rejected_logp_change=at(-2.0)))
        assert (within.verdict, within.change, within.line) == ("not shown", None, None)
    assert f"fewer than {FEWEST} show nothing" in displacement(given(chosen_logp_change=at(-3.0, 7))).sentence


def test_the_fall_harms_where_tokens_lose_a_tenth() -> None:
    def asked(token_change: float) -> QuestionAnswer:
        return displacement(
            given(
                chosen_logp_change=at(-6.0),
                rejected_logp_change=at(-9.0),
                chosen_token_change=at(token_change),
                rejected_token_change=at(-0.4),
            )
        )

    harmless, harmful = asked(-HARM_PER_TOKEN - CLEAR / 2), asked(-HARM_PER_TOKEN - 2 * CLEAR)
    assert harmless.line is None and "That it harms is not shown." in harmless.sentence
    assert "It harms: they lost 0.12 nats a token." in harmful.sentence
    assert harmful.line is not None and harmful.line.startswith("That the chosen answers became less likely harms")
    assert set(harmful.figures) == {
        "chosen nats an answer",
        "rejected nats an answer",
        "chosen nats a token",
        "rejected nats a token",
    }


# Drift


def sampled(**changed: Any) -> Figures:
    before = AnswerStatistics(tokens=20.0, repetition=0.1, surprise=1.0)
    still = {"length_change": NOTHING, "repetition_change": NOTHING, "surprise_change": NOTHING}
    kl = Divergence(mean=3.0, standard_error=0.5, samples=80, temperature=1.0)
    return Figures(**{"answers_before": before, "answers_after": before, "kl": kl, **still, **changed})


@pytest.mark.parametrize(
    ("name", "threshold", "words"),
    [
        ("length_change", LONGER * 20, "longer"),
        ("repetition_change", MORE_REPETITION, "repeat themselves more"),
        ("surprise_change", MORE_SURPRISE, "became unlikely to the reference"),
    ],
)
def test_answers_drift_where_a_rise_is_shown_and_large(name: str, threshold: float, words: str) -> None:
    accuracy = (0.8, 0.7, 0.9)
    found = drift(given(sampled(**{name: at(threshold + 0.001)}), accuracy=accuracy))
    assert (
        found.verdict == "shown"
        and words in found.sentence
        and "while reward accuracy is better than chance (80%)" in found.sentence
    )
    assert found.line is not None and words in found.line and "3 nats of KL" in found.sentence
    small = drift(given(sampled(**{name: at(threshold - 0.001)}), accuracy=accuracy))
    noisy = drift(given(sampled(**{name: at(threshold + 1, half=threshold + 2)}), accuracy=accuracy))
    few = drift(given(sampled(**{name: at(threshold + 1, FEWEST - 1)}), accuracy=accuracy))
    assert small.verdict == noisy.verdict == few.verdict == "not shown"


def test_a_lower_known_reward_is_worse_and_the_verdict_says_it_already() -> None:
    found = drift(given(sampled(reward_difference=at(-0.3)), accuracy=(0.5, 0.4, 0.6)))
    assert found.verdict == "shown" and "lost 0.3 of the known reward" in found.sentence
    assert "and reward accuracy is not shown to be better than chance (50%)" in found.sentence
    assert found.line is None
    assert drift(given(sampled(reward_difference=at(-CLEAR)), accuracy=(0.8, 0.7, 0.9))).verdict == "not shown"
    fallen = displacement(given(sampled(reward_difference=at(-0.3)), chosen_logp_change=at(-1.0)))
    assert "goes with answers that lost 0.3 of the known reward" in fallen.sentence


def test_what_the_verdict_says_of_the_answers_is_not_said_twice() -> None:
    long = AnswerStatistics(tokens=50.0, repetition=0.1, surprise=1.0)
    told = drift(given(sampled(answers_after=long, length_change=at(30.0)), accuracy=(0.8, 0.7, 0.9)))
    assert told.verdict == "shown" and told.line is None


def test_longer_answers_have_advice_of_their_own_and_a_ceiling_is_named() -> None:
    end = AnswerStatistics(tokens=CAPPED * 48 + 0.1, repetition=0.1, surprise=1.0)
    found = drift(given(sampled(answers_after=end, length_change=at(10.0)), accuracy=(0.8, 0.7, 0.9)))
    assert found.change is not None and "loss.name ld_dpo" in found.change
    assert "comparison.max_new_tokens (48)" in found.sentence
    settings: dict[str, dict[str, object]] = {"loss": {"name": "ld_dpo", "beta": 0.1}}
    of_ld_dpo = drift(given(sampled(length_change=at(10.0)), settings=settings, accuracy=(0.8, 0.7, 0.9)))
    assert of_ld_dpo.change is not None and "ld_dpo" not in of_ld_dpo.change
    assert "max_new_tokens" not in of_ld_dpo.sentence


# Overfitting


def test_training_pairs_are_known_better_where_the_gap_is_shown() -> None:
    def asked(gap: float, **changed: Any) -> QuestionAnswer:
        seen = seen_of([1.0] * 20, margin=at(2.0), growth=at(2.0), gap=at(gap))
        return overfitting(given(margin=at(2.0 - gap), seen=seen, **changed))

    little, much = asked(2 * (1 - KEPT) - 0.01), asked(2 * (1 - KEPT) + 0.01)
    assert little.verdict == much.verdict == "shown"
    assert (little.line, little.change) == (None, None)
    assert much.line is not None and "gained 49.5% of the margin that training pairs gained" in much.line
    assert much.change is not None and "loss.label_smoothing (0)" in much.change
    worse = asked(0.5, loss_change=at(0.2))
    assert "held-out loss ended higher than it began" in worse.sentence and worse.change is not None
    assert asked(CLEAR).verdict == asked(-1.0).verdict == "not shown"
    assert asked(1.5, status="interrupted").verdict == "not measured"


# The learning rate


def test_a_learning_rate_does_nothing_where_both_sides_surely_stayed() -> None:
    small, large = at(LITTLE - 2 * CLEAR), at(LITTLE - CLEAR / 2)
    found = learning_rate(given(chosen_logp_change=small, rejected_logp_change=at(-0.05)))
    assert found.verdict == "shown" and found.line is not None and "did next to nothing" in found.line
    assert found.change is not None and found.change.startswith("Raise training.learning_rate (5e-06)")
    for chosen, rejected in ((large, at(0.0)), (at(0.0), large), (at(0.0, FEWEST - 1), at(0.0))):
        assert learning_rate(given(chosen_logp_change=chosen, rejected_logp_change=rejected)).verdict == "not shown"
    still = at(1e-6, half=1e-6)
    told = learning_rate(given(chosen_logp_change=still, rejected_logp_change=still))
    assert told.verdict == "shown" and told.line is None, "the verdict says that nothing moved"


def test_a_learning_rate_does_too_much_where_it_breaks_its_own_pairs_or_both_sides() -> None:
    sides: dict[str, Any] = {"chosen_logp_change": at(-60.0), "rejected_logp_change": at(-80.0)}
    own = learning_rate(given(**sides, seen=seen_of([0.0], loss_change=at(0.3))))
    assert own.verdict == "shown" and "the loss of the pairs it was trained on rose" in own.sentence
    assert own.line is not None and own.change is not None and "training.warmup_steps (5)" in own.change

    def collapsed(chosen: float, rejected: float) -> str:
        tokens: dict[str, Any] = {"chosen_token_change": at(chosen), "rejected_token_change": at(rejected)}
        return learning_rate(given(**sides, **tokens, seen=seen_of([0.0]))).verdict

    assert collapsed(-COLLAPSED - 0.02, -COLLAPSED - 0.02) == "shown"
    assert collapsed(-COLLAPSED - 0.02, -COLLAPSED) == collapsed(-COLLAPSED, -9.0) == "not shown"
    assert learning_rate(given(**sides, seen=seen_of([0.0], loss_change=NOTHING))).verdict == "not shown"


def test_a_run_that_ended_in_no_number_says_so() -> None:
    message = "step 3: the loss is not finite, at these examples: pairs.jsonl:7."
    found = learning_rate(given(status="failed", message=message))
    assert found.verdict == "shown" and found.change is not None and "training.learning_rate" in found.change
    assert learning_rate(given(status="failed", message="out of memory")).verdict == "not measured"


# Noise in the labels

LEARNED = (0.8, 0.7, 0.9)


def noise(
    margins: list[float], accuracy: tuple[float, float, float] = LEARNED, name: str = "sigmoid"
) -> QuestionAnswer:
    settings: dict[str, dict[str, object]] = {"loss": {"name": name, "beta": 0.1}}
    return label_noise(given(accuracy=accuracy, settings=settings, seen=seen_of(margins)))


def test_a_second_peak_of_margins_is_noise() -> None:
    small = 0.5 * CONFIDENT
    peaks = [small] * 40 + [-small] * 10
    found = noise(peaks)
    assert found.verdict == "shown" and "20% (95% interval 11.2% to 33%) of 50 training pairs" in found.sentence
    assert found.ids == tuple(f"pair {n}" for n in range(40, 50)) and found.line is not None
    assert found.change is not None and "loss.label_smoothing" in found.change
    other = noise(peaks, name="ipo")
    assert other.verdict == "shown" and other.change is not None and "smoothing" not in other.change
    assert noise(peaks, (0.55, 0.45, 0.65)).verdict == "not shown", "it has not learned from the others"
    # As many around zero as against: not learned yet.
    assert noise([small] * 40 + [-small] * 5 + [0.0] * 5).verdict == "not shown"
    middle = BESIDE * small
    assert noise([small] * 40 + [-middle] * 10).verdict == "not shown"
    assert noise([0.0] * 30).verdict == "not shown"


def test_more_contradictions_than_the_model_expects_are_noise() -> None:
    """Margins spread so widely that there is no second peak."""
    sure = np.linspace(CONFIDENT, 6, 40).tolist()
    spread = sure + [-margin for margin in sure[::4]] + np.linspace(-0.1, 0.1, 60).tolist()
    found = noise(spread, (0.5, 0.4, 0.6))
    assert found.verdict == "shown" and "of those that it is sure of, 20%" in found.sentence
    assert noise(spread, (0.5, 0.4, 0.6), "ipo").verdict == "not shown", "margins of ipo are no log-odds"
    assert noise([0.99 * margin for margin in (CONFIDENT, -CONFIDENT)] * 20 + [0.0] * 40).verdict == "not shown"


def test_margins_may_be_of_any_size_and_there_may_be_none() -> None:
    assert noise([1e300, 1e5, -1e5, 1e-300, 0.0] * 4).verdict == "shown"
    assert noise([]).verdict == "not measured"


def test_a_few_of_the_most_contradicted_pairs_are_named() -> None:
    found = noise([2.0] * 60 + [-2.0 - n for n in range(20)])
    assert found.ids == tuple(f"pair {n}" for n in range(79, 79 - LISTED, -1))


# Step 0


def test_policy_and_reference_disagree_where_they_are_further_apart_than_sums_in_another_order() -> None:
    found = step_zero(given(start_gap=at(2.1 * APART, half=APART), start_margin=at(0.3)))
    assert found.verdict == "shown" and "margin +0.3" in found.sentence and found.line is not None
    assert found.change is not None and "model.reference" in found.change
    assert step_zero(given(start_gap=at(2 * APART, half=APART))).verdict == "not shown"
    assert step_zero(given(start_gap=at(0.0, half=0.0))).verdict == "not shown"


# Nothing happening


def rate(asked: Callable[[np.random.Generator], QuestionAnswer], trials: int = 300) -> float:
    rng = np.random.default_rng(0)
    return sum(asked(rng).verdict == "shown" for _ in range(trials)) / trials


def drawn(rng: np.random.Generator, count: int, size: float = 1.0) -> Estimate:
    return clustered_mean(rng.normal(0, size, count).tolist(), range(count), resamples=500)


CHANCE = 0.075
"""One in twenty, and two standard errors of 300 trials."""


@pytest.mark.parametrize("count", [FEWEST, 32])
@pytest.mark.parametrize(
    "asked",
    [
        lambda rng, n: displacement(given(chosen_logp_change=drawn(rng, n))),
        lambda rng, n: learning_rate(
            given(
                chosen_logp_change=drawn(rng, n),
                rejected_logp_change=drawn(rng, n),
                seen=seen_of([0.0], loss_change=drawn(rng, n)),
            )
        ),
        lambda rng, n: drift(
            given(
                sampled(
                    length_change=drawn(rng, n, 12.0),
                    repetition_change=drawn(rng, n, 0.2),
                    surprise_change=drawn(rng, n, 1.0),
                    reward_difference=drawn(rng, n),
                )
            )
        ),
    ],
    ids=["displacement", "learning rate", "drift"],
)
def test_of_runs_in_which_nothing_happens_one_in_twenty_at_most_claims_something(
    asked: Callable[[np.random.Generator, int], QuestionAnswer], count: int
) -> None:
    assert rate(lambda rng: asked(rng, count)) <= CHANCE


@pytest.mark.parametrize("count", [FEWEST, 32])
def test_of_models_that_know_all_pairs_alike_one_in_twenty_at_most_is_called_overfitted(count: int) -> None:
    def asked(rng: np.random.Generator) -> QuestionAnswer:
        own, other = rng.normal(1, 1, count).tolist(), rng.normal(1, 1, 2 * count).tolist()
        gap = difference_of_means(own, range(count), other, range(2 * count), resamples=500)
        return overfitting(given(margin=at(1.0), seen=seen_of(own, growth=at(1.0), gap=gap)))

    assert rate(asked) <= CHANCE


@pytest.mark.parametrize("true_change", [LITTLE, 0.2])
def test_of_learning_rates_that_do_something_one_in_twenty_at_most_is_said_to_do_nothing(true_change: float) -> None:
    def asked(rng: np.random.Generator) -> QuestionAnswer:
        chosen = clustered_mean(rng.normal(true_change, 0.1, 16).tolist(), range(16), resamples=500)
        return learning_rate(given(chosen_logp_change=chosen, rejected_logp_change=at(0.0)))

    assert rate(asked) <= CHANCE


@pytest.mark.parametrize("count", [16, 64])
def test_of_labels_that_are_as_sure_as_the_model_one_in_twenty_at_most_is_called_noisy(count: int) -> None:
    """Labels drawn by the model's own probabilities."""

    def asked(rng: np.random.Generator) -> QuestionAnswer:
        size = rng.exponential(2.0, count)
        right = rng.random(count) < 1 / (1 + np.exp(-size))
        return noise(np.where(right, size, -size).tolist())

    assert rate(asked) <= CHANCE


@pytest.mark.parametrize("mean", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("count", [16, 64])
def test_of_labels_that_were_not_learned_yet_one_in_twenty_at_most_is_called_noisy(count: int, mean: float) -> None:
    def asked(rng: np.random.Generator) -> QuestionAnswer:
        learned = (0.7, *wilson_interval(0.7 * 200, 200))
        return noise((0.3 * rng.normal(mean, 1.0, count)).tolist(), learned)

    assert rate(asked) <= CHANCE


# Who wrote the answers


@pytest.mark.parametrize(
    ("changed", "who"),
    [
        ({}, "the model"),
        ({"temperature": at(1 + SAME - 2 * CLEAR)}, "the model"),
        ({"temperature": at(1 + SAME)}, "unclear"),
        ({"temperature": at(1.0, half=0.3)}, "unclear"),
        ({"temperature": at(1.0, FEWEST - 1)}, "unclear"),
        ({"temperature": at(1 + SAME + 2 * CLEAR)}, "the model at another temperature"),
        ({"temperature": at(1 - SAME - 2 * CLEAR), "gap": at(-1.0)}, "the model at another temperature"),
        ({"temperature": at(0.25, half=0.0), "gap": at(-1.0)}, "the model at another temperature"),
        ({"temperature": at(2.0, half=0.0)}, "others"),
        ({"gap": at(GAP + 2 * CLEAR)}, "others"),
        ({"gap": at(-GAP - 2 * CLEAR)}, "others"),
        ({"gap": at(GAP)}, "the model"),
        ({"token_scatter": at(1 + MISFIT + 2 * CLEAR)}, "others"),
        ({"token_scatter": at(1 - MISFIT - 2 * CLEAR)}, "others"),
        ({"answer_scatter": at(1 + MISFIT + 2 * CLEAR)}, "others"),
        ({"answer_scatter": at(1 - MISFIT - 2 * CLEAR)}, "the model"),
        # By Bonferroni's wider interval of one of three signs it is not shown.
        ({"token_scatter": at(1 + MISFIT + 1.05 * CLEAR)}, "the model"),
    ],
)
def test_who_is_shown_to_have_written_the_answers(changed: dict[str, Any], who: str) -> None:
    written = origins(**changed)
    found = authorship(given(origins=written))
    assert author(written) == who and found.verdict == ("shown" if who == "others" else "not shown")
    assert found.sentence.isascii() and CAVEAT in found.sentence and len(found.figures) == 12


def test_the_measured_records_are_told_as_they_are_known_to_be() -> None:
    told = ROOT / "benchmarks" / "results" / "pair-origins" / "told"
    known = {
        "own-at-1": "the model",
        "own-at-0.5": "the model at another temperature",
        "own-at-1.5": "the model at another temperature",
        "demo": "the model at another temperature",
        "hh-harmless-base": "others",
        "polite-rude": "others",
        "ultrafeedback": "others",
    }
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in told.glob("*.json")}
    assert set(found) == set(known)
    for name, record in found.items():
        assert author(example_run.record(PairOrigins, record["told"])) == record["author"] == known[name], name


def test_what_the_weights_say_is_said_where_it_is_known() -> None:
    weights = PairWeights(moved=at(WORTH - 0.1), aligned=at(0.4))
    without = authorship(given(origins=origins()))
    assert "60% of their number." in without.sentence and without.change is None
    found = authorship(given(origins=origins(), seen=seen_of([1.0] * 20, weights=weights)))
    assert "before training and 40% after" in found.sentence and "moved away" in found.sentence
    assert len(found.figures) == 14 and found.change is not None


# The whole table


def test_every_threshold_says_why_and_is_on_the_page() -> None:
    page = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "src" / "tiltlm" / "report" / "questions").glob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, following in zip(body, [*body[1:], None], strict=True):
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                continue
            name = node.targets[0].id
            assert isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant), name
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, float | int):
                assert f"`{name}` {node.value.value}" in page, name
            elif name.isupper():
                assert f"`{name}`" in page, name
    for question in QUESTIONS:
        assert question(given()).question in page
        assert f"`{question.__module__.rpartition('.')[2]}`" in page


def test_advice_names_options_that_there_are() -> None:
    figures = sampled(length_change=at(10.0))
    sides: dict[str, Any] = {"chosen_logp_change": at(-6.0), "rejected_logp_change": at(-9.0)}
    seen = seen_of([2.0] * 40 + [-2.0] * 20, growth=at(2.0), gap=at(1.9), loss_change=at(1.0))
    written = origins(token_scatter=at(2.0))
    evidence = given(figures, accuracy=LEARNED, **sides, margin=at(0.1), seen=seen, start_gap=at(0.5), origins=written)
    found = [question(evidence) for question in QUESTIONS]
    assert [answer.verdict for answer in found] == ["shown"] * len(QUESTIONS)
    named = re.findall(
        r"\b(?:training|loss|model|data|comparison)\.\w+", " ".join(answer.change or "" for answer in found)
    )
    assert len(set(named)) > 5 and set(named) <= {*option_names(), "loss.beta", "loss.label_smoothing"}


def test_advice_on_pairs_is_for_pairs_and_a_users_words_are_shown_not_obeyed() -> None:
    settings: dict[str, dict[str, object]] = {
        "loss": {"name": "kto", "beta": 0.1},
        "model": {"reference": "https://me:secret@host/\x1b[2Jhidden"},
    }
    figures = sampled(length_change=at(10.0))
    evidence = given(figures, accuracy=LEARNED, settings=settings, chosen_logp_change=at(-6.0), start_gap=at(0.5))
    for question in (displacement, drift, step_zero):
        change = question(evidence).change
        assert change is not None and not {"pair", "ld_dpo", "secret", "\x1b"} & set(
            re.split(r"\W", change) + list(change)
        )
    assert "hidden" in (step_zero(evidence).line or "")


def test_the_console_has_the_lines_and_sentences_are_ascii() -> None:
    line = QuestionAnswer(name="drift", question="?", verdict="shown", sentence="Long.", line="The answers got longer.")
    silent = QuestionAnswer(name="other", question="?", verdict="not shown", sentence="No.")
    summary = example_run.record(Summary, example_run.summary())
    object.__setattr__(summary, "questions", (line, silent))
    without = verdict(example_run.record(Summary, example_run.summary()))
    assert verdict(summary) == [*without, "The answers got longer."]
    for answer in answers(read_run(EARLIER)):
        assert answer.sentence.isascii()


def test_a_run_of_version_0_1_answers_what_it_can() -> None:
    found = {answer.name: answer.verdict for answer in answers(read_run(EARLIER))}
    assert set(found) == {"displacement", "drift", "overfitting", "learning rate", "label noise", "step 0", "origins"}
    unknown = {"overfitting", "label noise", "step 0", "origins"}
    assert {found[name] for name in unknown} == {"not measured"}
    assert found["displacement"] != "not measured"
