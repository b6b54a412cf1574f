"""Figures of who wrote answers, on tokens drawn from distributions that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tiltlm.evaluation.origin_figures import ONE, TEMPERATURES, AskedTokens, likeliest, origin_figures
from tiltlm.model.head import LogitTransform
from tiltlm.model.tempered import MOMENTS, tempered_moments
from tiltlm.report.questions.authorship import author
from tiltlm.runs.pair_origins import PairOrigins

VOCABULARY, LENGTH = 50, 20


def drawn(logits_TV: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """A token from each row at a temperature, by Gumbel's trick."""
    found: np.ndarray = (logits_TV / temperature + rng.gumbel(size=logits_TV.shape)).argmax(1)
    return found


def asked(
    rng: np.random.Generator, temperature: float = 1.0, prompts: int = 32, leaning: float = 0.0, noise: float = 0.0
) -> AskedTokens:
    """Two answers and a sample to each prompt, of `LENGTH` tokens whose logits are as wide as they happen to be.

    leaning: of the author's logits, how much an answer's own bent adds; noise: how much other logits add.
    """
    answers = 3 * prompts
    width_T = rng.uniform(0.5, 4, answers * LENGTH)
    logits_TV = rng.normal(size=(answers * LENGTH, VOCABULARY)) * width_T[:, None]
    answer_T = np.repeat(np.arange(answers), LENGTH)
    own_A = np.arange(answers) % 3 == 2
    written_TV = (1 + leaning * rng.normal(size=answers))[answer_T, None] * logits_TV
    written_TV = written_TV + noise * rng.normal(size=logits_TV.shape)
    token_T = np.where(own_A[answer_T], drawn(logits_TV, 1.0, rng), drawn(written_TV, temperature, rng))
    identity = nn.Linear(VOCABULARY, VOCABULARY, bias=False, dtype=torch.float64)
    with torch.no_grad():
        identity.weight.copy_(torch.eye(VOCABULARY))
    moments = tempered_moments(
        torch.from_numpy(logits_TV), torch.from_numpy(token_T), identity, LogitTransform(), TEMPERATURES
    )
    return AskedTokens(
        moments_TKM=moments.numpy().reshape(-1, len(TEMPERATURES), MOMENTS),
        answer_T=answer_T,
        end_T=np.zeros(len(answer_T), dtype=bool),
        first_T=np.ones(len(answer_T), dtype=bool),
        prompt_A=np.repeat(np.arange(prompts), 3),
        label_A=np.tile([1, 0, -1], prompts),
        own_A=own_A,
    )


def figures(seed: int, **how: float) -> PairOrigins:
    return origin_figures(asked(np.random.default_rng(seed), **how), (1, 0), LENGTH)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.3, 0.6, 0.8, 1.0, 1.2, 1.7])
def test_the_temperature_of_the_answers_is_found(temperature: float) -> None:
    found = [figures(seed, temperature=temperature).temperature for seed in range(5)]
    assert np.mean([one.mean for one in found]) == pytest.approx(temperature, rel=0.03)
    assert all(one.interval is not None and one.interval[0] < one.mean < one.interval[1] for one in found)


def test_own_answers_are_called_others_in_one_case_of_twenty_at_most() -> None:
    called = {at: [author(figures(seed, temperature=at)) for seed in range(24)] for at in (0.6, 1.0)}
    # Of 48, at 5% each, more come in 9% of cases.
    assert sum(some.count("others") for some in called.values()) <= 4
    assert called[0.6].count("the model at another temperature") >= 21 and called[1.0].count("the model") >= 21


def test_others_whose_answers_have_a_bent_of_their_own_are_found() -> None:
    assert [author(figures(seed, leaning=0.6)) for seed in range(12)].count("others") >= 11


def test_others_who_differ_evenly_from_word_to_word_hide_behind_a_temperature() -> None:
    # What the question says of itself: an author that fits is not proved.
    assert {author(figures(seed, noise=1.5)) for seed in range(6)} == {"the model at another temperature"}


def test_intervals_cover_what_they_are_of() -> None:
    found = [figures(seed) for seed in range(40)]
    for estimates, truth in (
        ([one.temperature for one in found], 1.0),
        ([one.token_scatter for one in found], 1.0),
        ([one.gap for one in found], 0.0),
    ):
        covered = sum(one.interval is not None and one.interval[0] <= truth <= one.interval[1] for one in estimates)
        assert covered >= 34  # of 38 expected; fewer come in one case of a hundred


def test_of_own_answers_nearly_all_could_have_been_said_and_of_wilder_ones_few() -> None:
    own, wild = figures(0), figures(0, temperature=1.9)
    assert own.sayable.mean > 0.95 and own.own_sayable.mean > 0.95 and wild.own_sayable.mean > 0.95
    assert wild.sayable.mean < 0.5
    assert figures(0, temperature=0.4).sayable.mean == 1, "what is said most readily can be said"


def test_the_gap_is_the_mean_of_both_sides_less_own() -> None:
    tokens = asked(np.random.default_rng(3), prompts=8)
    found = origin_figures(tokens, (1, 0), LENGTH)
    surprise_A = tokens.moments_TKM[:, ONE, 0].reshape(-1, LENGTH).mean(1).reshape(-1, 3)
    assert found.chosen is not None and found.rejected is not None and found.chosen_minus_own is not None
    assert found.chosen.mean == pytest.approx(surprise_A[:, 0].mean())
    assert found.rejected.mean == pytest.approx(surprise_A[:, 1].mean())
    assert found.own.mean == pytest.approx(surprise_A[:, 2].mean())
    assert found.gap.mean == pytest.approx((surprise_A[:, :2].mean(1) - surprise_A[:, 2]).mean())
    assert found.chosen_minus_own.mean == pytest.approx((surprise_A[:, 0] - surprise_A[:, 2]).mean())
    assert found.prompts == found.gap.clusters == 8


def test_the_likeliest_temperature_is_where_the_likelihood_is_largest() -> None:
    rng = np.random.default_rng(4)
    logits_TV = 2 * rng.normal(size=(400, VOCABULARY))
    token_T = drawn(logits_TV, 0.9, rng)

    def likelihood(temperature: float) -> float:
        scaled = torch.from_numpy(logits_TV / temperature)
        return float(torch.log_softmax(scaled, -1)[range(400), token_T].sum())

    best = max(np.linspace(0.6, 1.4, 801), key=likelihood)
    own = logits_TV[range(400), token_T]
    sums = []
    for temperature in TEMPERATURES:
        share_TV = torch.softmax(torch.from_numpy(logits_TV / temperature), -1).numpy()
        mean_T = (share_TV * logits_TV).sum(1)
        variance_T = (share_TV * logits_TV**2).sum(1) - mean_T**2
        sums.append(((own - mean_T).sum(), variance_T.sum() / temperature**2))
    given = np.array([[one for one, _ in sums] + [slope for _, slope in sums]])
    assert float(likeliest(given)[0]) == pytest.approx(best, abs=0.01)


def test_what_fits_no_temperature_that_is_tried_is_given_the_nearest() -> None:
    many = len(TEMPERATURES)
    assert likeliest(np.array([[-1.0] * many + [0.0] * many]))[0] == TEMPERATURES[-1]
    assert likeliest(np.array([[1.0] * many + [0.0] * many]))[0] == TEMPERATURES[0]


def test_answers_that_are_empty_are_no_error_and_say_nothing() -> None:
    tokens = asked(np.random.default_rng(0), prompts=2)
    tokens.end_T[:] = True
    found = origin_figures(tokens, (1, 0), LENGTH)
    assert found.sayable.mean == 1 and author(found) == "unclear"
