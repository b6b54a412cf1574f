"""Gradients of the weights: against finite differences in float64, and each arithmetic's against float64's.

`numerics.py` runs this and writes its page. Finite differences know nothing of the backward pass: they are losses, of
which the forward pass was proven against stock transformers.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, PreTrainedModel

from machine import Circumstances
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.model.dither import add_dither
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score
from tiltlm.model.token_values import TokenValues
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED, Needs
from tiltlm.plan.batches import Plan
from tiltlm.plan.row_layout import DENSE
from tiltlm.training.bound_objective import BoundObjective
from tiltlm.training.losses import backward
from tiltlm.training.step_plans import Referenced

BUDGET = 512
"""Tokens in a micro-batch: small, so that gradients are summed over several."""
AWAY = 0.01
"""How far the reference of the random models is from the policy, as a share of each tensor's own scale."""
STEP = 1e-4
"""Of the finite differences, as a share of each tensor's own scale: rounding and curvature both disturb little."""
STENCIL = {1: 8 / 12, -1: -8 / 12, 2: -1 / 12, -2: 1 / 12}
"""Weights of the losses at so many steps: a central difference of fourth order."""
EVERY_OBJECTIVE = ("Llama",)
"""Families that are measured with every objective; the others with `sigmoid` alone."""
ARITHMETICS = ("float32", "bfloat16", "bfloat16, dithered: training")

KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("norms", ("norm", "ln_")),
    ("attention", ("attn", "attention")),
    ("MLP", ("mlp",)),
    ("output layer", ("lm_head", "embed_out")),
    ("embeddings", ("embed", "wte", "wpe")),
)
"""Kinds of layers, and what the names of their parameters hold; the first that fits. A table of embeddings that is the
output layer too counts as embeddings."""

Gradients = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Derivatives:
    """Gradients in float64 by the path of training against central differences of the loss in float64.

    directions, weights: worst error along random directions of all weights, and of single weights, two of a tensor:
        one drawn at random and the one of the largest gradient. Errors are shares: of the root mean square of the
        derivatives along the directions; of the largest derivative by a weight of the tensor.
    directions_tried, weights_tried: how many.
    """

    model: str
    objective: str
    directions: float
    weights: float
    directions_tried: int
    weights_tried: int


@dataclass(frozen=True, slots=True)
class GradientError:
    """The gradient of one kind of layers in one arithmetic against float64's.

    relative: length of the difference, as a share of the gradient's length. cosine: of the angle between the two.
    """

    model: str
    objective: str
    arithmetic: str
    kind: str
    relative: float
    cosine: float


@dataclass(frozen=True, slots=True)
class GradientRecord:
    """Everything measured. pairs, tokens: in the batch of the embedded model."""

    circumstances: Circumstances
    pairs: int
    tokens: int
    derivatives: list[Derivatives]
    errors: list[GradientError]


