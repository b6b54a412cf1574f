"""Who wrote the answers in preference pairs: the model itself, at which temperature, or others?

Every run asks it of its own pairs (docs/questions.md, "Did others than the model write the answers it learns from?").
This script asks the same, by the same functions, of any data that `tiltlm train` reads, without training; and of
answers that the model gives itself, to show what the figures come to where the origin is known. From the root:

    python benchmarks/pair_origins.py                                    # the demo's pairs, the embedded model
    python benchmarks/pair_origins.py --data pairs.jsonl --output benchmarks/results/pair-origins/mine.json
    python benchmarks/pair_origins.py --answers-at 0.5                   # its own answers in the place of the demo's

The records of theory.pdf, tab. `origins`, hold further figures, and each answer's values in FILE.jsonl beside them; the
fields that the theory reads are those written here, for the same pairs and samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from machine import Circumstances, circumstances, write_record
from tiltlm import demo
from tiltlm.cli.console import ConsoleReporter
from tiltlm.config import Config, DataConfig, Format, HubConfig, ModelConfig, RunConfig
from tiltlm.config.validation import validate
from tiltlm.data.conversion import load_examples
from tiltlm.data.preparation import DEMO
from tiltlm.data.splitting import example_key, subsample
from tiltlm.data.tokens.token_columns import TokenizedExample, TokenizedSequence
from tiltlm.evaluation.generation import GenerationSettings, generate_answers, samples
from tiltlm.evaluation.pair_surprise import pair_origins
from tiltlm.model.scorer import Scorer
from tiltlm.model.weights import load_model
from tiltlm.pipeline.setup import Setup, set_up
from tiltlm.report.questions.authorship import Author, author
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.pair_origins import PairOrigins

OTHER_DRAWS = 1
"""Added to the seed for answers in the place of the data's, so that they are not the samples they are compared with."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What to measure. The first five mean what they mean to `tiltlm train`."""

    data: str = DEMO
    """File or folder of preference pairs, or `demo`: the demo's training pairs (--data.train)."""
    format: Format = "auto"
    """How rows are laid out; `auto` recognises it (--data.format)."""
    model: str = "embedded"
    """The model: hub id or folder, or `embedded`: SmolLM2-135M-Instruct (--model.path)."""
    max_length: int = 512
    """Longest sequence in tokens; longer prompts are cut from the left, longer answers' pairs dropped
    (--data.max_length)."""
    seed: int = 0
    """Decides which pairs are drawn and what is sampled (--run.seed)."""
    pairs: int = 64
    """How many pairs, each of another prompt."""
    tokens: int = 64
    """Longest sample in tokens, and how many tokens of each answer are compared with it."""
    temperature: float = 1.0
    """Temperature of the samples. Scores are always at temperature 1."""
    answers_at: float | None = None
    """Puts two answers of the model, drawn at this temperature, in the place of each pair's."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Where the figures go. Unset: they are only printed."""


@dataclass(frozen=True, slots=True)
class Side:
    """Nats per token over the first tokens, the mean over answers of each answer's own mean."""

    surprise: Estimate | None


