"""Answers of several models to the same held-out prompts, beside many of the reference: what a frontier is made of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tiltlm.answers.answer_file import prompt_value, read_answers
from tiltlm.answers.answer_rows import AnswerRow
from tiltlm.data.preparation import PreparedData
from tiltlm.data.tokens.token_columns import TokenizedSequence
from tiltlm.errors import ConfigError, DataError
from tiltlm.evaluation.frontier import Answered
from tiltlm.evaluation.prompts import first_of_prompts
from tiltlm.judges.judge_interface import PointwiseJudge, asked_of
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score_sequences
from tiltlm.pipeline.own_answers.asked_prompts import AskedPrompt
from tiltlm.pipeline.own_answers.sampled_model import SampledModel
from tiltlm.pipeline.own_answers.sampling import SamplingSettings, sample_answers
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, prompt_room
from tiltlm.runs.frontier_record import FrontierSettings
from tiltlm.storage.cache import ANSWERS, writable_cache_folder

REFERENCE_ANSWERS, MODEL_ANSWERS = 128, 8
"""To each prompt, unless told otherwise: the limit is told from many, a mean from few."""
FEWEST_ANSWERS = 16
"""Of the reference to each prompt: fewer tell of no limit above a few tenths of a nat."""


@dataclass(frozen=True, slots=True)
class FrontierOptions:
    """What is asked of whom.

    prompts: how many held-out prompts. reference_answers: of the reference to each; the limit needs many.
    answers: of each other model to each.
    """

    prompts: int
    reference_answers: int = REFERENCE_ANSWERS
    answers: int = MODEL_ANSWERS

    def __post_init__(self) -> None:
        """Raises a ConfigError for what cannot be."""
        if self.reference_answers < FEWEST_ANSWERS:
            raise ConfigError(
                f"{self.reference_answers} answers of the reference tell of no limit: draw {FEWEST_ANSWERS} or more."
            )
        if self.prompts < 2 or self.answers < 1:
            raise ConfigError("a frontier needs 2 prompts or more, and 1 answer or more to each.")


class HeldOutAnswers:
    """Answers to held-out prompts, drawn as the run's settings say ([comparison]), judged, and scored by the reference.

    All is in float32, as the models are saved. The reference's answers are kept in the cache, as every run that starts
    from the same model needs the same ones.
    """

    def __init__(
        self,
        setup: Setup,
        reference: Scorer,
        prompts: Sequence[AskedPrompt],
        judge: PointwiseJudge,
        options: FrontierOptions,
        reporter: Reporter,
    ) -> None:
        """reference: the model from which KL is measured."""
        self._setup = dataclasses.replace(setup, precision=torch.float32)
        self._reference, self._prompts, self._judge = reference, prompts, judge
        self._options, self._reporter = options, reporter

    @property
    def settings(self) -> FrontierSettings:
        """What was asked of whom, for the record."""
        comparison = self._setup.config.comparison
        return FrontierSettings(
            reward=self._judge.name,
            prompts=len(self._prompts),
            reference_answers=self._options.reference_answers,
            answers=self._options.answers,
            temperature=comparison.temperature,
            max_new_tokens=comparison.max_new_tokens,
            seed=self._setup.config.run.seed,
        )

    def of_reference(self) -> np.ndarray:
        """Rewards of the reference's answers, shape (P, N)."""
        model = SampledModel.of("the reference", self._reference, self._setup)
        sampling = self._sampling(self._options.reference_answers)
        place = writable_cache_folder(ANSWERS) / f"{self._address(model, sampling)[:32]}.jsonl"
        self._reporter.say(
            f"  the reference answers {len(self._prompts)} prompts {sampling.answers} times each, kept in {place}"
        )
        return self._rewards(self._drawn(model, sampling, place))

    def of_model(self, name: str, step: int | None, scorer: Scorer, place: Path) -> Answered:
        """Rewards and log-ratios of a model's answers.

        place: a file beside which they are kept, called as it is but for a digest of all that decides them: another
            model of that name, more answers or other prompts have a file of their own.
        """
        model, sampling = SampledModel.of(name, scorer, self._setup), self._sampling(self._options.answers)
        own_place = place.with_name(f"{place.stem}-{self._address(model, sampling)[:12]}{place.suffix}")
        rows = self._drawn(model, sampling, own_place)
        own = np.array([[answer.logp for answer in row.answers] for row in rows], dtype=np.float64)
        return Answered(name, step, self._rewards(rows), own - self._reference_logps(rows))

    def _address(self, model: SampledModel, sampling: SamplingSettings) -> str:
        """A digest of all that a file which is gone on with is compared by, so that no other one is ever found in its
        place."""
        asked = [(prompt.id, prompt_value(prompt.prompt), prompt.tools, prompt.ids) for prompt in self._prompts]
        named = json.dumps([model.weights, dataclasses.asdict(sampling), asked])
        return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()

    def _sampling(self, answers: int) -> SamplingSettings:
        comparison = self._setup.config.comparison
        return SamplingSettings(answers, comparison.temperature, comparison.max_new_tokens, self._setup.config.run.seed)

    def _drawn(self, model: SampledModel, sampling: SamplingSettings, place: Path) -> list[AnswerRow]:
        sample_answers(model, self._prompts, sampling, place, self._reporter)
        return read_answers(place)

    def _rewards(self, rows: Iterable[AnswerRow]) -> np.ndarray:
        every = list(rows)
        asked = [asked_of(row.prompt, answer.text) for row in every for answer in row.answers]
        with self._reporter.progress("judging", len(asked), "answers") as advance:
            rewards = self._judge.rewards(asked, advance)
        return np.array(rewards, dtype=np.float64).reshape(len(every), -1)

    def _reference_logps(self, rows: Sequence[AnswerRow]) -> np.ndarray:
        """log pi_ref(y|x) at the temperature of the draws, in nats; of answers' own tokens, not of their texts."""
        sequences = [
            TokenizedSequence(np.array([*prompt.ids, *(answer.ids or ())], dtype=np.int32), len(prompt.ids))
            for prompt, row in zip(self._prompts, rows, strict=True)
            for answer in row.answers
        ]
        config = self._setup.config
        temperatures = [config.comparison.temperature] * len(sequences)
        scored = score_sequences(self._reference, sequences, torch.float32, config.training.token_budget, temperatures)
        return np.array([values.sum() for values in scored], dtype=np.float64).reshape(len(rows), -1)


def held_out_asked(setup: Setup, data: PreparedData, count: int) -> list[AskedPrompt]:
    """The first different prompts of the held-out examples, as a run's comparison takes them.

    Raises:
        DataError: there are fewer than two.
    """
    room, found = prompt_room(setup), []
    for example in first_of_prompts(data.eval_rendered, count):
        _, ids = setup.tokenizer.ask(example.source.prompt, example.source.tools, room)
        found.append(AskedPrompt(example.id, example.source.prompt, example.source.tools, tuple(ids)))
    if len(found) < 2:
        raise DataError(f"a frontier needs two held-out prompts or more, and there is {len(found)}.")
    return found
