"""Losses of given log-probabilities, so that anyone can check a value against a paper or a peer.

Each objective takes what it needs and nothing else. Where policy and reference agree, DPO is ln 2:

    >>> loss("sigmoid", chosen=[-12.0], rejected=[-25.0], reference_chosen=[-12.0], reference_rejected=[-25.0])
    [0.693147...]
    >>> loss("sigmoid", chosen=[-10.0], rejected=[-30.0], reference_chosen=[-12.0], reference_rejected=[-25.0],
    ...      divergence="js")
    [0.478632...]
    >>> loss("simpo", chosen=[-8.0], rejected=[-30.0], chosen_tokens=[4], rejected_tokens=[10], gamma_beta_ratio=0.5)
    [0.313261...]
    >>> loss("ld_dpo", chosen_token_logps=[[-1.0, -2.0, -0.5]], reference_chosen_token_logps=[[-2.0, -2.0, -1.5]],
    ...      rejected_token_logps=[[-3.0]], reference_rejected_token_logps=[[-2.0]], alpha=0.5)
    [0.575939...]
    >>> loss("kto", chosen=[-9.0, -7.0], reference_chosen=[-10.0, -9.0], rejected=[-8.0], reference_rejected=[-6.0],
    ...      mismatched=[-30.0, -31.0, -32.0], reference_mismatched=[-32.0, -31.0, -33.0])
    [0.5, 0.475020..., 0.425557...]
    >>> loss("plackett_luce", answers=[[-9.0, -12.0, -8.0]], reference_answers=[[-10.0, -12.0, -8.0]],
    ...      scores=[[3, 2, 1]])
    [1.726215...]
    >>> loss("pcl", answers_token_logps=[[[-1.0, -2.0], [-3.0]]], answers_credit=[[[0.5, 0.0], [-0.5]]],
    ...      reference_answers_token_logps=[[[-2.0, -2.0], [-3.0]]], beta=0.5)
    [0.125]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from tiltlm.api.given_numbers import lists_of_rows, rows_of
from tiltlm.api.listed_answers import ANSWERS, list_arguments, listed, listed_tokens
from tiltlm.config.declaring import in_words
from tiltlm.config.suggestions import nearest
from tiltlm.errors import ConfigError
from tiltlm.objectives import ALIASES, OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED, Needs, Objective, Scored

Values = Sequence[float] | np.ndarray | Tensor
"""One number a completion: a list, or an array or tensor of shape (completions,)."""

TokenValues = Sequence[Sequence[float]] | Sequence[np.ndarray] | Sequence[Tensor]
"""One number a token: for each completion a list, or an array or tensor of shape (tokens,)."""

ListedTokenValues = Sequence[TokenValues]
"""One number a token: for each prompt a list, which holds for each answer a list, or an array or tensor of shape
(tokens,)."""

_OWN = ("name", "settings")
LABELS = {"chosen": CHOSEN, "rejected": REJECTED, "mismatched": MISMATCHED}


def loss(
    name: str,
    *,
    chosen: Values | None = None,
    rejected: Values | None = None,
    mismatched: Values | None = None,
    reference_chosen: Values | None = None,
    reference_rejected: Values | None = None,
    reference_mismatched: Values | None = None,
    chosen_tokens: Values | None = None,
    rejected_tokens: Values | None = None,
    chosen_token_logps: TokenValues | None = None,
    rejected_token_logps: TokenValues | None = None,
    reference_chosen_token_logps: TokenValues | None = None,
    reference_rejected_token_logps: TokenValues | None = None,
    chosen_log_squares: TokenValues | None = None,
    rejected_log_squares: TokenValues | None = None,
    chosen_kl: Values | TokenValues | None = None,
    rejected_kl: Values | TokenValues | None = None,
    answers: TokenValues | None = None,
    reference_answers: TokenValues | None = None,
    answers_tokens: TokenValues | None = None,
    answers_token_logps: ListedTokenValues | None = None,
    reference_answers_token_logps: ListedTokenValues | None = None,
    answers_credit: ListedTokenValues | None = None,
    scores: Values | TokenValues | None = None,
    chosen_scores: Values | None = None,
    rejected_scores: Values | None = None,
    **settings: float | str,
) -> list[float] | Tensor:
    """Losses of an objective, from log-probabilities in nats: one a pair, a list, or a completion that stands alone.

    An objective that keeps statistics from step to step has those of a first step on what is given.

    Args:
        name: the objective, a key of `tiltlm.objectives.OBJECTIVES`.
        chosen, rejected: log pi(y|x) of each completion, summed over its tokens. Unpaired, the desirable and the
            undesirable ones: either may be left out, and losses of `chosen` come first. Answers to imitate: `chosen`.
        mismatched: the same of answers to other prompts, one for each completion, in the order of the losses.
        chosen_tokens, rejected_tokens: how many tokens each sum has. chosen_scores, rejected_scores: of each one.
        answers: of ranked lists, one list of log pi(y|x) for each prompt; answers_tokens, scores: the same of these.
        *_token_logps: token by token, in place of the sums; answers_credit: of each token, what it did for the score.
        chosen_log_squares, rejected_log_squares: token by token, log of the sum of pi(v)^2 over the vocabulary.
        chosen_kl, rejected_kl: KL(pi_ref || pi) of the distributions, token by token or summed over a completion's.
        reference_*: the same under the reference. settings: the objective's own; those not given have their defaults.

    Returns:
        A list, computed in float64; where a tensor was given, a tensor of shape (losses,), of the tensors' type and on
        their device, through which gradients flow.

    Raises:
        ConfigError: the objective or a setting is unknown or out of range, or an argument is missing, not needed, or of
            another length than the rest. The message names it.
    """
    given = {argument: own for argument, own in locals().items() if argument not in _OWN and own is not None}
    objective = _objective(name)
    configured = _configured(objective, settings)
    scored, is_tensor = _read(objective, configured, given)
    losses_U = objective.loss(scored, configured).losses_U
    return losses_U if is_tensor else [float(value) for value in losses_U]


def _read(objective: Objective, configured: Any, given: Mapping[str, Any]) -> tuple[Scored, bool]:
    """What an objective is given of the arguments, and whether tensors were among them."""
    needs, sides = objective.needs, _sides(objective, given)
    if needs.unit == "list" and needs.tokens:
        lists, is_tensor = lists_of_rows(given)
        return listed_tokens(lists), is_tensor
    rows, is_tensor = rows_of(given)
    scored = listed(needs, rows) if needs.unit == "list" else _scored(needs, _sequences(needs, sides, rows))
    return _with_running(scored, objective, configured), is_tensor


def _with_running(scored: Scored, objective: Objective, settings: Any) -> Scored:
    if objective.running is None:
        return scored
    start = {name: scored.logps_N.new_tensor(value) for name, value in objective.running.start(settings).items()}
    return replace(scored, running=objective.running.moved(replace(scored, running=start), settings))


def arguments_of(needs: Needs, side: str) -> tuple[str, ...]:
    """The arguments of `loss` that an objective of these needs takes for a side, a key of LABELS, or for lists."""
    if side == ANSWERS:
        return list_arguments(needs)
    logps = f"{side}_token_logps" if needs.tokens else side
    if side == "mismatched":
        return (logps, f"reference_{logps}") if needs.reference else (logps,)
    wanted = {
        logps: True,
        f"reference_{logps}": needs.reference,
        f"{side}_tokens": needs.counts and not needs.tokens,
        f"{side}_log_squares": needs.squares,
        f"{side}_kl": needs.live,
        f"{side}_scores": needs.scores != "none",
    }
    return tuple(argument for argument, is_wanted in wanted.items() if is_wanted)


def _objective(name: str) -> Objective:
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    meant = ALIASES.get(name.lower()) or nearest(name, list(OBJECTIVES))
    hint = f"Did you mean `{meant}`? There are" if meant else "There are"
    raise ConfigError(f"There is no objective `{name}`. {hint}: {', '.join(OBJECTIVES)}.")


def _configured(objective: Objective, settings: Mapping[str, float | str]) -> Any:
    known = _settings_of(objective)
    for setting in settings:
        if setting in known:
            continue
        others = [other.name for other in OBJECTIVES.values() if setting in _settings_of(other)]
        meant = nearest(setting, known)
        hint = f"Did you mean `{meant}`? " if meant else f"It belongs to: {', '.join(others)}. " if others else ""
        raise ConfigError(f"`{objective.name}` has no setting `{setting}`. {hint}It has: {', '.join(known)}.")
    try:
        return objective.settings(**settings)
    except ValidationError as error:
        raise ConfigError(in_words(error, objective.settings, "loss", dict(settings))) from error


def _settings_of(objective: Objective) -> list[str]:
    return [field.name for field in fields(objective.settings)]


_ALONE = {"demonstration": "chosen", "list": ANSWERS}
"""Where there is one side: its name."""


def _sides(objective: Objective, given: Mapping[str, Any]) -> list[str]:
    """The sides that are there, after a check that all of their arguments are, and no others."""
    needs = objective.needs
    if needs.unit in _ALONE:
        sides = [_ALONE[needs.unit]]
    else:
        sides = [side for side in LABELS if side != "mismatched" or needs.mismatched]
    if needs.unit == "completion":
        alone = ("chosen", "rejected")
        there = [side for side in alone if any(argument in given for argument in arguments_of(needs, side))]
        if not there:
            raise ConfigError(f"`{objective.name}` needs completions: give `chosen`, `rejected` or both.")
        sides = [side for side in sides if side in there or side not in alone]
    wanted = [argument for side in sides for argument in arguments_of(needs, side)]
    for argument in wanted:
        if argument not in given:
            raise ConfigError(f"`{objective.name}` needs `{argument}`. It takes: {', '.join(wanted)}.")
    for argument in given:
        if argument not in wanted:
            raise ConfigError(
                f"`{objective.name}` does not read `{argument}`: leave it out. It takes: {', '.join(wanted)}."
            )
    return sides


@dataclass(frozen=True, slots=True, eq=False)
class _Completion:
    """Log-probabilities of a completion, shape () or (tokens,), how many tokens a sum has, and what else there is of
    its tokens' distributions."""

    label: int
    logps: Tensor
    reference: Tensor | None
    tokens: Tensor | None
    log_squares: Tensor | None
    divergence: Tensor | None
    score: Tensor | None


