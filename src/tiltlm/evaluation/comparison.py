"""Answers before and after training, side by side, and the figures drawn from them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from tiltlm.config import ComparisonConfig
from tiltlm.data.tokens.token_columns import TokenizedSequence
from tiltlm.evaluation.generation import GeneratedAnswer, GenerationSettings, generate_answers
from tiltlm.evaluation.rewards import REWARDS
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score_sequences
from tiltlm.model.vocabulary import require_embedded
from tiltlm.runs.answers import Answer, Answers, ComparedPrompt, Comparison, ComparisonSettings


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt to answer: its name, its text, its tokens, and whether it counts in the figures."""

    id: str
    text: str
    ids: tuple[int, ...]
    counted: bool


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
        config: how many answers, how long, how hot, and the known reward.
        terminators: token ids that end an answer.
        token_budget: most tokens in one scoring pass.
    """

    tokenizer: PreTrainedTokenizerFast
    config: ComparisonConfig
    seed: int
    terminators: frozenset[int]
    precision: torch.dtype
    token_budget: int

    def total(self, prompts: Sequence[Prompt]) -> int:
        """What the calls of `advance` add up to: one for each pass of either model over a prompt."""
        return 2 * (1 + (self.config.samples > 0)) * len(prompts) + len(self._asked_plainly(prompts))

    def _asked_plainly(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that the trained model answers once more, at temperature 1, for the KL of the models as such."""
        wanted = self.config.samples > 0 and self.config.temperature != 1
        return [prompt for prompt in prompts if prompt.counted and wanted]

    def compare(
        self, models: Models, prompts: Sequence[Prompt], advance: Callable[[int], None] = lambda done: None
    ) -> Comparison:
        """Greedy and sampled answers of both models, with known rewards and log-probabilities.

        Raises:
            ModelError: a prompt has a token that a model does not know.
        """
        for scorer in (models.before, models.after, models.reference):
            require_embedded(scorer.model, self.tokenizer, [(prompt.id, prompt.ids) for prompt in prompts])
        before, after = (self._answer(scorer, prompts, advance) for scorer in (models.before, models.after))
        records_before = self._records(models.reference, None, prompts, before)
        records_after = self._records(models.reference, models.after, prompts, after)
        plain = self._plain_log_ratios(models, self._asked_plainly(prompts), advance)
        return Comparison(
            settings=ComparisonSettings(
                max_new_tokens=self.config.max_new_tokens,
                temperature=self.config.temperature,
                samples=self.config.samples,
                seed=self.seed,
                reward=self.config.reward,
            ),
            prompts=tuple(
                ComparedPrompt(prompt.id, prompt.text, prompt.counted, old, new, plain.get(prompt))
                for prompt, old, new in zip(prompts, records_before, records_after, strict=True)
            ),
        )

    def _answer(
        self, scorer: Scorer, prompts: Sequence[Prompt], advance: Callable[[int], None]
    ) -> list[list[GeneratedAnswer]]:
        """For each prompt the greedy answer, then the sampled ones."""
        answers: list[list[GeneratedAnswer]] = [[] for _ in prompts]
        for temperature, samples in ((None, 1), (self.config.temperature, self.config.samples)):
            if samples == 0:
                continue
            drawn = self._generate(scorer, prompts, temperature, samples, advance)
            for collected, new in zip(answers, drawn, strict=True):
                collected.extend(new)
        return answers

    def _generate(
        self,
        scorer: Scorer,
        prompts: Sequence[Prompt],
        temperature: float | None,
        samples: int,
        advance: Callable[[int], None],
    ) -> list[list[GeneratedAnswer]]:
        settings = GenerationSettings(self.config.max_new_tokens, temperature, samples, self.seed)
        ids = [prompt.ids for prompt in prompts]
        return generate_answers(scorer.model, self.tokenizer, ids, settings, self.terminators, self.precision, advance)

    def _plain_log_ratios(
        self, models: Models, prompts: Sequence[Prompt], advance: Callable[[int], None]
    ) -> dict[Prompt, tuple[float, ...]]:
        """For each prompt, log pi(y|x) - log pi_ref(y|x) of answers that the trained model draws at temperature 1."""
        if not prompts:
            return {}
        drawn = self._generate(models.after, prompts, 1.0, self.config.samples, advance)
        sequences = [_sequence(prompt, one) for prompt, some in zip(prompts, drawn, strict=True) for one in some]
        own, reference = (self._logps(scorer, sequences, 1.0) for scorer in (models.after, models.reference))
        ratios = iter([a - b for a, b in zip(own, reference, strict=True)])
        return {prompt: tuple(itertools.islice(ratios, self.config.samples)) for prompt in prompts}

    def _records(
        self,
        reference: Scorer,
        policy: Scorer | None,
        prompts: Sequence[Prompt],
        answers: Sequence[Sequence[GeneratedAnswer]],
    ) -> list[Answers]:
        """Scores generated answers; log-ratios only for a policy's own samples, where they estimate the KL."""
        flat = [(prompt, answer) for prompt, drawn in zip(prompts, answers, strict=True) for answer in drawn]
        sequences = [_sequence(prompt, answer) for prompt, answer in flat]
        texts = [answer.text for _, answer in flat]
        rewards = REWARDS[self.config.reward](texts) if self.config.reward != "none" else [None] * len(flat)
        reference_logps = self._logps(reference, sequences, self.config.temperature)
        log_ratios: list[float | None] = [None] * len(flat)
        per_prompt = 1 + self.config.samples
        if policy is not None:
            sampled = [i for i in range(len(flat)) if i % per_prompt]
            own = self._logps(policy, [sequences[i] for i in sampled], self.config.temperature)
            for i, logp in zip(sampled, own, strict=True):
                log_ratios[i] = logp - reference_logps[i]
        answered = [
            Answer(answer.text, len(answer.ids), reward, reference_logp, log_ratio)
            for (_, answer), reward, reference_logp, log_ratio in zip(
                flat, rewards, reference_logps, log_ratios, strict=True
            )
        ]
        starts = range(0, len(flat), per_prompt)
        return [Answers(answered[i], tuple(answered[i + 1 : i + per_prompt])) for i in starts]

    def _logps(self, scorer: Scorer, sequences: Sequence[TokenizedSequence], temperature: float) -> list[float]:
        """log pi(y|x) of each sequence's completion at a temperature, in nats."""
        scored = score_sequences(scorer, sequences, self.precision, self.token_budget, temperature)
        return [float(values.sum()) for values in scored]


def _sequence(prompt: Prompt, answer: GeneratedAnswer) -> TokenizedSequence:
    return TokenizedSequence(np.array([*prompt.ids, *answer.ids], dtype=np.int32), len(prompt.ids))
