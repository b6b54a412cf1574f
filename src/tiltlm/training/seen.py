"""Pairs that were trained on, scored again at the end: what training made of them, beside what it made of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiltlm.config import TrainingConfig
from tiltlm.data.tokens.grouping import prompt_groups
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.scoring import totals
from tiltlm.model.token_values import logps_of
from tiltlm.objectives.interface import MISMATCHED, LossOutput
from tiltlm.plan.steps import Order
from tiltlm.resampling import effective_share
from tiltlm.runs.pair_origins import PairWeights
from tiltlm.runs.seen_pairs import SeenPair, SeenPairs
from tiltlm.statistics import clustered_mean, difference_of_means
from tiltlm.training.bound_objective import BoundObjective
from tiltlm.training.held_out import HeldOut, loss_change, pair_margins
from tiltlm.training.step_plans import total_steps

SEEN_AT_MOST = 64
"""Training pairs that are scored again: enough for an interval, and no more work than an evaluation."""


def seen_examples(columns: TokenColumns, training: TrainingConfig, seed: int) -> np.ndarray:
    """Numbers of at most `SEEN_AT_MOST` examples, drawn by the seed from those that training will have seen."""
    order = Order(len(columns), training.batch_pairs, seed)
    steps = min(total_steps(training, len(columns)), order.steps_per_epoch)
    seen = np.concatenate([order.step(step) for step in range(steps)])
    drawn: np.ndarray = np.sort(np.random.default_rng([seed, SEEN_AT_MOST]).permutation(seen)[:SEEN_AT_MOST])
    return drawn


def evaluate_seen(
    saved: np.ndarray,
    seen: HeldOut,
    held_out_values: np.ndarray,
    held_out: HeldOut,
    objective: BoundObjective,
    log_squares: np.ndarray | None = None,
) -> SeenPairs | None:
    """What the saved model makes of training pairs, beside the held-out ones; None where examples are no pairs.

    Args:
        saved, held_out_values: its float32 log-probabilities of the scored tokens of either.
        log_squares: of the scored tokens of `seen`, the log of its distribution's sum of squares.
    """
    now, start = _rated(saved, seen, objective), _rated(seen.start, seen, objective)
    others = [_rated(values, held_out, objective) for values in (held_out_values, held_out.start)]
    margins = [pair_margins(output.rewards_N, seen.columns) for output in (now, start)]
    other_margins = [pair_margins(output.rewards_N, held_out.columns) for output in others]
    if margins[0] is None or margins[1] is None or other_margins[0] is None or other_margins[1] is None:
        return None
    prompts = prompt_groups(seen.columns)
    growth, other_growth = margins[0] - margins[1], other_margins[0] - other_margins[1]
    named = zip(seen.columns.names, prompts, margins[0].tolist(), strict=True)
    return SeenPairs(
        pairs=tuple(SeenPair(name, prompt, margin) for name, prompt, margin in named),
        margin=clustered_mean(list(margins[0]), prompts),
        growth=clustered_mean(list(growth), prompts),
        gap=difference_of_means(list(growth), prompts, list(other_growth), prompt_groups(held_out.columns)),
        loss_change=loss_change(now.losses_U - start.losses_U, seen.columns, prompts),
        weights=None if log_squares is None else pair_weights(saved, log_squares, seen, prompts),
    )


def without_squares(values: np.ndarray, objective: BoundObjective) -> tuple[np.ndarray, np.ndarray]:
    """Values of tokens with their sums of squares, as the objective has its columns; and log of the sums of squares."""
    if objective.needs.squares:
        return values, values[:, 1]
    own = np.delete(values, 1, axis=1)
    return (own if objective.columns.shape else own[:, 0]), values[:, 1]


def pair_weights(saved: np.ndarray, log_squares: np.ndarray, seen: HeldOut, prompts: Sequence[int]) -> PairWeights:
    """Effective shares of examples' weights under the saved model, an example's being the product of its answers'.

    Args:
        saved, log_squares: see `evaluate_seen`. prompts: of each example, its prompt's number.
    """
    columns, now = seen.columns, logps_of(saved)
    answers_N = columns.labels != MISMATCHED
    example_N = np.repeat(np.arange(len(columns)), np.diff(columns.members))[answers_N]
    moved_N = totals(now - logps_of(seen.start), columns)[answers_N]
    aligned_N = (totals(now - log_squares, columns) / columns.scored_tokens)[answers_N]
    moved, aligned = (np.bincount(example_N, own_N, minlength=len(columns)) for own_N in (moved_N, aligned_N))
    return PairWeights(moved=effective_share(moved, prompts), aligned=effective_share(aligned, prompts))


def _rated(values: np.ndarray, examples: HeldOut, objective: BoundObjective) -> LossOutput:
    return objective(objective.scored_columns(examples.columns, values, examples.reference))
