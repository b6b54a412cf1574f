"""How surprised is the reference by the answers in preference pairs, compared with its own samples?

DPO moves probability between the answers it is given, so it matters where they come from (theory.pdf, Proposition 18
(surprise)). This script measures what log-probabilities tell of it, for any data that `tiltlm train` reads: it scores
the chosen and the rejected answer of each pair with the reference, and beside them one answer that the reference
samples itself. From the repository root:

    python benchmarks/pair_origins.py                                    # the demo's pairs, the embedded model
    python benchmarks/pair_origins.py --data pairs.jsonl --output benchmarks/results/pair-origins/mine.json

Surprise is -log pi_ref(y|x) / tokens, in nats per token; for the model's own samples at temperature 1 its expectation
is the entropy of the model's answers. Sampling stops at `--tokens`, so only the first `--tokens` tokens of every answer
are compared. All answers are scored at temperature 1. Intervals cover 95%; prompts are the unit, one pair of each.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
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
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score_sequences
from tiltlm.model.weights import load_model
from tiltlm.pipeline.setup import Setup, set_up
from tiltlm.runs.estimates import Estimate
from tiltlm.statistics import bootstrap_mean


@dataclass(frozen=True, slots=True)
class Arguments:
    """What to measure. The first five mean what they mean to `tiltlm train`."""

    data: str = DEMO
    """File or folder of preference pairs, or `demo`: the demo's training pairs (--data.train)."""
    format: Format = "auto"
    """How rows are laid out; `auto` recognises it (--data.format)."""
    model: str = "embedded"
    """The reference: hub id or folder, or `embedded`: SmolLM2-135M-Instruct (--model.path)."""
    max_length: int = 512
    """Longest sequence in tokens; longer prompts are cut from the left, longer answers' pairs dropped
    (--data.max_length)."""
    seed: int = 0
    """Decides which pairs are drawn and what is sampled (--run.seed)."""
    pairs: int = 64
    """How many pairs, each of another prompt."""
    tokens: int = 64
    """Longest sample in tokens, and how many tokens of each answer are compared."""
    temperature: float = 1.0
    """Temperature of the samples. Scores are always at temperature 1."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Where the figures go; each pair's values go to FILE.jsonl beside it. Unset: they are only printed."""


