"""What the saved model is worth on the held-out examples: read back from its files, in float32."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from tiltlm.data.tokens.grouping import prompt_groups
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.scoring import totals
from tiltlm.objectives.interface import CHOSEN, REJECTED
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.outcomes import Evaluation
from tiltlm.statistics import Z_95, clustered_mean
from tiltlm.training.losses import BoundObjective, Losses
from tiltlm.training.metrics import Sums, eval_row


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Held-out examples with what float32 said of their scored tokens before training, in nats.

    reference: log-probabilities under the reference; None where the objective needs none.
    start: those of the model as loaded; mostly it is the reference.
    """

    columns: TokenColumns
    reference: np.ndarray | None
    start: np.ndarray


def evaluate_saved(
    saved: np.ndarray,
    trained: np.ndarray | None,
    held_out: HeldOut,
    objective: BoundObjective,
    saved_as: str,
    started: float,
) -> Evaluation:
    """The figures of the saved model.

    Args:
        saved, trained: float32 log-probabilities of the held-out examples' scored tokens under the saved model, and
            under the trained weights before they were rounded to the type of the files; None where files hold them as
            they were trained.
        saved_as: the type of the files.
        started: when the evaluation began, by `time.perf_counter`.
    """
    columns, prompts = held_out.columns, prompt_groups(held_out.columns)
    sums = Sums(objective.needs.unit)
    scored = objective.scored_columns(columns, saved, held_out.reference)
    output = objective(scored)
    sums.add(Losses(scored, output))
    margins = pair_margins(output.rewards_N, columns)
    before = None
    if trained is not None:
        before = pair_margins(
            objective(objective.scored_columns(columns, trained, held_out.reference)).rewards_N, columns
        )
    before_training = objective(objective.scored_columns(columns, held_out.start, held_out.reference))
    start_margins = pair_margins(before_training.rewards_N, columns)
    change_N = totals(saved, columns).astype(np.float64) - totals(held_out.start, columns)
    changes = [_mean_of(change_N, (label,), columns, prompts) for label in (CHOSEN, REJECTED)]
    change_N /= columns.scored_tokens
    token_changes = [_mean_of(change_N, (label,), columns, prompts) for label in (CHOSEN, REJECTED)]
    return Evaluation(
        saved_as=saved_as,
        running={name: float(value) for name, value in objective.running.items()},
        figures=eval_row(sums, prompts, 0, 0.0, time.perf_counter() - started),
        margin=None if margins is None else clustered_mean(list(margins), prompts),
        chosen_logp_change=changes[0],
        rejected_logp_change=changes[1],
        chosen_token_change=token_changes[0],
        rejected_token_change=token_changes[1],
        loss_change=loss_change(output.losses_U - before_training.losses_U, columns, prompts),
        start_gap=_start_gap(held_out, prompts),
        start_margin=None if start_margins is None else clustered_mean(list(start_margins), prompts),
        trained_margin=None if before is None else float(before.mean()),
        survived=None if margins is None or before is None else share_survived(margins, before),
    )


def _mean_of(
    values_N: np.ndarray, labels: tuple[int, ...], columns: TokenColumns, prompts: list[int]
) -> Estimate | None:
    """The mean over the sequences of these labels; None where there is none."""
    counted = np.isin(columns.labels, labels)
    if not counted.any():
        return None
    prompt_N = np.repeat(prompts, np.diff(columns.members))
    return clustered_mean(list(values_N[counted]), prompt_N[counted].tolist())


def loss_change(change_U: torch.Tensor, columns: TokenColumns, prompts: list[int]) -> Estimate:
    """The mean change of the losses of units, which are examples or the labelled completions of each."""
    prompt_U = np.asarray(prompts)
    if len(change_U) != len(prompts):
        prompt_U = np.repeat(prompts, np.diff(columns.members))[columns.labels >= 0]
    return clustered_mean(change_U.tolist(), prompt_U.tolist())


def _start_gap(held_out: HeldOut, prompts: list[int]) -> Estimate | None:
    if held_out.reference is None:
        return None
    columns = held_out.columns
    gap_N = totals(held_out.start, columns).astype(np.float64) - totals(held_out.reference, columns)
    return _mean_of(np.abs(gap_N) / columns.scored_tokens, (CHOSEN, REJECTED), columns, prompts)


def share_survived(saved_P: np.ndarray, trained_P: np.ndarray) -> Estimate | None:
    """Which share of the trained model's mean margin the saved model has, with a 95% interval over pairs.

    A ratio of means with its linearised standard error (W. G. Cochran, Sampling Techniques, 3rd ed., eq. 6.12).
    None where the trained model has no margin of which there could be a share.
    """
    mean = float(trained_P.mean())
    if mean == 0 or len(trained_P) < 2:
        return None
    share = float(saved_P.mean()) / mean
    error = float(np.std(saved_P - share * trained_P, ddof=1)) / (np.sqrt(len(trained_P)) * abs(mean))
    return Estimate(share, (share - Z_95 * error, share + Z_95 * error))


def pair_margins(rewards_N: torch.Tensor, columns: TokenColumns) -> np.ndarray | None:
    """Reward margins of examples that are all pairs, shape (P,); None where there are examples of another kind."""
    answers = columns.labels >= 0
    example_N = np.repeat(np.arange(len(columns)), np.diff(columns.members))
    two_each = np.array_equal(example_N[answers], np.repeat(np.arange(len(columns)), 2))
    if not two_each or not np.array_equal(columns.labels[answers], np.tile([CHOSEN, REJECTED], len(columns))):
        return None
    rewards: np.ndarray = rewards_N.numpy()[answers].reshape(-1, 2)
    margins: np.ndarray = rewards[:, 0] - rewards[:, 1]
    return margins
