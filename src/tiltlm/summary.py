"""A run in figures: what `summary.json` holds."""

from __future__ import annotations

import torch

from tiltlm.config import Config
from tiltlm.data.preparation import PreparedData
from tiltlm.evaluation.comparison import Figures
from tiltlm.runs.environment import peak_memory_gib
from tiltlm.runs.records import Check, Estimate, Summary
from tiltlm.training.loop import TrainingOutcome


def summarise(
    config: Config,
    device: torch.device,
    data: PreparedData,
    checks: list[Check],
    outcome: TrainingOutcome,
    shown: Figures,
    stages: dict[str, float],
    seconds: float,
) -> Summary:
    """Gathers a run's figures. `stages` and `seconds` are durations so far, in seconds."""
    rows, evaluations = outcome.train_rows, outcome.eval_rows
    first, last = evaluations[0], evaluations[-1]
    busy = sum(row.seconds for row in rows)
    return Summary(
        run=config.run.name,
        completed=outcome.completed,
        model=config.model.path,
        reference=config.model.reference,
        loss=config.loss.name,
        beta=config.loss.beta,
        steps=len(rows),
        epochs=rows[-1].epoch if rows else 0.0,
        train_pairs=len(data.train),
        eval_pairs=len(data.eval),
        first_loss=rows[0].loss if rows else None,
        final_loss=rows[-1].loss if rows else None,
        eval_loss=last.loss,
        eval_accuracy=last.accuracy,
        eval_accuracy_interval=last.accuracy_interval,
        eval_margin=last.margin,
        eval_chosen_logp_change=Estimate(last.chosen_logp - first.chosen_logp, None),
        eval_rejected_logp_change=Estimate(last.rejected_logp - first.rejected_logp, None),
        reward=None if config.comparison.reward == "none" else config.comparison.reward,
        reward_before=shown.reward_before,
        reward_after=shown.reward_after,
        reward_difference=shown.reward_difference,
        win_rate=shown.win_rate,
        win_rate_interval=shown.win_rate_interval,
        kl=shown.kl,
        answers_before=shown.answers_before,
        answers_after=shown.answers_after,
        counted_prompts=shown.counted_prompts,
        seconds=seconds,
        stages=stages,
        pairs_per_second=sum(row.pairs for row in rows) / busy if busy else None,
        tokens_per_second=sum(row.tokens for row in rows) / busy if busy else None,
        peak_memory_gib=_peak_memory(device),
        checks=tuple(checks),
    )


def _peak_memory(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_memory_gib()