@dataclass(frozen=True, slots=True)
class Score:
    """One answer under the reference. Log-probabilities in nats, summed over tokens.

    tokens, logp: of the first `Arguments.tokens` tokens, the end-of-sequence token included.
    whole_tokens, whole_logp: of the whole answer; for a sample, the same.
    end_logp: of the end-of-sequence token alone; None where it is not among the first tokens.
    """

    tokens: int
    logp: float
    whole_tokens: int
    whole_logp: float
    end_logp: float | None

    @property
    def surprise(self) -> float:
        """Nats per token over the first tokens."""
        return -self.logp / self.tokens


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A pair's two answers and the reference's own to the same prompt."""

    id: str
    chosen: Score
    rejected: Score
    own: Score


@dataclass(frozen=True, slots=True)
class SideFigures:
    """Answers of one kind. Over their first tokens unless `whole` says otherwise.

    total_tokens: in all answers.
    ended: answers whose end-of-sequence token is among the first tokens.
    tokens: per answer.
    logp: log pi_ref per answer, nats.
    surprise: nats per token, the mean over answers of each answer's own mean.
    surprise_by_token: nats per token, all tokens weighing the same.
    surprise_of_end: nats, of the end-of-sequence token, over the answers that ended.
    whole_tokens, whole_surprise: of whole answers.
    """

    total_tokens: int
    ended: int
    tokens: Estimate
    logp: Estimate
    surprise: Estimate
    surprise_by_token: Estimate
    surprise_of_end: Estimate | None
    whole_tokens: Estimate
    whole_surprise: Estimate


@dataclass(frozen=True, slots=True)
class Record:
    """What is written: settings, what the data was, figures. Differences are of `surprise`, paired by prompt.

    gap: of the pair's two answers, averaged, less the reference's own. A label selects between the two, so neither
    alone needs to look like the reference's own even where both are; together they do.
    """

    arguments: dict[str, str | int | float]
    format: str
    pairs_read: int
    prompts_read: int
    pairs_dropped_by_length: int
    pairs_scored: int
    prompt_tokens: Estimate
    prompts_cut: int
    chosen: SideFigures
    rejected: SideFigures
    own: SideFigures
    gap: Estimate
    chosen_minus_own: Estimate
    rejected_minus_own: Estimate
    rejected_minus_chosen: Estimate
    whole_rejected_minus_chosen: Estimate
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
    pairs = [pair for pair in tokenized.examples if pair.id in drawn]

    scorer = Scorer(load_model(setup.source, setup.device))
    scored = score_pairs(setup, scorer, pairs, arguments, reporter)
    chosen, rejected, own = ([getattr(item, side) for item in scored] for side in ("chosen", "rejected", "own"))
    record = Record(
        arguments={name: value for name, value in dataclasses.asdict(arguments).items() if name != "output"},
        format=loaded.source.format,
        pairs_read=len(loaded.examples),
        prompts_read=len(one_per_prompt),
        pairs_dropped_by_length=len(tokenized.dropped),
        pairs_scored=len(scored),
        prompt_tokens=bootstrap_mean([pair.chosen.first_scored for pair in pairs]),
        prompts_cut=sum(pair.prompt_tokens_cut > 0 for pair in pairs),
        chosen=side_figures(chosen),
        rejected=side_figures(rejected),
        own=side_figures(own),
        gap=bootstrap_mean(
            [(a.surprise + b.surprise) / 2 - c.surprise for a, b, c in zip(chosen, rejected, own, strict=True)]
        ),
        chosen_minus_own=bootstrap_mean([a.surprise - b.surprise for a, b in zip(chosen, own, strict=True)]),
        rejected_minus_own=bootstrap_mean([a.surprise - b.surprise for a, b in zip(rejected, own, strict=True)]),
        rejected_minus_chosen=bootstrap_mean([a.surprise - b.surprise for a, b in zip(rejected, chosen, strict=True)]),
        whole_rejected_minus_chosen=bootstrap_mean(
            [_whole_surprise(a) - _whole_surprise(b) for a, b in zip(rejected, chosen, strict=True)]
        ),
        circumstances=around,
    )
    print(table(record))
    if arguments.output is not None:
        write_record(record, arguments.output)
        rows = (json.dumps(dataclasses.asdict(item), ensure_ascii=False) for item in scored)
        arguments.output.with_suffix(".jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _config(arguments: Arguments) -> Config:
    return validate(
        Config(
            run=RunConfig(seed=arguments.seed),
            model=ModelConfig(path=arguments.model, precision="float32"),
            data=DataConfig(train=arguments.data, format=arguments.format, max_length=arguments.max_length),
        )
    )


def score_pairs(
    setup: Setup, scorer: Scorer, pairs: Sequence[TokenizedExample], arguments: Arguments, reporter: ConsoleReporter
) -> list[ScoredPair]:
    """Samples one answer to each pair's prompt and scores all three."""
    prompts = [pair.chosen.ids[: pair.chosen.first_scored].tolist() for pair in pairs]
    settings, draws = (
        GenerationSettings(arguments.tokens, arguments.seed),
        [samples(1, arguments.temperature)] * len(pairs),
    )
    terminators = frozenset(setup.tokenizer.terminators)
    with reporter.progress("sampling", len(pairs), "prompts") as advance:
        answers = generate_answers(
            scorer.model, setup.tokenizer.tokenizer, prompts, draws, settings, terminators, setup.precision, advance
        )
    scored = []
    with reporter.progress("scoring", len(pairs), "pairs") as advance:
        for pair, prompt, (answer,) in zip(pairs, prompts, answers, strict=True):
            own = TokenizedSequence(np.array([*prompt, *answer.ids], dtype=np.int32), len(prompt))
            sequences = (pair.chosen, pair.rejected, own)
            logps = score_sequences(scorer, sequences, setup.precision, setup.config.training.token_budget)
            scores = [
                _score(sequence, values.tolist(), arguments.tokens, terminators)
                for sequence, values in zip(sequences, logps, strict=True)
            ]
            scored.append(ScoredPair(pair.id, *scores))
            advance(1)
    return scored


