"""The figures of a comparison, against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest

from tiltlm.evaluation.figures import figures, repetition
from tiltlm.evaluation.length_control import length_controlled
from tiltlm.evaluation.win_rates import Scored, comparisons
from tiltlm.runs.answers import Answer, Answers, ComparedPrompt, Comparison, ComparisonSettings
from tiltlm.runs.estimates import Divergence
from tiltlm.runs.outcomes import Figures
from tiltlm.statistics import bootstrap_mean, mean_change_of_share, mean_share

# Greedy answers and uncounted prompts are in no figure: this one would be noticed.
ODD = Answer("odd odd odd odd", 1000, reward=99.0, reference_logp=-9e9, log_ratio=None)


def answer(reward: float | None, log_ratio: float | None = None, tokens: int = 4, logp: float = -2.0) -> Answer:
    return Answer("a b c d", tokens, reward, logp, log_ratio)


def compared(
    before: Sequence[Answer], after: Sequence[Answer], counted: bool = True, name: str = "p:1"
) -> ComparedPrompt:
    return ComparedPrompt(name, "Q:", counted, Answers(ODD, tuple(before)), Answers(ODD, tuple(after)))


def comparison(*prompts: ComparedPrompt, reward: str = "vader", temperature: float = 1.0) -> Comparison:
    samples = len(prompts[0].before.samples) if prompts else 2
    return Comparison(ComparisonSettings(128, temperature, samples, 0, reward), prompts)


PROMPTS = (
    # Of four comparisons three wins and a tie; rewards 0.25 to 0.75; log-ratios 3 in the mean.
    compared([answer(0.0), answer(0.5)], [answer(1.0, 2.0), answer(0.5, 4.0)]),
    # Two losses and two ties; 0.5 to 0; 0.5.
    compared([answer(1.0), answer(0.0)], [answer(0.0, 1.0), answer(0.0, 0.0)]),
    # Four wins; -1 to 0.25; 0.5.
    compared([answer(-1.0), answer(-1.0)], [answer(1.0, -1.0), answer(-0.5, 2.0)]),
)
UNCOUNTED = compared([ODD, ODD], [answer(-99.0, 500.0), answer(-99.0, 500.0)], counted=False)


def test_rewards_are_means_over_prompts() -> None:
    shown = figures(comparison(*PROMPTS))
    assert shown.counted_prompts == 3
    assert shown.reward_before is not None and shown.reward_after is not None and shown.reward_difference is not None
    assert shown.reward_before.mean == pytest.approx((0.25 + 0.5 - 1.0) / 3)
    assert shown.reward_after.mean == pytest.approx((0.75 + 0.0 + 0.25) / 3)
    assert shown.reward_difference.mean == pytest.approx((0.5 - 0.5 + 1.25) / 3)
    # Differences of the same prompt, not of two independent means.
    assert shown.reward_difference == bootstrap_mean([0.5, -0.5, 1.25])


def test_a_tie_is_half_a_win() -> None:
    shown = figures(comparison(*PROMPTS))
    assert shown.win_rate == pytest.approx((0.875 + 0.25 + 1.0) / 3)
    assert shown.win_rate_interval == mean_share([0.875, 0.25, 1.0]).interval
    nothing_changed = figures(comparison(*(compared([answer(0.3)], [answer(0.3, 0.0)]) for _ in range(4))))
    assert nothing_changed.win_rate == 0.5
    # Four prompts that all say the same are four, not a certainty.
    assert nothing_changed.win_rate_interval is not None and nothing_changed.win_rate_interval[0] < 0.2


def test_the_length_controlled_win_rate_is_of_the_same_comparisons_or_says_why_not() -> None:
    shown = figures(comparison(*PROMPTS))
    assert shown.length_controlled_win_rate is None
    assert (
        shown.length_controlled_win_rate_why is not None and "all of one length" in shown.length_controlled_win_rate_why
    )
    rng = np.random.default_rng(0)

    def drawn() -> list[Answer]:
        return [answer(float(rng.normal()), tokens=int(rng.integers(1, 40))) for _ in range(2)]

    prompts = [compared(drawn(), drawn()) for _ in range(20)]
    shown = figures(comparison(*prompts))
    sides = ([prompt.before.samples for prompt in prompts], [prompt.after.samples for prompt in prompts])
    scored = [[Scored([a.reward or 0 for a in one], [a.tokens for a in one]) for one in side] for side in sides]
    assert shown.length_controlled_win_rate == length_controlled(comparisons(*scored)).estimate
    assert shown.length_controlled_win_rate is not None and shown.length_controlled_win_rate_why is None
    bare = figures(comparison(*(compared([answer(None)], [answer(None)]) for _ in range(3)), reward="none"))
    assert (bare.length_controlled_win_rate, bare.length_controlled_win_rate_why) == (None, None)


def test_rewards_of_right_and_wrong_are_shares() -> None:
    right, wrong = answer(1.0), answer(0.0)
    shown = figures(comparison(*(compared([wrong, right], [right, right]) for _ in range(8))))
    assert shown.reward_before == mean_share([0.5] * 8) and shown.reward_after == mean_share([1.0] * 8)
    assert shown.reward_after.interval is not None and shown.reward_after.interval[0] < 0.7
    assert shown.reward_difference == mean_change_of_share([0.5] * 8)


def test_the_kl_has_a_standard_error_over_prompts() -> None:
    kl = figures(comparison(*PROMPTS)).kl
    assert kl is not None
    # Per prompt 3, 0.5, 0.5: variance 25/12 over two degrees of freedom.
    assert kl.mean == pytest.approx(4 / 3)
    assert kl.standard_error == pytest.approx(math.sqrt(25 / 12 / 3))
    assert kl.samples == 6 and kl.temperature == 1
    assert figures(comparison(*PROMPTS)).kl_at_temperature is None


def test_the_kl_is_that_of_the_models_themselves_and_another_is_named_by_its_temperature() -> None:
    prompts = [dataclasses.replace(prompt, plain_log_ratios=(1.0, 3.0, 5.0)) for prompt in PROMPTS]
    shown = figures(comparison(*prompts, temperature=0.8))
    assert shown.kl == Divergence(mean=3.0, standard_error=0.0, samples=9, temperature=1.0)
    assert shown.kl_at_temperature is not None and shown.kl_at_temperature.mean == pytest.approx(4 / 3)
    assert (shown.kl_at_temperature.samples, shown.kl_at_temperature.temperature) == (6, 0.8)
    # Files without those further answers have no KL of the models themselves, whatever else they have.
    unmeasured = figures(comparison(*PROMPTS, temperature=0.8))
    assert unmeasured.kl is None and unmeasured.kl_at_temperature == shown.kl_at_temperature


def test_more_samples_of_the_same_prompts_do_not_make_the_kl_more_certain() -> None:
    few = comparison(*(compared([answer(0.0)], [answer(0.0, ratio)]) for ratio in (1.0, 2.0, 6.0)))
    many = comparison(*(compared([answer(0.0)] * 50, [answer(0.0, ratio)] * 50) for ratio in (1.0, 2.0, 6.0)))
    first, second = figures(few).kl, figures(many).kl
    assert first is not None and second is not None
    assert second.standard_error == pytest.approx(first.standard_error) and (first.samples, second.samples) == (3, 150)


def test_surprise_is_per_token() -> None:
    before = [answer(0.0, tokens=1, logp=-3.0), answer(0.0, tokens=9, logp=-7.0)]
    after = [answer(0.0, 0.0, tokens=10, logp=-5.0), answer(0.0, 0.0, tokens=30, logp=-15.0)]
    shown = figures(comparison(compared(before, after)))
    assert shown.answers_before is not None and shown.answers_after is not None
    # Ten nats over ten tokens, not the mean of 3 and 7/9.
    assert shown.answers_before.surprise == pytest.approx(1.0) and shown.answers_before.tokens == 5.0
    assert shown.answers_after.surprise == pytest.approx(0.5) and shown.answers_after.tokens == 20.0


def test_empty_answers_have_no_surprise() -> None:
    shown = figures(comparison(compared([answer(0.0, tokens=0, logp=0.0)], [answer(0.0, 0.0)])))
    assert shown.answers_before is not None and shown.answers_before.surprise == 0.0


def test_uncounted_prompts_and_greedy_answers_are_left_out() -> None:
    assert figures(comparison(*PROMPTS, UNCOUNTED)) == figures(comparison(*PROMPTS))
    assert figures(comparison(UNCOUNTED)) == Figures(counted_prompts=0)


def test_without_a_known_reward_the_rest_is_still_shown() -> None:
    prompts = [compared([answer(None)], [answer(None, ratio)]) for ratio in (1.0, 2.0)]
    shown = figures(comparison(*prompts, reward="none"))
    assert shown.kl is not None and shown.kl.mean == 1.5 and shown.answers_after is not None
    assert shown.counted_prompts == 2
    rewards = (shown.reward_before, shown.reward_after, shown.reward_difference)
    assert (*rewards, shown.win_rate, shown.win_rate_interval) == (None,) * 5


def test_without_samples_or_prompts_there_are_no_figures() -> None:
    assert figures(comparison(compared([], []))) == Figures(counted_prompts=0)
    assert figures(comparison()) == Figures(counted_prompts=0)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("one two", 0.0),
        ("one two three four", 0.0),
        # abc bca cab abc: one of four was there before.
        ("a b c a b c", 0.25),
        ("A b C a B c", 0.25),
        ("no no no no", 0.5),
        ("no " * 102, 0.99),
    ],
)
def test_repetition(text: str, share: float) -> None:
    assert repetition(text) == pytest.approx(share)


def test_repetition_is_a_mean_over_answers() -> None:
    repeats = Answer("no no no no", 4, 0.0, -1.0, 0.0)
    shown = figures(comparison(compared([repeats, answer(0.0)], [answer(0.0, 0.0)] * 2)))
    assert shown.answers_before is not None and shown.answers_before.repetition == 0.25


def test_changes_of_the_answers_are_taken_prompt_by_prompt() -> None:
    before = [answer(0.0, tokens=4, logp=-8.0), answer(0.0, tokens=6, logp=-3.0)]
    after = [answer(0.0, 0.0, tokens=10, logp=-10.0), Answer("a b c a b c", 20, 0.0, -40.0, 0.0)]
    shown = figures(comparison(compared(before, after), compared(before, before)))
    assert shown.length_change == bootstrap_mean([10.0, 0.0])
    assert shown.repetition_change == bootstrap_mean([0.125, 0.0])
    assert shown.surprise_change == bootstrap_mean([(1.0 + 2.0) / 2 - (2.0 + 0.5) / 2, 0.0])


def test_answers_without_their_rewards_have_all_other_figures() -> None:
    shown = figures(comparison(compared([answer(0.0)], [answer(None, 0.0)])))
    assert shown.reward_difference is None and shown.length_change is not None
