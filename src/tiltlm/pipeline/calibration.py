"""How long the stages of a run take, told from a little of each on the model as it is."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tiltlm.data.preparation import PreparedData
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.evaluation.drawing import Draw
from tiltlm.evaluation.generation import GenerationSettings, generate_answers
from tiltlm.model.loading import autocast
from tiltlm.model.scorer import Scorer
from tiltlm.pipeline.models import starting_model, to_be_trained
from tiltlm.pipeline.optimize import trainer_for
from tiltlm.pipeline.prepare import asked
from tiltlm.pipeline.referencing import ReferencedData
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, answers_for
from tiltlm.plan.batches import MicroBatch, Plan
from tiltlm.plan.packing import plan
from tiltlm.plan.row_layout import Layout
from tiltlm.storage.cache import writable_cache_folder
from tiltlm.training.held_out import HeldOut
from tiltlm.training.loop import Trainer
from tiltlm.training.losses import backward
from tiltlm.training.seen import SEEN_AT_MOST
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

SECONDS = 6.0
"""After so long no further micro-batch of a kind is run."""
_SAMPLE = 64
"""Examples that tell how many columns one takes."""
_NEW_TOKENS = (2, 10)
"""Lengths of the answers that tell what a prompt and what a token costs."""
_WRITTEN = 64 * 2**20
"""Bytes that are written to see how fast the disk is."""
_CHECKED = 9
"""Passes over one example that the start-up checks come to, about."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """What a stage takes, in seconds, and what of it that is made of, in words."""

    name: str
    seconds: float
    made_of: str


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of each kind of work.

    load: reading the model. exact, scored, trained: a column of a float32 pass, of one in the arithmetic of training,
    forward and backward. update: the optimizer's step. first: what the first step takes beyond that, in which memory is
    taken for the first time. byte: writing one. prompts, token: taking up the prompts of the comparison and drawing a
    token of each answer that the model as it is gives.
    """

    load: float
    exact: float
    scored: float
    trained: float
    update: float
    first: float
    byte: float
    prompts: float
    token: float


