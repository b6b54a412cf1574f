"""What the model as it was makes of answers it was trained on, and of answers of its own to the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from tiltlm.data.tokens.grouping import prompt_groups
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.distributed.sharding import is_shared, opened
from tiltlm.evaluation.generation import GenerationSettings, generate_answers, samples
from tiltlm.evaluation.origin_figures import TEMPERATURES, AskedTokens, origin_figures
from tiltlm.model.scorer import Asked, Scorer
from tiltlm.model.scoring import score
from tiltlm.model.tempered import MOMENTS
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED
from tiltlm.runs.pair_origins import PairOrigins

PROMPTS = 32
"""Most prompts that are looked at: a temperature is then known to a few hundredths, for one forward pass over 32
examples and 32 samples, a small part of what a run costs."""
SAMPLE = MISMATCHED
"""The label under which a sample is scored beside the answers of its prompt, so that they share the prompt's pass. No
answer of another prompt is looked at here, so it means nothing else."""


def chosen_examples(
    columns: TokenColumns, room: int | None, seed: int, most: int = PROMPTS
) -> tuple[list[TokenizedExample], int]:
    """At most so many examples, each of another prompt, drawn by the seed; and how many prompts were too long.

    room: most tokens of a prompt that leave the model room to answer; None where it has no such limit.
    """
    first = dict[int, int]()
    for number, group in enumerate(prompt_groups(columns)):
        first.setdefault(group, number)
    examples = [_answers_alone(columns[number]) for number in first.values()]
    examples = [example for example in examples if example.sequences]
    fitting = [one for one in examples if room is None or one.sequences[0].first_scored <= room]
    drawn = np.random.default_rng([seed, PROMPTS]).permutation(len(fitting))[:most]
    return [fitting[number] for number in sorted(drawn.tolist())], len(examples) - len(fitting)


def _answers_alone(example: TokenizedExample) -> TokenizedExample:
    """An example without answers that are another prompt's."""
    kept = [pair for pair in zip(example.sequences, example.labels, strict=True) if pair[1] != MISMATCHED]
    return TokenizedExample(example.id, tuple(own for own, _ in kept), tuple(label for _, label in kept))


def pair_origins(
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[TokenizedExample],
    settings: GenerationSettings,
    terminators: frozenset[int],
    token_budget: int,
    too_long: int = 0,
    advance: Callable[[int], None] = lambda done: None,
    ranks: Ranks = ALONE,
    temperature: float = 1.0,
) -> PairOrigins | None:
    """Figures of who wrote the examples' answers; None where there are no examples.

    The model answers each prompt once at temperature 1, in float32: the model itself, whatever temperature the run
    samples at elsewhere, since only there is its entropy what its answers surprise it by. Held-out prompts that the
    run answers anyway would cost nothing, but are at that other temperature, and are not what it learned from.

    Args:
        scorer: the model before training. Of several ranks, one that is shared out over them, or whole.
        settings: of the samples: no more tokens of any answer are compared with them.
        advance: called with how many prompts are answered, then with how many examples are scored.
        temperature: of the samples, if they are to be like answers that were drawn at another; scores are always at 1.
    """
    if not examples:
        return None
    prompts = [one.sequences[0].ids[: one.sequences[0].first_scored].tolist() for one in examples]
    together = ranks if is_shared(scorer) else ALONE
    with opened(scorer) if together.several else nullcontext():
        own = generate_answers(
            scorer.model,
            tokenizer,
            prompts,
            [samples(1, temperature)] * len(prompts),
            settings,
            terminators,
            torch.float32,
            advance,
            together,
        )
    joined = [
        TokenizedExample(one.id, (*one.sequences, _sequence(prompt, answer.ids)), (*one.labels, SAMPLE))
        for one, prompt, (answer,) in zip(examples, prompts, own, strict=True)
    ]
    asked = Asked(temperatures=TEMPERATURES)
    columns = TokenColumns.of(joined)
    values = score(scorer, columns, torch.float32, token_budget, advance, asked=asked, ranks=together)
    return origin_figures(
        asked_tokens(columns, values[:, 1:], settings.most, terminators),
        (CHOSEN, REJECTED),
        settings.most,
        too_long,
    )


def asked_tokens(columns: TokenColumns, moments: np.ndarray, most: int, terminators: frozenset[int]) -> AskedTokens:
    """The scored tokens of examples, each of which ends with the model's own sample.

    Args:
        moments: of each scored token, see `tempered_moments`.
        most: tokens of an answer that are compared with samples.
    """
    counts, starts = columns.scored_tokens, columns.scored_starts
    answer_T = np.repeat(np.arange(columns.sequences), counts)
    place_T = np.arange(len(moments)) - starts[answer_T]
    ends_A = np.isin(columns.ids[columns.bounds[1:] - 1], sorted(terminators))
    return AskedTokens(
        moments_TKM=moments.reshape(len(moments), len(TEMPERATURES), MOMENTS).astype(np.float64),
        answer_T=answer_T,
        end_T=ends_A[answer_T] & (place_T == counts[answer_T] - 1),
        first_T=place_T < most,
        prompt_A=np.repeat(np.arange(len(columns)), np.diff(columns.members)),
        label_A=columns.labels,
        own_A=columns.labels == SAMPLE,
    )


def _sequence(prompt: Sequence[int], answer: Sequence[int]) -> TokenizedSequence:
    return TokenizedSequence(np.array([*prompt, *answer], dtype=np.int32), len(prompt))
