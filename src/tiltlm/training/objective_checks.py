"""Whether an objective does what its declaration says, tried on a few random scored sequences in float64.

Nothing of a run is needed for it, so that a mistake in an objective of a user's own ends a run before any work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tiltlm.errors import SelfCheckError
from tiltlm.objectives.interface import LossOutput, Needs, Objective, Scored
from tiltlm.objectives.own_file import raised_in
from tiltlm.runs.outcomes import Check
from tiltlm.training.derivatives import HeldFixed, finite_differences
from tiltlm.training.random_scored import RandomExample, assembled, random_examples, tokens_of, with_tokens

EXAMPLES = 4
TOLERANCE = 1e-5
"""How far slopes may be from finite differences, in units of the largest slope."""
SAME = 1e-9
"""How far losses of the same examples may differ from one order or cut to another, in units of the largest."""


def check_objective(objective: Objective, settings: Any) -> list[Check]:
    """All checks, of an objective with its settings.

    Raises:
        SelfCheckError: one failed; the message says which, what was found, and how to mend it.
    """
    checks = []
    for check, mend in _Tried(objective, settings).checks():
        if not check.passed:
            raise SelfCheckError(
                f"the objective `{objective.name}` failed its check `{check.name}`: {check.detail}. {mend}"
            )
        checks.append(check)
    return checks


class _Tried:
    """An objective that is being tried."""

    def __init__(self, objective: Objective, settings: Any) -> None:
        self._objective, self._settings = objective, settings
        self._needs: Needs = objective.needs
        self._examples = random_examples(self._needs, EXAMPLES)
        self._tokens_per_unit = assembled(self._needs, self._examples).tokens_per_unit
        self._running: dict[str, Tensor] = {}
        if objective.running is not None:
            start = objective.running.start(settings)
            self._running = {name: torch.tensor(value, dtype=torch.float64) for name, value in start.items()}
            self._running = dict(objective.running.moved(self._scored(self._examples), settings))

    def checks(self) -> Iterator[tuple[Check, str]]:
        """Every check, with what to do if it failed."""
        yield self._shapes()
        yield self._gradient()
        yield self._order()
        if not self._needs.coupled:
            yield self._cuts()

    def _scored(self, examples: Sequence[RandomExample]) -> Scored:
        """Examples of the one global batch, whose number of tokens every part of it is told."""
        scored = assembled(self._needs, examples)
        return replace(scored, running=self._running, tokens_per_unit=self._tokens_per_unit)

    def _output(self, examples: Sequence[RandomExample]) -> LossOutput:
        """What the objective makes of examples.

        Raises:
            SelfCheckError: its code fails, or gives something else than a `LossOutput`.
        """
        name, loss = self._objective.name, self._objective.loss
        try:
            output: Any = loss(self._scored(examples), self._settings)
        except Exception as error:  # whatever a stranger's code raises
            raise SelfCheckError(
                f"the objective `{name}` fails on random examples of the kind it declares to need: "
                f"{raised_in(name.rpartition(':')[0], error)}. What it may read of them is what its `Needs` name."
            ) from error
        if not isinstance(output, LossOutput):
            raise SelfCheckError(
                f"the objective `{name}` gives a {type(output).__name__}: it must give "
                "LossOutput(losses_U, rewards_N), one loss a unit and one detached reward a sequence."
            )
        return output

    def _shapes(self) -> tuple[Check, str]:
        scored, output = self._scored(self._examples), self._output(self._examples)
        units = int((scored.labels_N >= 0).sum()) if self._needs.unit == "completion" else EXAMPLES
        losses, rewards, shape = output.losses_U, output.rewards_N, tuple(scored.logps_N.shape)
        has_gradient = rewards.requires_grad or self._rewards_have_a_gradient()
        may_be_wrong = {
            f"losses of shape {tuple(losses.shape)}, not ({units},)": losses.shape != (units,),
            f"losses of {losses.dtype}, not of floating point": not losses.is_floating_point(),
            f"losses that are not finite: {_shown(losses)}": not bool(losses.isfinite().all()),
            f"rewards of shape {tuple(rewards.shape)}, not {shape}": rewards.shape != shape,
            "rewards that have a gradient: detach() them": has_gradient,
            f"rewards that are not finite: {_shown(rewards)}": not bool(rewards.isfinite().all()),
        }
        wrong = [words for words, is_wrong in may_be_wrong.items() if is_wrong]
        detail = f"for {EXAMPLES} examples it gives {', '.join(wrong) or f'{units} finite losses'}"
        mend = f"It must give one loss for each {self._needs.unit} and one detached reward for each sequence."
        return Check("losses and rewards", not wrong, detail), mend

    def _rewards_have_a_gradient(self) -> bool:
        leaves = [value.clone().requires_grad_() for value in tokens_of(self._needs, self._examples)]
        return self._output(with_tokens(self._examples, leaves)).rewards_N.requires_grad

    def _gradient(self) -> tuple[Check, str]:
        """The slopes by log-probabilities (and divergences) against central differences of the same losses."""
        values, held = tokens_of(self._needs, self._examples), HeldFixed()
        leaves = [value.clone().requires_grad_() for value in values]
        weights_U = torch.linspace(0.5, 1.5, len(self._output(self._examples).losses_U), dtype=torch.float64)

        def total(some: Sequence[Tensor]) -> Tensor:
            return (self._output(with_tokens(self._examples, some)).losses_U * weights_U).sum()

        def total_held(some: Sequence[Tensor]) -> Tensor:
            with held:
                return total(some)

        whole = total_held(leaves)
        if not whole.requires_grad:
            check = Check("gradient", False, "the losses have none: nothing would be learnt")
            return check, "Compute them from scored.logps_N or scored.token_logps_T, in tensors, without detach()."
        slopes = torch.autograd.grad(whole, leaves, materialize_grads=True)
        found = _worst(slopes, finite_differences(total, values))
        if self._objective.detaches:
            name = "gradient, with what it detaches held fixed"
            found = _worst(slopes, finite_differences(total_held, values))
            mend = "A part that is cut off otherwise than by detach() cannot be told apart: cut it off by detach()."
        else:
            name = "gradient"
            mend = (
                "A part of the loss has no gradient (detach(), item(), no_grad(), a number made of a tensor): declare "
                "it, detaches=True, if it is meant to have none; else compute it in tensors."
            )
        apart, slope, difference = found
        detail = (
            f"slopes are within {apart:.1e} of finite differences in float64, of the largest (limit {TOLERANCE:.0e}); "
            f"furthest apart {slope:.6g} and {difference:.6g}"
        )
        return Check(name, apart <= TOLERANCE, detail), mend

    def _order(self) -> tuple[Check, str]:
        order = [*range(1, EXAMPLES), 0]
        whole_U = self._output(self._examples).losses_U
        turned_U = self._output([self._examples[number] for number in order]).losses_U
        each = len(whole_U) // EXAMPLES
        wanted_U = whole_U.unflatten(0, (EXAMPLES, each))[order].flatten()
        mend = "A loss must depend on what its example holds, not on where it stands."
        return _same("the order of examples changes nothing", wanted_U, turned_U), mend

    def _cuts(self) -> tuple[Check, str]:
        whole_U = self._output(self._examples).losses_U
        parts_U = torch.cat([self._output([example]).losses_U for example in self._examples])
        mend = (
            "A loss that depends on the other examples of the batch is declared so, Needs(coupled=True): its gradient "
            "is then taken over the whole batch. Means over the batch are taken by tiltlm: give one loss a unit."
        )
        return _same("micro-batches change nothing", whole_U, parts_U), mend


def _same(name: str, wanted_U: Tensor, found_U: Tensor) -> Check:
    if wanted_U.shape != found_U.shape:
        return Check(name, False, f"{len(wanted_U)} losses become {len(found_U)}")
    scale = max(float(wanted_U.abs().max()), 1.0)
    apart = float((wanted_U - found_U).abs().max()) / scale
    return Check(name, apart <= SAME, f"losses {_shown(wanted_U)} become {_shown(found_U)}" if apart > SAME else "")


def _worst(slopes: Sequence[Tensor], differences: Sequence[Tensor]) -> tuple[float, float, float]:
    """How far they are apart at most, in units of the largest slope; and the two there."""
    own, others = torch.cat(list(slopes)), torch.cat(list(differences))
    apart = (own - others).abs()
    place = int(apart.argmax())
    scale = max(float(own.abs().max()), float(others.abs().max()), 1e-12)
    return float(apart[place]) / scale, float(own[place]), float(others[place])


def _shown(values: Tensor) -> str:
    return f"[{', '.join(f'{value:.6g}' for value in values.detach().flatten()[:8].tolist())}]"
