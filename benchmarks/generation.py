"""Greedy and sampled answers to the same prompts: tiltlm's own decoding against transformers' `generate`, in turn.

    python benchmarks/generation.py --output benchmarks/results/generation/demo.json

The embedded model answers prompts of the demo's held-out pairs in float32; no answer ends early, so that both make the
same number of tokens. transformers is given the whole batch, padded on the left: once greedy, once sampled.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from machine import Circumstances, circumstances, write_record
from tiltlm.config import Config
from tiltlm.data.examples import Message
from tiltlm.demo import EVAL
from tiltlm.evaluation.generation import GenerationSettings, generate_answers, greedy, samples
from tiltlm.pipeline.models import starting_model
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.reporter import LogReporter
from tiltlm.pipeline.setup import set_up


@dataclass(frozen=True, slots=True)
class Arguments:
    """How much is answered, and how often.

    samples: of each prompt, besides the greedy answer. output: where the record is written.
    """

    prompts: int = 32
    samples: int = 2
    tokens: int = 32
    temperature: float = 0.8
    rounds: int = 3
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None


@dataclass(frozen=True, slots=True)
class Record:
    """Seconds of each round, first ours, then transformers'; tokens: made in each."""

    circumstances: Circumstances
    arguments: dict[str, int | float]
    prompt_tokens: int
    tokens: int
    ours: list[float]
    transformers: list[float]
    tokens_per_second: tuple[float, float]
    ratio: float


@torch.inference_mode()
def by_transformers(model: PreTrainedModel, prompts: list[list[int]], arguments: Arguments) -> int:
    """Greedy answers, then sampled ones. How many tokens they have."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    made = 0
    for hot, count in ((False, 1), (True, arguments.samples)):
        sampling = {"temperature": arguments.temperature, "top_k": 0, "top_p": 1.0} if hot else {}
        config = GenerationConfig(
            **sampling, do_sample=hot, max_new_tokens=arguments.tokens, num_return_sequences=count, pad_token_id=0
        )
        own, model.generation_config = model.generation_config, GenerationConfig()
        output = type(model).generate(  # type: ignore[attr-defined]
            model, input_ids=ids, attention_mask=mask, generation_config=config
        )
        model.generation_config = own
        made += output[:, longest:].numel()
    return made


def by_tiltlm(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[list[int]], arguments: Arguments
) -> int:
    """The same by tiltlm."""
    draws = [greedy() + samples(arguments.samples, arguments.temperature)] * len(prompts)
    settings = GenerationSettings(arguments.tokens, seed=0)
    answers = generate_answers(model, tokenizer, prompts, draws, settings, frozenset(), torch.float32)
    return sum(len(answer.ids) for own in answers for answer in own)


def main(arguments: Arguments) -> None:
    """Measures and writes."""
    around, config = circumstances("float32"), Config()
    prepare_model(config, LogReporter())
    setup = set_up(config)
    model, tokenizer = starting_model(setup).model, setup.tokenizer.tokenizer
    rows = [json.loads(line) for line in EVAL.read_text(encoding="utf-8").splitlines()][: arguments.prompts]
    asked = [tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"]) for row in rows]
    prompts = [list(setup.tokenizer.ask(messages, None, None)[1]) for messages in asked]
    ours, theirs, made = [], [], 0
    for number in range(arguments.rounds + 1):  # the first warms up
        start = time.perf_counter()
        made = by_tiltlm(model, tokenizer, prompts, arguments)
        middle = time.perf_counter()
        if by_transformers(model, prompts, arguments) != made:
            raise RuntimeError("both should make the same number of tokens")
        if number:
            ours.append(middle - start)
            theirs.append(time.perf_counter() - middle)
            print(f"round {number}: tiltlm {ours[-1]:.2f} s, transformers {theirs[-1]:.2f} s", flush=True)
    own, other = (sorted(seconds)[len(seconds) // 2] for seconds in (ours, theirs))
    print(f"{made} tokens: {made / own:.0f} a second against {made / other:.0f}, {other / own:.2f} times")
    names = ("prompts", "samples", "tokens", "temperature", "rounds")
    record = Record(
        circumstances=around,
        arguments={name: getattr(arguments, name) for name in names},
        prompt_tokens=sum(map(len, prompts)),
        tokens=made,
        ours=ours,
        transformers=theirs,
        tokens_per_second=(made / own, made / other),
        ratio=other / own,
    )
    if arguments.output is not None:
        write_record(record, arguments.output)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
