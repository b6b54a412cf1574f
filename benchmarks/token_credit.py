"""What credit by token is good for: how a step by it carries over to answers not seen, beside one by whole scores.

    tiltlm sample embedded --prompts demo --output answers.jsonl --temperature 0.8 --max-new-tokens 32
    tiltlm judge answers.jsonl --judge vader --output judged.jsonl
    python benchmarks/token_credit.py judged.jsonl --temperature 0.8 --output benchmarks/results/token-credit/demo.json

A policy whose log-ratio is f gains rho * sigma * sqrt(2 KL) to first order, rho being the correlation of f with the
reward among a prompt's answers (docs/frontier.md). Here one vector is added to what the output layer reads, in every
state: f is then the sum over tokens of the vector times (the token's row of the output layer less the rows' mean under
the model). The vector is the gradient of reward on every other prompt, of whole scores (each prompt's mean taken off)
or of credit (`tiltlm.training.credit`), plain or multiplied by the inverse of these differences' second moments, which
is the natural gradient; rho is measured on the prompts between, and the other way round. Nothing is trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from transformers import AutoModelForCausalLM, AutoTokenizer

from machine import Circumstances, circumstances, write_record
from tiltlm.config import HubConfig
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.model.finding import find_model
from tiltlm.model.head import LogitTransform
from tiltlm.model.scorer import Scorer
from tiltlm.model.states import depths, hidden_states
from tiltlm.objectives.interface import CHOSEN
from tiltlm.plan.packing import plan
from tiltlm.training.credit import credit, features_of_states, values_of_states

TOKENS = 4096
"""In one forward pass."""
DAMPING = 0.1
"""Of the second moments, in units of their mean diagonal."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What to measure."""

    judged: Annotated[Path, tyro.conf.Positional]
    """Answers of the model with rewards, as `tiltlm judge` leaves them."""
    model: str = "embedded"
    """The model that gave them (--model.path)."""
    temperature: float = 1.0
    """At which they were drawn."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Where the figures go. Unset: they are only printed."""


@dataclass(frozen=True, slots=True)
class Record:
    """rho of each step. explained: share of the variance of scores that values foretell, mean of both halves."""

    answers: int
    prompts: int
    explained: float
    rho: Mapping[str, float]
    circumstances: Circumstances


def read(path: Path, location: str) -> TokenColumns:
    """All judged answers, as scored lists."""
    tokenizer = AutoTokenizer.from_pretrained(location)
    examples = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        chat = [{"role": one["role"], "content": one["content"]} for one in row["prompt"]]
        prompt = list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))
        judged = [one for one in row["answers"] if one.get("reward") is not None and one["ids"]]
        sequences = tuple(
            TokenizedSequence(np.array(prompt + one["ids"], dtype=np.int32), len(prompt)) for one in judged
        )
        if len(judged) < 2:
            raise SystemExit(f"{path}: {row['id']} has {len(judged)} judged answers; it takes two or more.")
        scores = tuple(float(one["reward"]) for one in judged)
        examples.append(TokenizedExample(row["id"], sequences, (CHOSEN,) * len(judged), scores=scores))
    return TokenColumns.of(examples)


def slopes(scorer: Scorer, columns: TokenColumns, temperature: float) -> np.ndarray:
    """The derivative of each scored token's log-probability by a vector that its hidden state has added. (S, D)."""
    rows = scorer.head.weight.detach().float()
    found = np.empty((int(columns.scored_starts[-1]), rows.shape[1]), dtype=np.float32)
    for batch in plan(columns, range(len(columns)), TOKENS, scorer.layout).micro_batches:
        with torch.inference_mode():
            hidden_SD = scorer.hidden_states(batch)
            said_SV = (hidden_SD @ rows.T / temperature).softmax(-1)
            found[batch.places] = (rows[batch.score_token_S] - said_SV @ rows).numpy()
    return found


def answers_sums(values_S: np.ndarray, columns: TokenColumns) -> np.ndarray:
    """Values of tokens, summed by answer."""
    sums: np.ndarray = np.add.reduceat(values_S, columns.scored_starts[:-1])
    return sums


def centred(values_N: np.ndarray, columns: TokenColumns) -> np.ndarray:
    """Values of answers less the mean of their prompt's."""
    counts = np.diff(columns.members)
    means = np.add.reduceat(values_N.astype(np.float64), columns.members[:-1]) / counts
    found: np.ndarray = values_N - np.repeat(means, counts)
    return found


def part(columns: TokenColumns, fold: int) -> tuple[np.ndarray, TokenColumns]:
    """Every other example, as the places of its scored tokens and as columns."""
    numbers = np.arange(fold, len(columns), 2)
    states = [
        np.arange(columns.scored_starts[columns.members[one]], columns.scored_starts[columns.members[one + 1]])
        for one in numbers
    ]
    return np.concatenate(states), columns.take(numbers)


def main(arguments: Arguments) -> None:
    """Measures, prints and writes."""
    found = circumstances("float32")
    source = find_model(arguments.model, HubConfig())
    columns = read(arguments.judged, source.location)
    model = AutoModelForCausalLM.from_pretrained(source.location, dtype=torch.float32).eval().requires_grad_(False)
    if LogitTransform.of(model) != LogitTransform():
        raise SystemExit(f"{arguments.model} transforms its logits, which is not made here.")
    scorer = Scorer(model)
    middle, later = hidden_states(scorer, columns, depths(scorer), torch.float32, TOKENS)
    features = features_of_states(middle, later, columns)
    slope_SD = slopes(scorer, columns, arguments.temperature)
    ratios: dict[str, list[np.ndarray]] = {}
    rewards, explained = [], []
    for fold in (0, 1):
        seen_S, seen = part(columns, fold)
        other_S, other = part(columns, 1 - fold)
        values, regression = values_of_states(features[seen_S], seen)
        explained.append(regression.explained)
        whole = np.repeat(centred(seen.scores, seen), seen.scored_tokens)
        own = slope_SD[seen_S].astype(np.float64)
        moments = own.T @ own / len(own)
        moments += DAMPING * np.trace(moments) / len(moments) * np.eye(len(moments))
        for name, weights in (("whole scores", whole), ("credit by token", credit(values, seen))):
            step = weights @ own
            for kind, taken in (("", step), (", natural gradient", np.linalg.solve(moments, step))):
                f = centred(answers_sums(slope_SD[other_S] @ taken, other), other)
                ratios.setdefault(name + kind, []).append(f / np.linalg.norm(f))
        rewards.append(centred(other.scores, other))
    reward = np.concatenate(rewards)
    rho = {
        name: float((f := np.concatenate(own)) @ reward / np.linalg.norm(f) / np.linalg.norm(reward))
        for name, own in ratios.items()
    }
    record = Record(columns.sequences, len(columns), float(np.mean(explained)), rho, found)
    print(f"{record.answers} answers to {record.prompts} prompts; values foretell {record.explained:.3f}")
    for name, value in rho.items():
        print(f"{name:40} {value:.3f}")
    if arguments.output is not None:
        write_record(record, arguments.output)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
