"""Answers before and after training, side by side, and the figures drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from tiltlm.config import ComparisonConfig
from tiltlm.config.judge_words import NONE
from tiltlm.data.examples import Text
from tiltlm.data.tokens.token_columns import TokenizedSequence
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.distributed.sharding import is_shared, opened
from tiltlm.evaluation.drawing import Draw
from tiltlm.evaluation.generation import GeneratedAnswer, GenerationSettings, generate_answers, greedy, samples
from tiltlm.judges.judge_interface import PointwiseJudge, asked_of
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score_sequences
from tiltlm.model.vocabulary import require_embedded
from tiltlm.plan.dealing import dealt
from tiltlm.runs.answers import Answer, Answers, ComparedPrompt, Comparison, ComparisonSettings


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt to answer: its name, its text, its tokens, and whether it counts in the figures.

    asked: the same before it was rendered for the model, which is what a judge is shown; None: the text itself.
    """

    id: str
    text: str
    ids: tuple[int, ...]
    counted: bool
    asked: Text | None = None


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a comparison. `reference` is the one training was held to; mostly it is `before` itself."""

    before: Scorer
    after: Scorer
    reference: Scorer


@dataclass(frozen=True, slots=True)
class AnswerComparison:
    """Answers prompts with two models alike.

    Attributes:
        config: how many answers, how long, how hot.
        terminators: token ids that end an answer.
        token_budget: most tokens in one scoring pass.
        ranks: processes that have the same models and prompts, and share out the answering.
        reward: the judge that scores the answers; None where none does.
    """

    tokenizer: PreTrainedTokenizerFast
    config: ComparisonConfig
    seed: int
    terminators: frozenset[int]
    precision: torch.dtype
    token_budget: int
    ranks: Ranks = ALONE
    reward: PointwiseJudge | None = None

    def total(self, prompts: Sequence[Prompt]) -> int:
        """What the calls of `advance` add up to: one for each answer of either model."""
        return sum(self.answers(prompts, trained) for trained in (False, True))

    def answers(self, prompts: Sequence[Prompt], trained: bool) -> int:
        """How many answers the model as it was, or as it is trained, gives to the prompts."""
        return sum(len(self._draws(prompt, trained)) for prompt in prompts)

    def _draws(self, prompt: Prompt, trained: bool) -> tuple[Draw, ...]:
        """The greedy answer, then the sampled ones; then those of the trained model at temperature 1."""
        drawn = greedy(self.config.temperature) + samples(self.config.samples, self.config.temperature)
        return drawn + (
            samples(self.config.samples, 1.0, self.config.samples) if trained and self._plain(prompt) else ()
        )

    def _plain(self, prompt: Prompt) -> bool:
        """Whether the trained model answers once more, at temperature 1, for the KL of the models as such."""
        return prompt.counted and self.config.samples > 0 and self.config.temperature != 1

    def compare(
        self, models: Models, prompts: Sequence[Prompt], advance: Callable[[int], None] = lambda done: None
    ) -> Comparison:
        """Greedy and sampled answers of both models, with known rewards and log-probabilities.

        Raises:
            ModelError: a prompt has a token that a model does not know.
        """
        for scorer in (models.before, models.after, models.reference):
            require_embedded(scorer.model, self.tokenizer, [(prompt.id, prompt.ids) for prompt in prompts])
        before, after = (
            self._answer(scorer, prompts, trained, advance)
            for scorer, trained in ((models.before, False), (models.after, True))
        )
        if models.reference is models.before:
            reference_before = [[answer.logp for answer in some] for some in before]
        else:
            reference_before = self._logps(models.reference, prompts, before, trained=False)
        reference_after = self._logps(models.reference, prompts, after, trained=True)
        records_before = self._records(prompts, before, reference_before, False)
        records_after = self._records(prompts, after, reference_after, True)
        ratios = map(self._plain_ratios, prompts, after, reference_after)
        return Comparison(
            settings=ComparisonSettings(
                max_new_tokens=self.config.max_new_tokens,
                temperature=self.config.temperature,
                samples=self.config.samples,
                seed=self.seed,
                reward=NONE if self.reward is None else self.reward.name,
            ),
            prompts=tuple(
                ComparedPrompt(prompt.id, prompt.text, prompt.counted, old, new, plain)
                for prompt, old, new, plain in zip(prompts, records_before, records_after, ratios, strict=True)
            ),
        )

    def _answer(
        self, scorer: Scorer, prompts: Sequence[Prompt], trained: bool, advance: Callable[[int], None]
    ) -> list[list[GeneratedAnswer]]:
        """For each prompt its answers: they follow from it and the seed, whoever gives them.

        Ranks that have a model whole each answer some prompts. Those over which it is shared out answer all of them in
        step: a token then takes as long as its layers take to be gathered, however many answers there are.
        """
        if is_shared(scorer):
            with opened(scorer):
                return self._given(scorer, prompts, range(len(prompts)), trained, advance, self.ranks)
        own = dealt([len(prompt.ids) for prompt in prompts], self.ranks.count)[self.ranks.rank]
        given = self._given(scorer, prompts, own, trained, lambda done: advance(done * self.ranks.count), ALONE)
        every = self.ranks.gathered(dict(zip(own, given, strict=True)))
        answers = {number: some for answered in every for number, some in answered.items()}
        return [answers[number] for number in range(len(prompts))]

    def _given(
        self,
        scorer: Scorer,
        prompts: Sequence[Prompt],
        own: Sequence[int],
        trained: bool,
        advance: Callable[[int], None],
        ranks: Ranks,
    ) -> list[list[GeneratedAnswer]]:
        """Answers to some of the prompts. ranks: see `generate_answers`."""
        return generate_answers(
            scorer.model,
            self.tokenizer,
            [prompts[number].ids for number in own],
            [self._draws(prompts[number], trained) for number in own],
            GenerationSettings(self.config.max_new_tokens, self.seed),
            self.terminators,
            self.precision,
            advance,
            ranks,
        )

    def _records(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Sequence[GeneratedAnswer]],
        reference: Sequence[Sequence[float]],
        policy: bool,
    ) -> list[Answers]:
        """Of each prompt the greedy and the sampled answers, with rewards.

        policy: whether the trained model gave them. Log-ratios are told only of its own samples, where they estimate
            the KL.
        """
        shown = 1 + self.config.samples
        asked = [
            asked_of(prompt.text if prompt.asked is None else prompt.asked, answer.text)
            for prompt, some in zip(prompts, answers, strict=True)
            for answer in some[:shown]
        ]
        rewards = iter([None] * len(asked) if self.reward is None else self.reward.rewards(asked))
        records = []
        for some, logps in zip(answers, reference, strict=True):
            drawn = [
                Answer(
                    answer.text,
                    len(answer.ids),
                    next(rewards),
                    logp,
                    answer.logp - logp if policy and number > 0 else None,
                )
                for number, (answer, logp) in enumerate(zip(some[:shown], logps[:shown], strict=True))
            ]
            records.append(Answers(drawn[0], tuple(drawn[1:])))
        return records

    def _plain_ratios(
        self, prompt: Prompt, answers: Sequence[GeneratedAnswer], reference: Sequence[float]
    ) -> tuple[float, ...] | None:
        """log pi(y|x) - log pi_ref(y|x) of answers that the trained model drew at temperature 1."""
        if not self._plain(prompt):
            return None
        further = slice(1 + self.config.samples, None)
        return tuple(answer.logp - logp for answer, logp in zip(answers[further], reference[further], strict=True))

    def _logps(
        self, scorer: Scorer, prompts: Sequence[Prompt], answers: Sequence[Sequence[GeneratedAnswer]], trained: bool
    ) -> list[list[float]]:
        """log pi(y|x) of each prompt's answers, each at the temperature it was drawn at, in nats."""
        own = [_sequence(prompt, answer) for prompt, some in zip(prompts, answers, strict=True) for answer in some]
        temperatures = [draw.temperature for prompt in prompts for draw in self._draws(prompt, trained)]
        scored = iter(score_sequences(scorer, own, self.precision, self.token_budget, temperatures, self.ranks))
        return [[float(next(scored).sum()) for _ in some] for some in answers]


def _sequence(prompt: Prompt, answer: GeneratedAnswer) -> TokenizedSequence:
    return TokenizedSequence(np.array([*prompt.ids, *answer.ids], dtype=np.int32), len(prompt.ids))
