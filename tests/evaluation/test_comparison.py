"""A comparison of tiny models: what is drawn, what is scored, and at which temperature."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_runs import moved, tiny_model
from tiny_tokenizers import byte_level

from tiltlm.config import ComparisonConfig
from tiltlm.data.examples import Message
from tiltlm.errors import ModelError
from tiltlm.evaluation.comparison import AnswerComparison, Models, Prompt
from tiltlm.evaluation.figures import figures
from tiltlm.judges.judge_interface import Advance, Asked
from tiltlm.model.scorer import Scorer
from tiltlm.runs.answers import Comparison
from tiltlm.runs.estimates import Divergence

PROMPTS = [Prompt("a", "A", (1, 5, 9), True), Prompt("b", "B", (1, 7, 30, 31), True), Prompt("c", "C", (1, 8), False)]


def models(step: float = 0.05) -> Models:
    before = Scorer(tiny_model())
    return Models(before, moved(Scorer(tiny_model()), step), before)


def compare(given: Models, prompts: Sequence[Prompt] = PROMPTS, **settings: float) -> Comparison:
    chosen: dict[str, Any] = {"max_new_tokens": 6, "samples": 4, **settings}
    answers = AnswerComparison(byte_level(), ComparisonConfig(**chosen), 0, frozenset({2}), torch.float32, 4096)
    done: list[int] = []
    comparison = answers.compare(given, prompts, done.append)
    assert sum(done) == answers.total(prompts)
    return comparison


def kl_of_one_token(given: Models, ids: Sequence[int], temperature: float) -> float:
    """KL of the next token's distributions, summed over the vocabulary."""
    with torch.no_grad():
        new, old = (
            (scorer.model(input_ids=torch.tensor([ids])).logits[0, -1].double() / temperature).log_softmax(-1)
            for scorer in (given.after, given.before)
        )
    return float((new.exp() * (new - old)).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.6])
def test_the_kl_is_at_temperature_one_whatever_the_answers_are_drawn_at(temperature: float) -> None:
    """Answers of one token, so that both divergences are known exactly."""
    given = models(0.1)
    shown = figures(compare(given, PROMPTS[:1], max_new_tokens=1, samples=3000, temperature=temperature))
    found = {1.0: shown.kl, **({} if temperature == 1 else {temperature: shown.kl_at_temperature})}
    assert (shown.kl_at_temperature is None) == (temperature == 1)
    for asked, kl in found.items():
        assert isinstance(kl, Divergence) and kl.temperature == asked and kl.samples == 3000
        assert kl.mean == pytest.approx(kl_of_one_token(given, PROMPTS[0].ids, asked), rel=0.15)
    apart = kl_of_one_token(given, PROMPTS[0].ids, 1.0) / kl_of_one_token(given, PROMPTS[0].ids, 0.5)
    assert not 0.7 < apart < 1.4  # otherwise the temperature could not be told


def test_only_counted_prompts_are_asked_once_more() -> None:
    comparison = compare(models(), temperature=0.8)
    assert [len(prompt.plain_log_ratios or ()) for prompt in comparison.prompts] == [4, 4, 0]
    assert all(prompt.plain_log_ratios is None for prompt in compare(models(), temperature=1.0).prompts)
    assert all(prompt.plain_log_ratios is None for prompt in compare(models(), temperature=0.8, samples=0).prompts)


def test_a_model_that_is_the_reference_has_no_divergence_at_any_temperature() -> None:
    before = Scorer(tiny_model())
    shown = figures(compare(Models(before, before, before), temperature=0.7))
    for kl in (shown.kl, shown.kl_at_temperature):
        assert kl is not None and kl.mean == pytest.approx(0.0, abs=1e-5)


def test_a_token_that_the_model_does_not_know_is_named_with_its_prompt() -> None:
    strange = dataclasses.replace(PROMPTS[2], id="prompt 1", ids=(1, 64))
    with pytest.raises(ModelError, match="prompt 1 has token 64"):
        compare(models(), [*PROMPTS, strange])


def test_no_prompts_are_a_comparison_of_nothing() -> None:
    assert compare(models(), []).prompts == ()


def test_answers_are_scored_by_the_reference_that_training_was_held_to() -> None:
    """Not by the model that answered: log pi_ref of every answer, by stock transformers at the sampling temperature."""
    given = dataclasses.replace(models(0.1), reference=moved(Scorer(tiny_model()), 0.05, seed=2))
    comparison = compare(given, max_new_tokens=1, samples=3, temperature=0.8)
    for prompt, compared in zip(PROMPTS, comparison.prompts, strict=True):
        with torch.no_grad():
            new, reference = (
                (scorer.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1] / 0.8).log_softmax(-1)
                for scorer in (given.after, given.reference)
            )
        for answers in (compared.before, compared.after):
            for answer in (answers.greedy, *answers.samples):
                assert answer.reference_logp is not None
                assert (reference - answer.reference_logp).abs().min() < 1e-4
        for answer in compared.after.samples:
            assert answer.log_ratio is not None and answer.reference_logp is not None
            token = (reference - answer.reference_logp).abs().argmin()
            assert answer.log_ratio == pytest.approx(float(new[token] - reference[token]), abs=1e-4)
        assert compared.after.greedy.log_ratio is None
        assert all(answer.log_ratio is None for answer in compared.before.samples)


def test_a_judge_is_shown_the_prompt_as_it_was_before_it_was_rendered() -> None:
    """And every answer, in the order in which they stand; without a judge nothing is scored."""
    chat = (Message("user", "Is it so?"),)
    prompts = [dataclasses.replace(PROMPTS[0], asked=chat), PROMPTS[1]]
    shown: list[Asked] = []

    class Numbering:
        name = "numbering"

        def facts(self) -> dict[str, object]:
            return {}

        def rewards(self, asked: Sequence[Asked], advance: Advance = lambda done: None) -> list[float]:
            shown.extend(asked)
            return [float(number) for number in range(len(asked))]

        def remarks(self) -> list[str]:
            return []

    config = ComparisonConfig(max_new_tokens=3, samples=2, temperature=0.7)
    ids = frozenset({2})
    answers = AnswerComparison(byte_level(), config, 0, ids, torch.float32, 4096, reward=Numbering())
    comparison = answers.compare(models(), prompts)
    assert comparison.settings.reward == "numbering"
    told = [
        answer
        for side in ("before", "after")
        for prompt in comparison.prompts
        for answer in (getattr(prompt, side).greedy, *getattr(prompt, side).samples)
    ]
    assert [one.answer for one in shown] == [answer.text for answer in told]
    assert [answer.reward for answer in told] == [float(number % 6) for number in range(12)]
    assert [one.prompt for one in shown] == (["Human: Is it so?"] * 3 + ["B"] * 3) * 2
    assert [one.messages for one in shown] == ([chat] * 3 + [None] * 3) * 2
    assert all(answer.reward is None for prompt in compare(models()).prompts for answer in prompt.after.samples)