class Float64Throughout(TorchFunctionMode):
    """Lets nothing be narrower than float64: transformers takes norms, softmax and rotary angles in float32 by name."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float:
            return args[0].double()
        if not (args and isinstance(args[0], Tensor) and args[0].dtype is torch.float64):
            return func(*args, **(kwargs or {}))
        named = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return func(*(torch.float64 if one is torch.float32 else one for one in args), **named)


def measured_gradients(
    where: Circumstances,
    families: Mapping[str, Callable[[], Any]],
    embedded: PreTrainedModel,
    pairs: Sequence[TokenizedExample],
) -> GradientRecord:
    """All figures: small random models of each family with every objective, and the embedded model with `sigmoid`."""
    derivatives: list[Derivatives] = []
    errors: list[GradientError] = []
    for family, config in families.items():
        for name in _whole() if family in EVERY_OBJECTIVE else ("sigmoid",):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config()).float().eval()
            objective = _bound(name)
            examples = _random_examples(objective.needs)
            reference = _values(_moved(model), examples) if objective.needs.reference else None
            plan = Referenced(examples, reference).plan(range(len(examples)), BUDGET, DENSE)
            case = Case(family, name, model, plan, objective)
            exact = case.exact_gradients()
            derivatives.append(case.derivatives(exact, directions=6, tensors=8))
            errors += case.errors(exact)
    columns, objective = TokenColumns.of(pairs), _bound("sigmoid")
    plan = Referenced(columns, _values(embedded, columns)).plan(range(len(columns)), BUDGET, DENSE)
    case = Case("SmolLM2-135M", "sigmoid", embedded, plan, objective)
    exact = case.exact_gradients()
    # A step of 135 million weights at once goes further than one of a few hundred thousand.
    derivatives.append(case.derivatives(exact, directions=2, tensors=2, step=STEP / 32))
    errors += case.errors(exact)
    return GradientRecord(where, len(columns), plan.laid_out, derivatives, errors)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A model in float32, and what it is asked for."""

    family: str
    name: str
    model: PreTrainedModel
    plan: Plan
    objective: BoundObjective

    def exact_gradients(self) -> Gradients:
        """The gradient in float64."""
        with Float64Throughout():
            return _gradients(Scorer(copy.deepcopy(self.model).double()), self.plan, self.objective, torch.float32)

    def errors(self, exact: Gradients) -> Iterator[GradientError]:
        """Every arithmetic against the gradient in float64, by kind of layers."""
        for arithmetic in ARITHMETICS:
            model = copy.deepcopy(self.model)
            if "dithered" in arithmetic:
                add_dither(model)
            precision = torch.float32 if arithmetic == "float32" else torch.bfloat16
            found = _gradients(Scorer(model), self.plan, self.objective, precision)
            for kind, names in _by_kind(exact).items():
                one, other = (torch.cat([g[name].double().flatten() for name in names]) for g in (found, exact))
                relative = ((one - other).norm() / other.norm()).item()
                cosine = torch.nn.functional.cosine_similarity(one, other, dim=0).item()
                yield GradientError(self.family, self.name, arithmetic, kind, relative, cosine)

    def derivatives(self, exact: Gradients, directions: int, tensors: int, step: float = STEP) -> Derivatives:
        """The gradient in float64 against finite differences.

        tensors: how many tensors single weights are taken from, drawn at random.
        step: of the differences along the directions.
        """
        with Float64Throughout():
            differences = _Differences(copy.deepcopy(self.model).double(), self.plan, self.objective)
            along = [differences.along_random(exact, step) for _ in range(directions)]
            names = differences.drawn(list(exact), tensors)
            single = [error for name in names for error in differences.of_single_weights(name, exact[name])]
        found, wanted = (np.array(values) for values in zip(*along, strict=True))
        scale = np.sqrt(np.mean(found**2))
        worst = float(np.abs(found - wanted).max() / scale)
        return Derivatives(self.family, self.name, worst, max(single), directions, len(single))


