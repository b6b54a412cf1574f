"""A run in figures: what `summary.json` holds, from the run's other files alone."""

from __future__ import annotations

import dataclasses

from tiltlm.evaluation.figures import figures
from tiltlm.report.questions.asking import answers
from tiltlm.runs.outcomes import Figures, Summary
from tiltlm.runs.run_files import RunFiles, Settings

KILLED = "it has not ended, or its process was killed"


def summarise(run: RunFiles) -> Summary:
    """Gathers a run's figures. What the run did not come to is None."""
    outcome, evaluation, rows = run.outcome, run.evaluation, run.metrics.train
    shown = figures(run.comparison) if run.comparison is not None else Figures(counted_prompts=0)
    saved = evaluation.figures if evaluation is not None else None
    margin = evaluation.margin if evaluation is not None else None
    busy = sum(row.seconds for row in rows)
    given = dict(run.settings.get("loss", {}))
    name, beta = given.pop("name", ""), given.get("beta")
    status = outcome.status if outcome is not None else "running"
    message = outcome.message if outcome is not None else None
    reward = _text(run.settings, "comparison", "reward")
    return Summary(
        **{field.name: getattr(shown, field.name) for field in dataclasses.fields(shown)},
        run=_text(run.settings, "run", "name") or "run",
        completed=status == "completed",
        status=status if status != "running" else "killed",
        message=message if status != "running" else KILLED,
        model=_text(run.settings, "model", "path") or "",
        reference=_text(run.settings, "model", "reference"),
        loss=str(name),
        loss_settings=given,
        beta=float(beta) if isinstance(beta, int | float) else None,
        steps=len(rows),
        epochs=rows[-1].epoch if rows else 0.0,
        train_pairs=run.data.train.pairs if run.data.train is not None else None,
        eval_pairs=run.data.eval.pairs if run.data.eval is not None else None,
        first_loss=rows[0].loss if rows else None,
        final_loss=rows[-1].loss if rows else None,
        eval_loss=saved.loss if saved is not None else None,
        eval_loss_change=evaluation.loss_change if evaluation is not None else None,
        eval_accuracy=saved.accuracy if saved is not None else None,
        eval_accuracy_interval=saved.accuracy_interval if saved is not None else None,
        eval_margin=saved.margin if saved is not None else None,
        eval_margin_interval=margin.interval if margin is not None else None,
        chosen_logp_change=evaluation.chosen_logp_change if evaluation is not None else None,
        rejected_logp_change=evaluation.rejected_logp_change if evaluation is not None else None,
        training_margin=run.metrics.evaluations[-1].margin if len(run.metrics.evaluations) > 1 else None,
        saved_as=evaluation.saved_as if evaluation is not None else None,
        survived=evaluation.survived if evaluation is not None else None,
        reward=None if reward == "none" else reward,
        seconds=outcome.seconds if outcome is not None else None,
        stages=outcome.stages if outcome is not None else None,
        pairs_per_second=sum(row.examples for row in rows) / busy if busy else None,
        tokens_per_second=sum(row.tokens for row in rows) / busy if busy else None,
        peak_memory_gib=outcome.peak_memory_gib if outcome is not None else None,
        checks=outcome.checks if outcome is not None else None,
        resumed=outcome.resumed if outcome is not None else (),
        questions=answers(run),
    )


def _text(settings: Settings, section: str, option: str) -> str | None:
    value = settings.get(section, {}).get(option)
    return None if value is None else str(value)
