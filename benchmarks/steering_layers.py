"""What a vector in each layer is good for: how a step along the gradient of reward carries over to answers not seen.

    tiltlm sample embedded --prompts demo --output answers.jsonl --max-new-tokens 32
    tiltlm judge answers.jsonl --judge vader --output judged.jsonl
    python benchmarks/steering_layers.py judged.jsonl --output benchmarks/results/steering-layers/demo.json

A policy whose log-ratio is f gains rho * sigma * sqrt(2 KL) to first order, rho being the correlation of f with the
reward among a prompt's answers (docs/frontier.md). Here f is the derivative of log pi(y|x) along one step: of the
vector that is added to what layer l gives, of the vectors of a half of the layers, or of all weights. The step is the
gradient of mean reward on the answers to every other prompt, each prompt's mean taken off, and rho is measured on the
answers to the prompts between, and the other way round. Nothing is trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from machine import Circumstances, circumstances, write_record
from tiltlm.config import HubConfig
from tiltlm.model.finding import find_model
from tiltlm.model.head import LogitTransform
from tiltlm.model.loading import autocast, layers_of

STEP = 1e-4
"""Length of the step along the gradient of all weights, beside their own length: along it f is a difference."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What to measure."""

    judged: Annotated[Path, tyro.conf.Positional]
    """Answers of the model with rewards, as `tiltlm judge` leaves them."""
    model: str = "embedded"
    """The model that gave them (--model.path)."""
    temperature: float = 1.0
    """At which they were drawn."""
    prompts: int = 64
    """How many of its prompts, the first ones."""
    together: int = 32
    """Answers in one forward pass."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Where the figures go. Unset: they are only printed."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's vector. rho: on answers not seen; near 0 where the step says nothing of them."""

    layer: int
    rho: float


@dataclass(frozen=True, slots=True)
class Record:
    """The figures. answers: of all prompts. lower, upper: of the vectors of half of the layers together."""

    answers: int
    prompts: int
    layers: tuple[Layer, ...]
    lower: float
    upper: float
    all_weights: float
    circumstances: Circumstances


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's tokens after its prompt's, and its reward less the mean of its prompt's answers."""

    prompt: list[int]
    ids: list[int]
    fold: int
    reward: float


def read(path: Path, prompts: int, tokenizer: Any) -> list[Answer]:
    """All answers to the first prompts that have a reward, by prompt."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[:prompts]):
        row = json.loads(line)
        chat = [{"role": one["role"], "content": one["content"]} for one in row["prompt"]]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        judged = [one for one in row["answers"] if one.get("reward") is not None]
        mean = float(np.mean([one["reward"] for one in judged]))
        found += [Answer(list(prompt), one["ids"], number % 2, one["reward"] - mean) for one in judged]
    return found


class Measuring:
    """A model without a transform of its logits, and its answers."""

    def __init__(self, model: PreTrainedModel, answers: Sequence[Answer], arguments: Arguments) -> None:
        self.model, self.answers, self.arguments = model, answers, arguments
        self.layers = layers_of(model)
        self._vectors: list[Tensor] = []

    def batches(
        self, numbers: Sequence[int], precision: torch.dtype = torch.bfloat16
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Answers by number, and log pi(y|x) of each, as functions of whatever wants a gradient."""
        ordered = sorted(numbers, key=lambda one: len(self.answers[one].prompt) + len(self.answers[one].ids))
        for start in range(0, len(ordered), self.arguments.together):
            own = ordered[start : start + self.arguments.together]
            rows = [torch.tensor(self.answers[one].prompt + self.answers[one].ids) for one in own]
            ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            said_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
            for row, one in enumerate(own):
                first = len(self.answers[one].prompt)
                said_BT[row, first : first + len(self.answers[one].ids)] = True
            self._vectors = [torch.zeros(len(own), 1, self.model.config.hidden_size) for _ in self.layers]
            said_BT = said_BT[:, 1:]
            with autocast(self.model.device, precision):
                hidden_BTD = self.model.base_model(input_ids=ids_BT).last_hidden_state[:, :-1]
                logits_SV = self.model.get_output_embeddings()(hidden_BTD[said_BT])
            logps_SV = (logits_SV.float() / self.arguments.temperature).log_softmax(-1)
            logps_S = logps_SV.gather(-1, ids_BT[:, 1:][said_BT][:, None]).squeeze(-1)
            yield own, torch.zeros(len(own)).index_add(0, said_BT.nonzero()[:, 0], logps_S)

    def by_vectors(self) -> np.ndarray:
        """The gradient of each answer's log pi(y|x) by a vector in each layer. Shape (answers, layers, width)."""
        found = np.empty((len(self.answers), len(self.layers), self.model.config.hidden_size), dtype=np.float32)

        def adding(number: int) -> Any:
            return lambda module, given, output: output + self._vectors[number].requires_grad_()

        handles = [layer.register_forward_hook(adding(number)) for number, layer in enumerate(self.layers)]
        for own, logps in self.batches(range(len(self.answers))):
            gradients = torch.autograd.grad(logps.sum(), self._vectors)
            found[own] = torch.cat(gradients, dim=1).numpy()
        for handle in handles:
            handle.remove()
        return found

    def by_all_weights(self) -> np.ndarray:
        """What a step along the gradient of all weights on the other prompts does to each answer's log pi(y|x)."""
        found = np.empty(len(self.answers))
        folds = [[n for n, one in enumerate(self.answers) if one.fold == fold] for fold in (0, 1)]
        for seen, unseen in (folds, folds[::-1]):
            self.model.requires_grad_(True).zero_grad()
            for own, logps in self.batches(seen):
                (logps * torch.tensor([self.answers[one].reward for one in own])).sum().backward()
            self.model.requires_grad_(False)
            weights = list(self.model.parameters())
            length, slope = (
                float(sum(one.square().sum() for one in of)) ** 0.5
                for of in (weights, [w.grad for w in weights if w.grad is not None])
            )
            steps = [STEP * length / slope * one.grad if one.grad is not None else 0 * one for one in weights]
            for sign in (1, -1):
                for one, step in zip(weights, steps, strict=True):
                    one.add_(step, alpha=sign)
                # So small a step would be lost where weights are rounded.
                for own, logps in self.batches(unseen, torch.float32):
                    found[own] = logps.numpy() if sign == 1 else found[own] - logps.numpy()
        return found