def _completions(needs: Needs, side: str, rows: Mapping[str, list[Tensor]]) -> list[_Completion]:
    logps, *taken = arguments_of(needs, side)
    for other in taken:
        _require_length(len(rows[logps]), f"`{logps}`", f"`{other}`", len(rows[other]))
        if other.endswith("_kl"):
            continue
        for number, (one, its) in enumerate(zip(rows[logps], rows[other], strict=True)):
            _require_length(one.numel(), f"`{logps}[{number}]`", f"`{other}[{number}]`", its.numel())
    nothing: list[None] = [None] * len(rows[logps])
    others = [f"reference_{logps}", *(f"{side}_{name}" for name in ("tokens", "log_squares", "kl", "scores"))]
    values = zip(rows[logps], *(rows.get(other, nothing) for other in others), strict=True)
    return [_Completion(LABELS[side], *given) for given in values]


def _sequences(needs: Needs, sides: Sequence[str], rows: Mapping[str, list[Tensor]]) -> list[_Completion]:
    """In the order of examples: a pair's two completions, or each completion and then the one mismatched with it."""
    by_side = {f"`{arguments_of(needs, side)[0]}`": _completions(needs, side, rows) for side in sides}
    others = by_side.popitem() if needs.mismatched else None
    if needs.unit == "pair":
        (chosen, first), (rejected, second) = by_side.items()
        _require_length(len(first), chosen, rejected, len(second))
        examples: list[tuple[_Completion, ...]] = list(zip(first, second, strict=True))
    else:
        examples = [(completion,) for completion in chain(*by_side.values())]
    if others is None:
        return list(chain(*examples))
    _require_length(len(examples), " and ".join(by_side), others[0], len(others[1]))
    return [one for example, other in zip(examples, others[1], strict=True) for one in (*example, other)]