def stage_times(
    setup: Setup, data: PreparedData, plans: Sequence[Plan], reading: float, reporter: Reporter
) -> tuple[tuple[StageTime, ...], Pace]:
    """Seconds of each stage, and of each kind of work. The model is loaded, and its weights are changed in memory.

    plans: of some steps, whose columns tell those of all. reading: seconds that the data took, and choosing how many
        tokens a forward pass has.
    """
    pace, trainer = _pace(setup, data, reporter)
    examples, steps = len(data.train), trainer.steps
    layout = trainer.scorer.layout
    held_out, train = (_columns(setup, part, layout) for part in (data.eval, data.train))
    seen = train * min(SEEN_AT_MOST, examples)
    held, every = held_out * len(data.eval), train * examples
    training = float(np.mean([_size(batch) for one in plans for batch in one.micro_batches]))
    training *= float(np.mean([len(one.micro_batches) for one in plans])) * steps
    asks = setup.config.training.eval_every
    evaluations = 1 + (steps // asks if asks else 0)
    reference = pace.load + pace.exact * (held + seen)
    if setup.objective.needs.reference and not setup.objective.objective.live_reference:
        reference += pace.exact * every if setup.precision is torch.float32 else pace.scored * (every + held)
    if setup.objective.needs.credit:
        reference += pace.scored * (every + held)
    saved = sum(own.numel() * 4 for own in trainer.scorer.trained().values())
    rounded = 0.0 if setup.save_dtype is torch.float32 else pace.exact * held
    stages = [
        StageTime("data", reading, f"{examples:,} examples to train on, {len(data.eval):,} held out"),
        StageTime("reference", reference, "nothing of it is computed that the cache has"),
        StageTime(
            "training",
            pace.trained * training
            + pace.update * steps
            + pace.first
            + pace.scored * held * evaluations
            + pace.exact * _CHECKED * train
            + pace.byte * saved
            + rounded,
            f"{steps:,} steps, held-out examples {evaluations} times, writing the model",
        ),
        StageTime("evaluation", pace.load + pace.exact * (held + seen), "held-out examples once more, in float32"),
    ]
    if pace.token:
        stages.append(StageTime("comparison", *_comparison(setup, data, pace)))
    return tuple(stages), pace


def _comparison(setup: Setup, data: PreparedData, pace: Pace) -> tuple[float, str]:
    """Seconds of the answers by both models, none of which ends early, and of scoring the trained model's by the
    reference; and what that is, in words."""
    prompts, tokens, answers = asked(setup, data), setup.config.comparison.max_new_tokens, answers_for(setup)
    before, after = (answers.answers(prompts, trained) for trained in (False, True))
    drawn = (pace.prompts + pace.token * tokens) * (before + after) / before
    scored = pace.exact * (sum(len(prompt.ids) for prompt in prompts) + after * tokens)
    return pace.load + drawn + scored, f"{before + after} answers of up to {tokens} tokens by both models"


def _pace(setup: Setup, data: PreparedData, reporter: Reporter) -> tuple[Pace, Trainer]:
    kinds = 5
    with reporter.progress("looking how fast it goes", kinds, "kinds of work") as advance:
        start = time.perf_counter()
        policy = starting_model(setup)
        load = time.perf_counter() - start
        exact = _scoring(setup, policy, data.train, torch.float32)
        advance(1)
        scored = exact if setup.precision is torch.float32 else _scoring(setup, policy, data.train, setup.precision)
        advance(1)
        prompts, token = _answering(setup, policy, data)
        advance(1)
        trainer = _trainer(setup, to_be_trained(setup, policy), data)
        trained, update, first = _training(trainer)
        advance(1)
        byte = _writing()
        advance(1)
    return Pace(load, exact, scored, trained, update, first, byte, prompts, token), trainer


def _size(batch: MicroBatch) -> int:
    return batch.tokens_RL.numel()


def _sampled(setup: Setup, columns: TokenColumns, layout: Layout) -> Plan:
    """Some of the examples, as they are scored."""
    drawn = np.random.default_rng(0).permutation(len(columns))[:_SAMPLE]
    return plan(columns, drawn, setup.config.training.token_budget, layout)


def _columns(setup: Setup, columns: TokenColumns, layout: Layout) -> float:
    """Columns of an example where it is scored, about."""
    made = _sampled(setup, columns, layout)
    return sum(map(_size, made.micro_batches)) / made.examples


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def _scoring(setup: Setup, scorer: Scorer, columns: TokenColumns, precision: torch.dtype) -> float:
    """Seconds of a column of a pass without gradients."""
    batches = sorted(_sampled(setup, columns, scorer.layout).micro_batches, key=_size)
    start, done = time.perf_counter(), 0
    for number, batch in enumerate((batches[0], *batches)):
        if number == 1:  # the first one warms up
            start, done = time.perf_counter(), 0
        with autocast(scorer.device, precision):
            scorer(batch.to(scorer.device))
        _wait(scorer.device)
        done += _size(batch)
        if number and time.perf_counter() - start > SECONDS:
            break
    return (time.perf_counter() - start) / done


def _trainer(setup: Setup, policy: Scorer, data: PreparedData) -> Trainer:
    """A trainer to whom the reference's values are all the same, and to whom they need not be more; credit is none."""
    needs = setup.objective.needs

    def with_values(columns: TokenColumns) -> Referenced:
        made = np.full(int(columns.scored_starts[-1]), -1.0, dtype=np.float32)
        given = dataclasses.replace(columns, credit=np.zeros_like(made)) if needs.credit else columns
        return Referenced(given, made if needs.reference else None)

    train, held_out = with_values(data.train), with_values(data.eval)
    none = np.zeros(0, dtype=np.float32)
    nothing = HeldOut(data.eval, None, none)
    return trainer_for(setup, policy, ReferencedData(train, held_out, nothing, nothing))


def _training(trainer: Trainer) -> tuple[float, float, float]:
    """Seconds of a column, forward and backward, of the optimizer's step, and of the first step beyond those."""
    device, planned = trainer.scorer.device, trainer.plan_of(0)
    smallest = dataclasses.replace(planned, micro_batches=planned.micro_batches[-1:])
    stop = StopRequest()
    start = time.perf_counter()
    trainer.step(smallest, stop)
    cold = time.perf_counter() - start
    start, done = time.perf_counter(), 0
    for batch in reversed(planned.micro_batches):
        one = dataclasses.replace(planned, micro_batches=(batch,))
        backward(trainer.scorer, one, trainer.objective, trainer.precision, lambda losses: None)
        _wait(device)
        done += _size(batch)
        if time.perf_counter() - start > SECONDS:
            break
    column = (time.perf_counter() - start) / done
    start = time.perf_counter()
    trainer.step(smallest, stop)
    whole = time.perf_counter() - start
    return column, max(whole - column * _size(smallest.micro_batches[0]), 0.0), max(cold - whole, 0.0)


def _answering(setup: Setup, scorer: Scorer, data: PreparedData) -> tuple[float, float]:
    """Seconds for all prompts of the comparison, greedily and sampled, and for a further token of all answers."""
    prompts, config = asked(setup, data), setup.config.comparison
    if not prompts:
        return 0.0, 0.0
    took = []
    never: frozenset[int] = frozenset()
    draws = [Draw(1.0, None), *(Draw(config.temperature, number) for number in range(config.samples))]
    for count in (1, *_NEW_TOKENS):
        start = time.perf_counter()
        settings = GenerationSettings(count, 0)
        generate_answers(
            scorer.model,
            setup.tokenizer.tokenizer,
            [prompt.ids for prompt in prompts],
            [draws] * len(prompts),
            settings,
            never,
            torch.float32,
        )
        took.append(time.perf_counter() - start)
    _, short, long = took
    token = max(long - short, 0.0) / (_NEW_TOKENS[1] - _NEW_TOKENS[0])
    return max(short - _NEW_TOKENS[0] * token, 0.0), token


def _writing() -> float:
    """Seconds of a byte written to the disk of the cache."""
    with tempfile.TemporaryDirectory(dir=writable_cache_folder()) as place:
        start = time.perf_counter()
        save_file({"weights": torch.zeros(_WRITTEN // 4)}, Path(place) / "weights.safetensors")
        return (time.perf_counter() - start) / _WRITTEN