class _Differences:
    """Central differences of a plan's loss, by the weights of a model in float64."""

    def __init__(self, model: PreTrainedModel, plan: Plan, objective: BoundObjective) -> None:
        self._scorer, self._plan, self._objective = Scorer(model), plan, objective
        self._weights = dict(model.named_parameters())
        self._rng = torch.Generator().manual_seed(1)
        self._held = self._values()

    def drawn(self, names: list[str], count: int) -> list[str]:
        """Some of the names."""
        return [names[i] for i in torch.randperm(len(names), generator=self._rng)[:count].tolist()]

    def along_random(self, exact: Gradients, step: float) -> tuple[float, float]:
        """The derivative along a random direction of all weights, as a difference and by the gradient."""
        direction = {
            name: _scale(weight) * torch.randn(weight.shape, generator=self._rng, dtype=torch.float64)
            for name, weight in self._weights.items()
        }
        slope = sum(float((exact[name] * part).sum()) for name, part in direction.items())
        return self._difference(direction, step), slope

    def of_single_weights(self, name: str, exact: Tensor) -> Iterator[float]:
        """Errors at the weight of the largest gradient and at another one."""
        largest = exact.abs().max()
        other = int(torch.randint(exact.numel(), (1,), generator=self._rng))
        for index in (int(exact.abs().argmax()), other):
            direction = torch.zeros_like(exact)
            scale = _scale(self._weights[name])
            direction.view(-1)[index] = scale
            found = self._difference({name: direction}, STEP) / scale
            yield float((found - exact.view(-1)[index]).abs() / largest)

    @torch.no_grad()
    def _difference(self, direction: Gradients, step: float) -> float:
        before = {name: self._weights[name].detach().clone() for name in direction}
        total = 0.0
        for steps, weight in STENCIL.items():
            for name, part in direction.items():
                self._weights[name].copy_(before[name] + steps * step * part)
            total += weight * self._loss()
        for name, own in before.items():
            self._weights[name].copy_(own)
        return total / step

    @torch.no_grad()
    def _values(self) -> list[TokenValues]:
        return [self._objective.values(self._scorer, batch, torch.float32) for batch in self._plan.micro_batches]

    def _loss(self) -> float:
        """The mean loss. An objective takes what it knows from mismatched answers as given: they stay as they were."""
        batches, objective = self._plan.micro_batches, self._objective
        scored, held = (objective.scored(batches, values) for values in (self._values(), self._held))
        logps_N = torch.where(scored.labels_N == MISMATCHED, held.logps_N, scored.logps_N)
        output = objective(dataclasses.replace(scored, logps_N=logps_N))
        return float(output.losses_U.sum()) / objective.units(self._plan)


def _whole() -> list[str]:
    """The objectives whose gradient is that of the whole loss, from values that are known before the step."""
    return [name for name, own in OBJECTIVES.items() if not own.detaches and not own.live_reference]


def _bound(name: str) -> BoundObjective:
    return BoundObjective(OBJECTIVES[name], OBJECTIVES[name].settings())


def _gradients(scorer: Scorer, plan: Plan, objective: BoundObjective, precision: torch.dtype) -> Gradients:
    backward(scorer, plan, objective, precision, lambda losses: None)
    return {name: weight.grad for name, weight in scorer.model.named_parameters() if weight.grad is not None}


def _values(model: PreTrainedModel, columns: TokenColumns) -> np.ndarray:
    return score(Scorer(model), columns, torch.float32, BUDGET)


@torch.no_grad()
def _moved(model: PreTrainedModel) -> PreTrainedModel:
    moved, rng = copy.deepcopy(model), torch.Generator().manual_seed(2)
    for weight in moved.parameters():
        weight.add_(AWAY * _scale(weight) * torch.randn(weight.shape, generator=rng))
    return moved


def _scale(weights: Tensor) -> float:
    """Root mean square of a tensor; 1 where it is zero, as new biases are."""
    return float(weights.detach().double().square().mean().sqrt()) or 1.0


def _by_kind(gradients: Iterable[str]) -> dict[str, list[str]]:
    """The names of parameters by the kind of their layer, and all of them."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in gradients:
        found[next(kind for kind, parts in KINDS if any(part in name for part in parts))].append(name)
        found["all"].append(name)
    return dict(found)


def _random_examples(needs: Needs, count: int = 12) -> TokenColumns:
    """Random answers to random prompts of a vocabulary of 512, of uneven lengths."""
    rng, examples = np.random.default_rng(0), []
    for number in range(count):
        prompt = rng.integers(3, 512, rng.integers(8, 40))
        labels = [CHOSEN, REJECTED] + [MISMATCHED] * (2 if needs.mismatched else 0)
        sequences = tuple(
            TokenizedSequence(
                np.concatenate([prompt, rng.integers(3, 512, rng.integers(8, 40))]).astype(np.int32), len(prompt)
            )
            for _ in labels
        )
        examples.append(TokenizedExample(f"example {number}", sequences, tuple(labels)))
    return TokenColumns.of(examples)
