"""All that is looked for in the examples that are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tiltlm.data.examples import Example
from tiltlm.data.quality.damage import Damage
from tiltlm.data.quality.findings import counted, finding, of_all, verb
from tiltlm.data.quality.histograms import token_histograms
from tiltlm.data.quality.lengths import length_bias
from tiltlm.data.quality.near_prompts import ALIKE, near_prompts
from tiltlm.data.quality.parts import Part, Prompts
from tiltlm.data.quality.repeats import Said, repeated_and_contradictory
from tiltlm.data.quality.special_marks import SpecialMarks
from tiltlm.data.quality.truncation import truncation
from tiltlm.data.quality.writing_systems import WritingSystems
from tiltlm.data.splitting import grouped
from tiltlm.data.stored_examples import JoinedExamples, some_of
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.objectives.interface import Unit
from tiltlm.runs.data_account import DataFinding, DroppedRow, FoundRow, Quality

_WITHIN = 2
"""The first findings are those of repeats; after them come those across the splits."""


def examined(train: Part, held_out: Part, tokenizer: ExampleTokenizer, unit: Unit, noun: str) -> Quality:
    """What the examples of both splits look like. Time and memory grow with their number and length, no faster."""
    examples = JoinedExamples((train.examples, held_out.examples))
    parts = (train, held_out)

    def name(number: int) -> str:
        return examples[number].id

    lengths, of_lengths = length_bias(train, held_out)
    cut, of_cuts = truncation(parts, name, tokenizer.config) if examples else ((), [])
    marks, damage, scripts_of, said = SpecialMarks(tokenizer.tokenizer), Damage(), WritingSystems(), Said()
    # Once through all of them, as they may have to be read from a file.
    for example in examples:
        for look in (marks, damage, scripts_of, said):
            look.see(example)
    special, of_special = marks.found(noun)
    signs, of_damage = damage.found(noun)
    scripts, of_scripts = scripts_of.found(name, noun)
    return Quality(
        findings=(
            *repeated_and_contradictory(said, unit, name, noun),
            *_near(train, held_out, said.prompts()),
            *of_lengths,
            *of_cuts,
            *of_special,
            *of_damage,
            *of_scripts,
        ),
        lengths=lengths,
        truncation=cut,
        histograms=token_histograms(parts),
        scripts=scripts,
        special_tokens=special,
        damage=signs,
    )


def _near(train: Part, held_out: Part, prompts: np.ndarray) -> list[DataFinding]:
    """Held-out prompts that nearly are a training prompt; nothing where nothing is held out.

    prompts: digests of the prompts of both.
    """
    if not held_out.examples or not train.examples:
        return []
    trained = _first_of_each_prompt(train.examples, prompts[: len(train.examples)])
    asked = _first_of_each_prompt(held_out.examples, prompts[len(train.examples) :])
    found = near_prompts(Prompts(asked), Prompts(trained))
    many = len(found)
    return [
        finding(
            "held-out prompts like training prompts",
            many,
            len(asked),
            f"{of_all(many, len(asked), 'held-out prompt')} {verb(many, 'is', 'are')} nearly the same as a training "
            f"prompt: at least {ALIKE:.0%} of their pieces of five characters are.",
            (
                FoundRow((asked[near.held_out].id, trained[near.train].id), f"{near.similarity:.0%} alike")
                for near in found
            ),
            advice="What is measured on them may be remembered, not learnt. Remove the training rows that are listed, "
            "or hold them out too (data.eval).",
        )
    ]


def _first_of_each_prompt(examples: Sequence[Example], prompts: np.ndarray) -> Sequence[Example]:
    return some_of(examples, np.sort(np.unique(grouped(prompts), return_index=True)[1]))


def with_leaks(quality: Quality, dropped: Sequence[DroppedRow], held_out: int, noun: str) -> Quality:
    """The same with the training examples that were dropped because their prompt is in the held-out data given.

    dropped: those. held_out: how many held-out examples were read; 0 where they are drawn from the training data,
        which puts all of one prompt on one side.
    """
    if not held_out:
        return quality
    many = len(dropped)
    sentence = (
        f"{counted(many, f'training {noun}')} {verb(many, 'has', 'have')} a held-out prompt, and "
        f"{verb(many, 'is', 'are')} not trained on."
    )
    rows = (FoundRow((row.id,), row.detail) for row in dropped)
    both = finding("prompts in both splits", many, many + held_out, sentence, rows, look=False)
    within, across = quality.findings[:_WITHIN], quality.findings[_WITHIN:]
    return replace(quality, findings=(*within, both, *across))
