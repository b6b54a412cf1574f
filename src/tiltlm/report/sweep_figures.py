"""The figures of a sweep's members, from the files of their runs alone; and the table of them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltlm.errors import RunError
from tiltlm.evaluation.figures import figures
from tiltlm.report.wording import number
from tiltlm.runs.answers import Comparison
from tiltlm.runs.estimates import Divergence, Estimate, Interval
from tiltlm.runs.held_out_pairs import HeldOutPair
from tiltlm.runs.outcomes import Evaluation, Figures
from tiltlm.runs.rows import EvalRow
from tiltlm.runs.run_files import RunFiles, read_run
from tiltlm.runs.sweep_folder import MemberRecord, SweepFolder, SweepRecord
from tiltlm.statistics import clustered_mean, effective_number, wilson_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFigures:
    """A member with what its run came to; None where that was not measured.

    loss: the objective. accuracy: share of held-out pairs whose chosen reward is above the rejected one; of examples
        that are no pairs, as the run counted it.
    margin: mean reward margin, in the objective's units. change: by how much training moved the log-odds of chosen
        against rejected, in nats, which is the same quantity for every objective.
    loss_change: of the objective's loss. chosen_change: of log pi(chosen), nats a completion.
    kl, reward_change: of the sampled answers. reward: the name of the known reward.
    """

    record: MemberRecord
    loss: str
    steps: int
    seconds: float | None
    accuracy: float | None = None
    accuracy_interval: Interval | None = None
    margin: Estimate | None = None
    change: Estimate | None = None
    loss_change: Estimate | None = None
    chosen_change: Estimate | None = None
    kl: Divergence | None = None
    reward: str | None = None
    reward_change: Estimate | None = None
    evaluations: tuple[EvalRow, ...] = ()
    pairs: tuple[HeldOutPair, ...] = ()
    comparison: Comparison | None = None

    @property
    def compared(self) -> bool:
        """Whether the member came to its end, and so may be set beside others."""
        return self.record.status == "completed"


def right(pair: HeldOutPair) -> float:
    """1 where a pair's chosen reward is above its rejected one, one half for a tie."""
    return 0.5 if pair.margin == 0 else float(pair.margin > 0)


def member_figures(folder: SweepFolder, record: SweepRecord) -> list[MemberFigures]:
    """The figures of all members, in order; of those whose files cannot be read, none."""
    return [_figures(folder.member(member), member, record) for member in record.members]


def _figures(path: Path, member: MemberRecord, record: SweepRecord) -> MemberFigures:
    planned = member.settings.get("loss.name", record.settings.get("loss", {}).get("name", ""))
    bare = MemberFigures(record=member, loss=str(planned), steps=0, seconds=member.seconds)
    if member.status in ("waiting", "failed") or not path.is_dir():
        return bare
    try:
        run = read_run(path)
    except RunError:
        return bare
    return _of_run(run, member)


def _of_run(run: RunFiles, member: MemberRecord) -> MemberFigures:
    evaluation = run.evaluation
    shown = figures(run.comparison) if run.comparison is not None else Figures()
    accuracy, interval = _accuracy(evaluation)
    pairs = evaluation.pairs if evaluation is not None else ()
    reward = run.settings.get("comparison", {}).get("reward")
    return MemberFigures(
        record=member,
        loss=str(run.settings.get("loss", {}).get("name", "")),
        steps=len(run.metrics.train),
        seconds=run.outcome.seconds if run.outcome is not None else member.seconds,
        accuracy=accuracy,
        accuracy_interval=interval,
        margin=evaluation.margin if evaluation is not None else None,
        change=clustered_mean([pair.change for pair in pairs], [pair.prompt for pair in pairs]) if pairs else None,
        loss_change=evaluation.loss_change if evaluation is not None else None,
        chosen_change=evaluation.chosen_logp_change if evaluation is not None else None,
        kl=shown.kl or shown.kl_at_temperature,
        reward=None if reward in (None, "none") else str(reward),
        reward_change=shown.reward_difference,
        evaluations=run.metrics.evaluations,
        pairs=pairs,
        comparison=run.comparison,
    )


def _accuracy(evaluation: Evaluation | None) -> tuple[float | None, Interval | None]:
    if evaluation is None:
        return None, None
    if not evaluation.pairs:
        return evaluation.figures.accuracy, evaluation.figures.accuracy_interval
    accuracy = sum(map(right, evaluation.pairs)) / len(evaluation.pairs)
    trials = effective_number([pair.prompt for pair in evaluation.pairs])
    return accuracy, wilson_interval(accuracy * trials, trials)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """A row of `table.json` and `table.csv`: a figure with the ends of its 95% interval; None: not measured."""

    member: int
    name: str
    status: str
    settings: dict[str, Any]
    steps: int
    seconds: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    margin: float | None
    margin_low: float | None
    margin_high: float | None
    log_odds_change: float | None
    log_odds_change_low: float | None
    log_odds_change_high: float | None
    loss_change: float | None
    chosen_logp_change: float | None
    kl: float | None
    kl_standard_error: float | None
    reward_change: float | None
    reward_change_low: float | None
    reward_change_high: float | None
    message: str | None


def table_row(member: MemberFigures) -> TableRow:
    """A member as a row of the table."""
    (margin, change, reward) = map(_flat, (member.margin, member.change, member.reward_change))
    low, high = member.accuracy_interval or (None, None)
    return TableRow(
        member=member.record.number,
        name=member.record.name,
        status=member.record.status,
        settings=member.record.settings,
        steps=member.steps,
        seconds=member.seconds,
        accuracy=member.accuracy,
        accuracy_low=low,
        accuracy_high=high,
        margin=margin[0],
        margin_low=margin[1],
        margin_high=margin[2],
        log_odds_change=change[0],
        log_odds_change_low=change[1],
        log_odds_change_high=change[2],
        loss_change=member.loss_change.mean if member.loss_change is not None else None,
        chosen_logp_change=member.chosen_change.mean if member.chosen_change is not None else None,
        kl=member.kl.mean if member.kl is not None else None,
        kl_standard_error=member.kl.standard_error if member.kl is not None else None,
        reward_change=reward[0],
        reward_change_low=reward[1],
        reward_change_high=reward[2],
        message=member.record.message,
    )


def table_csv(rows: list[TableRow], options: tuple[str, ...]) -> str:
    """The table for a spreadsheet: a column for each swept option, empty where something was not measured."""
    names = [name for name in TableRow.__slots__ if name != "settings"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names[:2], *options, *names[2:]])
    for row in rows:
        values = [getattr(row, name) for name in names]
        swept = [row.settings.get(option) for option in options]
        writer.writerow([*values[:2], *swept, *values[2:]])
    return text.getvalue()


def interval_words(interval: Interval | None) -> str:
    """`0.1 to 0.3`; nothing where there is none."""
    return "" if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def _flat(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    if estimate is None:
        return None, None, None
    low, high = estimate.interval or (None, None)
    return estimate.mean, low, high