def rho(answers: Sequence[Answer], f: np.ndarray) -> float:
    """Correlation with the reward among a prompt's answers, pooled over prompts."""
    rewards = np.array([one.reward for one in answers])
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for number, one in enumerate(answers):
        by_prompt.setdefault(tuple(one.prompt), []).append(number)
    centred = f.astype(np.float64)
    for own in by_prompt.values():
        centred[own] -= centred[own].mean()
    return float((centred * rewards).sum() / np.sqrt((centred**2).sum() * (rewards**2).sum()))


def along(answers: Sequence[Answer], gradients: np.ndarray) -> np.ndarray:
    """f of each answer, along the gradient of reward on the prompts of the other fold."""
    flat = gradients.reshape(len(answers), -1)
    fold = np.array([one.fold for one in answers])
    rewards = np.array([one.reward for one in answers], dtype=np.float32)
    steps = [rewards[fold == other] @ flat[fold == other] for other in (1, 0)]
    found: np.ndarray = np.where(fold == 0, flat @ steps[0], flat @ steps[1])
    return found


def main(arguments: Arguments) -> None:
    """Measures, prints and writes."""
    found = circumstances("gradients in bfloat16, differences in float32")
    source = find_model(arguments.model, HubConfig())
    tokenizer = AutoTokenizer.from_pretrained(source.location)
    model = AutoModelForCausalLM.from_pretrained(source.location, dtype=torch.float32).eval().requires_grad_(False)
    if LogitTransform.of(model) != LogitTransform():
        raise SystemExit(f"{arguments.model} transforms its logits, which is not made here.")
    answers = read(arguments.judged, arguments.prompts, tokenizer)
    measuring = Measuring(model, answers, arguments)
    gradients = measuring.by_vectors()
    half = len(measuring.layers) // 2
    layers = tuple(
        Layer(number, rho(answers, along(answers, gradients[:, number]))) for number in range(gradients.shape[1])
    )
    lower, upper = (rho(answers, along(answers, gradients[:, part])) for part in (slice(half), slice(half, None)))
    for one in layers:
        print(f"layer {one.layer:2d}: {one.rho:.3f}", flush=True)
    print(f"lower half: {lower:.3f}, upper half: {upper:.3f}", flush=True)
    prompts = len({tuple(one.prompt) for one in answers})
    weights = rho(answers, measuring.by_all_weights())
    print(f"all weights: {weights:.3f}")
    record = Record(len(answers), prompts, layers, lower, upper, weights, found)
    if arguments.output is not None:
        write_record(record, arguments.output)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