def _score(sequence: TokenizedSequence, logps: Sequence[float], limit: int, terminators: frozenset[int]) -> Score:
    first = logps[:limit]
    ended = len(logps) <= limit and int(sequence.ids[-1]) in terminators
    return Score(len(first), sum(first), len(logps), sum(logps), first[-1] if ended else None)


def _whole_surprise(score: Score) -> float:
    return -score.whole_logp / score.whole_tokens


def side_figures(scores: Sequence[Score]) -> SideFigures:
    """Means over answers of one kind."""
    ends = [-score.end_logp for score in scores if score.end_logp is not None]
    return SideFigures(
        total_tokens=sum(score.tokens for score in scores),
        ended=len(ends),
        tokens=bootstrap_mean([score.tokens for score in scores]),
        logp=bootstrap_mean([score.logp for score in scores]),
        surprise=bootstrap_mean([score.surprise for score in scores]),
        surprise_by_token=_ratio([-score.logp for score in scores], [score.tokens for score in scores]),
        surprise_of_end=bootstrap_mean(ends) if ends else None,
        whole_tokens=bootstrap_mean([score.whole_tokens for score in scores]),
        whole_surprise=bootstrap_mean([_whole_surprise(score) for score in scores]),
    )


def _ratio(numerators: Sequence[float], denominators: Sequence[int]) -> Estimate:
    """Ratio of two sums with the interval of its linear approximation.

    Source: W. G. Cochran, Sampling Techniques (3rd ed., 1977), chapter 6: the ratio R varies as the mean of
    (a - R b) / mean(b) does, and those values add up to nought.
    """
    ratio, mean = sum(numerators) / sum(denominators), sum(denominators) / len(denominators)
    return bootstrap_mean([ratio + (a - ratio * b) / mean for a, b in zip(numerators, denominators, strict=True)])


def table(record: Record) -> str:
    """The figures in words and columns."""
    limit = record.arguments["tokens"]
    sides = {"chosen": record.chosen, "rejected": record.rejected, "own": record.own}
    rows: list[tuple[str, list[Estimate | None], int]] = [
        (f"tokens compared (at most {limit})", [side.tokens for side in sides.values()], 1),
        ("log pi_ref, nats per answer", [side.logp for side in sides.values()], 1),
        ("surprise, nats per token", [side.surprise for side in sides.values()], 3),
        ("  each token weighing the same", [side.surprise_by_token for side in sides.values()], 3),
        ("  of the end-of-sequence token", [side.surprise_of_end for side in sides.values()], 3),
        ("whole answers: tokens", [side.whole_tokens for side in sides.values()], 1),
        ("  surprise, nats per token", [side.whole_surprise for side in sides.values()], 3),
    ]
    differences = {
        "gap: both answers - own": record.gap,
        "chosen - own": record.chosen_minus_own,
        "rejected - own": record.rejected_minus_own,
        "rejected - chosen": record.rejected_minus_chosen,
        "rejected - chosen, whole answers": record.whole_rejected_minus_chosen,
    }
    lines = [
        f"{record.arguments['data']} (read as {record.format}): {record.pairs_scored} pairs of {record.pairs_read}, "
        f"each of another prompt; prompts {_show(record.prompt_tokens, 0)} tokens, {record.prompts_cut} cut; "
        f"{record.pairs_dropped_by_length} of {record.prompts_read} could not be used",
        f"{'':34}" + "".join(f"{name:>26}" for name in sides),
        *(f"{name:34}" + "".join(f"{_show(value, places):>26}" for value in row) for name, row, places in rows),
        f"{'tokens in all':34}" + "".join(f"{side.total_tokens:>26,}" for side in sides.values()),
        f"{'answers that end within them':34}" + "".join(f"{side.ended:>26}" for side in sides.values()),
        "differences of surprise, paired by prompt, nats per token",
        *(f"  {name:32}{_show(value, 3, sign='+'):>26}" for name, value in differences.items()),
    ]
    return "\n".join(lines)


def _show(estimate: Estimate | None, places: int, sign: str = "") -> str:
    if estimate is None:
        return "-"
    if estimate.interval is None:
        return f"{estimate.mean:{sign}.{places}f}"
    low, high = estimate.interval
    return f"{estimate.mean:{sign}.{places}f} [{low:{sign}.{places}f}, {high:{sign}.{places}f}]"


if __name__ == "__main__":
    main()