def _require_length(length: int, of: str, argument: str, found: int) -> None:
    if found != length:
        raise ConfigError(f"{argument} holds {found} and {of} {length}: they must hold equally many.")


def _scored(needs: Needs, sequences: Sequence[_Completion]) -> Scored:
    device = sequences[0].logps.device
    lengths = [int(one.tokens) if one.tokens is not None else one.logps.numel() for one in sequences]
    references = [one.reference for one in sequences if one.reference is not None]
    scores = [one.score for one in sequences if one.score is not None]
    labelled = [length for one, length in zip(sequences, lengths, strict=True) if one.label != MISMATCHED]
    summed = Scored(
        logps_N=torch.stack([one.logps.sum() for one in sequences]),
        tokens_N=torch.tensor(lengths, device=device),
        labels_N=torch.tensor([one.label for one in sequences], dtype=torch.int8, device=device),
        reference_logps_N=torch.stack([row.sum() for row in references]) if needs.reference else None,
        scores_N=torch.stack(scores) if scores else None,
        tokens_per_unit=sum(labelled) / (len(labelled) / (2 if needs.unit == "pair" else 1)),
    )
    if needs.live:
        # Sums do as if each completion had one token: of divergences only sums are asked for here.
        return replace(
            summed,
            sequence_T=torch.arange(len(lengths), device=device),
            offset_T=torch.zeros(len(lengths), dtype=torch.int64, device=device),
            reference_kl_T=torch.stack([one.divergence for one in sequences if one.divergence is not None]),
        )
    if not needs.tokens:
        return summed
    log_squares = [one.log_squares for one in sequences if one.log_squares is not None]
    return replace(
        summed,
        log_squares_T=torch.cat(log_squares) if log_squares else None,
        token_logps_T=torch.cat([one.logps for one in sequences]),
        reference_token_logps_T=torch.cat(references) if needs.reference else None,
        sequence_T=torch.arange(len(lengths), device=device).repeat_interleave(summed.tokens_N),
        offset_T=torch.cat([torch.arange(length, device=device) for length in lengths]),
    )
