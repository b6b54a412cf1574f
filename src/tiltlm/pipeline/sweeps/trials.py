"""Trials of a sweep: which settings are tried next, and which members are stopped, by optuna.

The study is made anew for each member from the members before it, and its sampler has a seed of that member's own. So
what is drawn follows from the plan and from what ended, and a sweep that was interrupted goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tiltlm.config.sections import TrainingConfig
from tiltlm.config.sweep_plan import SweepPlan
from tiltlm.demo.packages import require
from tiltlm.runs.rows import EvalRow
from tiltlm.runs.run_files import read_evaluations
from tiltlm.runs.sweep_folder import ENDED, MemberRecord, SweepFolder
from tiltlm.training.observers import Row
from tiltlm.training.stop import StopRequest

if TYPE_CHECKING:
    import optuna

DRAWS = 50
"""How often settings are drawn again that an earlier member has."""
SURE_FROM = 4
"""Members that are run to their end before one is stopped early."""


def require_optuna() -> None:
    """Makes sure that optuna is installed.

    Raises:
        PackageError: it is not.
    """
    require(("optuna",), "--trials", "sweep")


class TrialSearch:
    """Draws members by a Tree-structured Parzen Estimator, and stops those whose best is below the others' median.

    Source: J. Bergstra et al., Algorithms for Hyper-Parameter Optimization, NIPS 2011 (optuna's TPESampler); D. Golovin
    et al., Google Vizier, KDD 2017, section 3.2.2 (the median rule, optuna's MedianPruner).
    """

    def __init__(self, plan: SweepPlan, folder: SweepFolder) -> None:
        self._plan, self._folder = plan, folder
        self._seed = plan.base.run.seed

    def draw(self, number: int, members: Sequence[MemberRecord]) -> dict[str, Any] | None:
        """Settings of the next member, which none before it has; None where none are found."""
        taken = [member.settings for member in members]
        for attempt in range(DRAWS):
            trial = self._study(members, [self._seed, number, attempt]).ask(self._distributions())
            drawn = {option: trial.params[option] for option in self._plan.swept}
            settings = self._plan.combination(drawn).settings
            if settings not in taken:
                return settings
        return None

    def watch(self, member: MemberRecord, members: Sequence[MemberRecord], stop: StopRequest) -> Watch:
        """An observer of a member's rows that stops it where its best so far is worse than the median of the others."""
        study = self._study([one for one in members if one.number < member.number], [self._seed, member.number])
        distributions = self._distributions(member.settings)
        study.enqueue_trial(member.settings)
        watch = Watch(
            study.ask(distributions), self._plan.metric, self._plan.combination(member.settings).config.training, stop
        )
        for row in read_evaluations(self._folder.member(member)):
            watch.report(row)
        return watch

    def _study(self, members: Sequence[MemberRecord], seeds: Sequence[int]) -> optuna.Study:
        import numpy as np
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=SURE_FROM),
            direction="minimize" if self._plan.metric == "loss" else "maximize",
        )
        states = {
            "completed": optuna.trial.TrialState.COMPLETE,
            "pruned": optuna.trial.TrialState.PRUNED,
            "failed": optuna.trial.TrialState.FAIL,
        }
        for member in members:
            if member.status in ENDED:
                state = states[member.status]
                if member.status == "completed" and member.value is None:
                    state = optuna.trial.TrialState.FAIL
                rows = read_evaluations(self._folder.member(member))
                reported = {row.step: figure for row in rows if (figure := getattr(row, self._plan.metric)) is not None}
                study.add_trial(
                    optuna.trial.create_trial(
                        state=state,
                        value=member.value if state == optuna.trial.TrialState.COMPLETE else None,
                        params=member.settings,
                        distributions=self._distributions(member.settings),
                        intermediate_values=reported,
                    )
                )
        return study

    def _distributions(self, only: dict[str, Any] | None = None) -> dict[str, optuna.distributions.BaseDistribution]:
        """What each option is drawn from. only: settings of a member, which lacks those without effect."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, optuna.distributions.BaseDistribution] = {
            option: CategoricalDistribution(values) for option, values in self._plan.values.items()
        }
        for option, ends in self._plan.ranges.items():
            if ends.whole:
                found[option] = IntDistribution(int(ends.low), int(ends.high))
            else:
                found[option] = FloatDistribution(ends.low, ends.high, log=ends.logarithmic)
        return {option: kind for option, kind in found.items() if only is None or option in only}


class Watch:
    """Is given a member's rows, and asks it to stop where optuna's pruner says so.

    pruned: whether it did.
    """

    def __init__(self, trial: optuna.Trial, metric: str, training: TrainingConfig, stop: StopRequest) -> None:
        self.pruned = False
        self._trial, self._metric, self._training, self._stop = trial, metric, training, stop
        self._reported: set[int] = set()

    def __call__(self, row: Row) -> None:
        if not isinstance(row, EvalRow) or not self.report(row) or self._is_last(row):
            return
        if self._trial.should_prune():
            self.pruned = self._stop.requested = True

    def report(self, row: EvalRow) -> bool:
        """Tells the trial of an evaluation after training began, once. Whether it did."""
        figure = getattr(row, self._metric)
        if figure is None or row.step == 0 or row.step in self._reported:
            return False
        self._reported.add(row.step)
        self._trial.report(figure, row.step)
        return True

    def _is_last(self, row: EvalRow) -> bool:
        steps = self._training.max_steps
        return row.step >= steps if steps is not None else row.epoch >= self._training.epochs