@dataclass(frozen=True, slots=True)
class Record:
    """What is written: settings, what the data was, figures. told: all of a run's; author: what a run says of them."""

    arguments: dict[str, str | int | float | None]
    format: str
    pairs_read: int
    prompts_read: int
    pairs_dropped_by_length: int
    pairs_scored: int
    chosen: Side
    rejected: Side
    own: Side
    gap: Estimate
    author: Author
    told: PairOrigins
    circumstances: Circumstances


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    reporter = ConsoleReporter()
    around = circumstances("float32")
    setup = set_up(_config(arguments))
    loaded = load_examples(
        demo.TRAIN if arguments.data == DEMO else arguments.data, setup.config.data, HubConfig(), "train"
    )
    one_per_prompt = list({example_key(pair): pair for pair in reversed(loaded.examples)}.values())
    tokenized = setup.tokenizer(one_per_prompt)
    fitting = {pair.id for pair in tokenized.examples}
    # Drawn after tokenization, so that pairs that are too long do not make the sample smaller.
    usable = [pair for pair in one_per_prompt if pair.id in fitting]
    drawn = {usable[number].id for number in subsample(usable, arguments.pairs, arguments.seed)}
    pairs: Sequence[TokenizedExample] = [pair for pair in tokenized.examples if pair.id in drawn]

    scorer = Scorer(load_model(setup.source, setup.device))
    if arguments.answers_at is not None:
        pairs = own_pairs(setup, scorer, pairs, arguments)
    with reporter.progress("who wrote the pairs", 2 * len(pairs), "pairs") as advance:
        told = pair_origins(
            scorer,
            setup.tokenizer.tokenizer,
            pairs,
            GenerationSettings(arguments.tokens, arguments.seed),
            frozenset(setup.tokenizer.terminators),
            setup.config.training.token_budget,
            advance=advance,
            temperature=arguments.temperature,
        )
    if told is None:
        raise SystemExit("none of the pairs could be used")
    record = Record(
        arguments={name: value for name, value in dataclasses.asdict(arguments).items() if name != "output"},
        format=loaded.source.format,
        pairs_read=len(loaded.examples),
        prompts_read=len(one_per_prompt),
        pairs_dropped_by_length=len(tokenized.dropped),
        pairs_scored=len(pairs),
        chosen=Side(told.chosen),
        rejected=Side(told.rejected),
        own=Side(told.own),
        gap=told.gap,
        author=author(told),
        told=told,
        circumstances=around,
    )
    print(table(record))
    if arguments.output is not None:
        write_record(record, arguments.output)


def _config(arguments: Arguments) -> Config:
    return validate(
        Config(
            run=RunConfig(seed=arguments.seed),
            model=ModelConfig(path=arguments.model, precision="float32"),
            data=DataConfig(train=arguments.data, format=arguments.format, max_length=arguments.max_length),
        )
    )


def own_pairs(
    setup: Setup, scorer: Scorer, pairs: Sequence[TokenizedExample], arguments: Arguments
) -> list[TokenizedExample]:
    """Pairs with the same prompts and two answers of the model each, in the order in which they were drawn."""
    assert arguments.answers_at is not None
    prompts = [pair.chosen.ids[: pair.chosen.first_scored] for pair in pairs]
    answers = generate_answers(
        scorer.model,
        setup.tokenizer.tokenizer,
        [prompt.tolist() for prompt in prompts],
        [samples(2, arguments.answers_at)] * len(pairs),
        GenerationSettings(arguments.tokens, arguments.seed + OTHER_DRAWS),
        frozenset(setup.tokenizer.terminators),
        torch.float32,
    )
    made = []
    for pair, prompt, some in zip(pairs, prompts, answers, strict=True):
        chosen, rejected = (
            TokenizedSequence(np.concatenate([prompt, np.array(own.ids, dtype=np.int32)]), len(prompt)) for own in some
        )
        made.append(TokenizedExample.pair(pair.id, chosen, rejected))
    return made


def table(record: Record) -> str:
    """The figures in lines."""
    told = record.told
    rows = {
        "surprise of chosen answers, nats a token": told.chosen,
        "  of rejected answers": told.rejected,
        "  of the model's own samples": told.own,
        "gap: both answers - own": told.gap,
        "likeliest temperature": told.temperature,
        "scatter of tokens, as a multiple": told.token_scatter,
        "  of answers": told.answer_scatter,
        "share that the model could have said": told.sayable,
        "  of its own": told.own_sayable,
        "effective share of WPO's weights": told.aligned,
    }
    return "\n".join(
        [
            f"{record.arguments['data']} (read as {record.format}): {record.pairs_scored} pairs of {record.pairs_read},"
            f" each of another prompt; {record.pairs_dropped_by_length} of {record.prompts_read} could not be used",
            *(f"{name:44}{_show(estimate):>28}" for name, estimate in rows.items()),
            f"author: {record.author}",
        ]
    )


def _show(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    low, high = estimate.interval or (estimate.mean, estimate.mean)
    return f"{estimate.mean:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
