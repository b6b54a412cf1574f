"""Answers of a model to prompts, drawn as many times as wanted, into a file that is gone on with after a crash."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiltlm.answers.answer_rows import AnswerRow, Drawn, SampledAnswer
from tiltlm.answers.growing_file import AnswerAppender
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import ConfigError
from tiltlm.evaluation.generation import GeneratedAnswer, GenerationSettings, generate_answers, samples
from tiltlm.model.vocabulary import require_embedded
from tiltlm.pipeline.own_answers.asked_prompts import AskedPrompt
from tiltlm.pipeline.own_answers.sampled_model import SampledModel
from tiltlm.pipeline.reporter import Reporter
from tiltlm.version import __version__

ANSWERS_IN_CHUNK = 256
"""Answers between two times that the file grows: a crash loses as many, and as many are in memory at once."""
# What of a line's `drawn` must be the same for its file to be gone on with, and the option that sets it.
_SAME = {
    "weights": "another model, or another tokenizer or chat template of it",
    "temperature": "--temperature",
    "max_new_tokens": "--max-new-tokens",
    "seed": "--seed",
    "precision": "--precision",
}
_HALF = "\ufffd"


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How answers are drawn. Defaults: independent draws from the policy itself, as theory.pdf, Proposition 13
    (on-policy) asks.

    temperature: of the softmax; 1 is the policy. Nothing else is cut off or reweighted.
    """

    answers: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises a ConfigError for what cannot be."""
        for name in ("answers", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}.")
        if not 0.001 <= self.temperature <= 1000:
            raise ConfigError(f"--temperature must be from 0.001 to 1000, not {self.temperature:g}.")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"--seed must be a whole number from 0 on, not {self.seed}.")


@dataclass(slots=True)
class SamplingAccount:
    """What a file of answers holds: its lines, how many of them were there before, its answers, and how many of these
    ended by themselves, in tokens all together."""

    prompts: int = 0
    before: int = 0
    answers: int = 0
    ended: int = 0
    tokens: int = 0

    def add(self, row: AnswerRow) -> None:
        """Takes in a line."""
        self.prompts += 1
        self.answers += len(row.answers)
        self.ended += sum(bool(answer.ended) for answer in row.answers)
        self.tokens += sum(answer.tokens or 0 for answer in row.answers)


def sample_answers(
    model: SampledModel, prompts: Sequence[AskedPrompt], settings: SamplingSettings, output: Path, reporter: Reporter
) -> SamplingAccount:
    """Draws answers to prompts, in the order of the prompts, and appends a line to `output` for each.

    A prompt's keys and values are computed once for all its answers, and what prompts have in common once for all of
    them (evaluation/decoding.py). The random numbers of an answer follow from seed, prompt and number. Prompts are
    answered in chunks that depend on their order alone, so that a file that is gone on with comes to the same bytes as
    one that was made in one go, by the same command on the same machine.

    Raises:
        ConfigError: the file is there, and was drawn otherwise or to other prompts.
        DataError: the file cannot be read or written.
        ModelError: a prompt has a token that the model does not know.
        NonFiniteError: the model gives logits that are NaN or infinite.
    """
    tokenizer = model.tokenizer.tokenizer
    require_embedded(model.scorer.model, tokenizer, [(prompt.id, prompt.ids) for prompt in prompts])
    drawn = Drawn(
        model.name,
        model.weights,
        settings.temperature,
        settings.max_new_tokens,
        settings.seed,
        __version__,
        str(model.precision).removeprefix("torch."),
    )
    generation = GenerationSettings(settings.max_new_tokens, settings.seed)
    draws = samples(settings.answers, settings.temperature)
    account = SamplingAccount()
    with AnswerAppender(output) as file:
        for number, row in enumerate(file.existing()):
            _require_same(row, number, prompts, drawn, settings.answers, output)
            account.add(row)
        account.before = done = account.prompts
        chunk = max(1, ANSWERS_IN_CHUNK // settings.answers)
        start = done // chunk * chunk  # what of a chunk is missing is drawn with the rest of it, as it was before
        left = (len(prompts) - start) * settings.answers
        with reporter.progress("sampling", left, "answers") as advance:
            for first in range(start, len(prompts), chunk):
                own = prompts[first : first + chunk]
                answers = generate_answers(
                    model.scorer.model,
                    tokenizer,
                    [prompt.ids for prompt in own],
                    [draws] * len(own),
                    generation,
                    frozenset(model.tokenizer.terminators),
                    model.precision,
                    advance,
                )
                for prompt, some in list(zip(own, answers, strict=True))[max(0, done - first) :]:
                    row = _row(prompt, some, drawn, model.tokenizer)
                    file.append(row)
                    account.add(row)
    return account


def _row(
    prompt: AskedPrompt, answers: Sequence[GeneratedAnswer], drawn: Drawn, tokenizer: ExampleTokenizer
) -> AnswerRow:
    return AnswerRow(
        prompt.id, prompt.prompt, prompt.tools, tuple(_answer(prompt, one, tokenizer) for one in answers), drawn
    )


def _answer(prompt: AskedPrompt, answer: GeneratedAnswer, tokenizer: ExampleTokenizer) -> SampledAnswer:
    ended = bool(answer.ids) and answer.ids[-1] in tokenizer.terminators
    text = answer.text if not isinstance(prompt.prompt, str) else _continued(prompt, answer, tokenizer)
    if not ended:
        # The bytes of a character that was cut in two are no text.
        text = text.rstrip(_HALF)
    return SampledAnswer(text, len(answer.ids), ended, answer.logp, answer.ids)


def _continued(prompt: AskedPrompt, answer: GeneratedAnswer, tokenizer: ExampleTokenizer) -> str:
    """What an answer adds to a text, white space included: joined to it, it is what the model wrote.

    Some tokenizers drop a space where a text begins, so both are decoded together.
    """
    before, whole = (
        str(tokenizer.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        for ids in (list(prompt.ids), [*prompt.ids, *answer.ids])
    )
    return whole[len(before) :] if whole.startswith(before) else answer.text


def _require_same(
    row: AnswerRow, number: int, prompts: Sequence[AskedPrompt], drawn: Drawn, answers: int, path: Path
) -> None:
    """Refuses to go on with a file of which a line is not what would be drawn.

    number: of the line, from 0 on.

    Raises:
        ConfigError: naming the line, and what differs.
    """
    elsewhere = f"name another --output, or remove {path}."
    place = f"{path}, line {number + 1} (id `{row.id}`)"
    if number >= len(prompts):
        raise ConfigError(f"{place} is one too many, as {len(prompts)} prompts are to be answered: {elsewhere}")
    if row.drawn is None:
        raise ConfigError(f"{place} does not say how it was drawn, so it cannot be gone on with: {elsewhere}")
    prompt = prompts[number]
    if (row.id, row.prompt, row.tools) != (prompt.id, prompt.prompt, prompt.tools):
        raise ConfigError(f"{place} is of another prompt than `{prompt.id}`, which is to be there: {elsewhere}")
    then, now = dataclasses.asdict(row.drawn), dataclasses.asdict(drawn)
    differing = [
        f"{name} was {then[name]}, and is {now[name]} ({by})" for name, by in _SAME.items() if then[name] != now[name]
    ]
    if len(row.answers) != answers:
        differing.append(f"it has {len(row.answers)} answers, and {answers} are wanted (--answers)")
    if differing:
        raise ConfigError(
            f"{place} was drawn otherwise: {'; '.join(differing)}. Say the same to go on; else {elsewhere}"
        )
