"""Training in rounds: sample, judge, pair, train, and again. Each round is a stage of the run, with its own report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tiltlm.config import Config
from tiltlm.config.judge_words import NONE
from tiltlm.config.recipes import Recipe
from tiltlm.config.resuming import Resume
from tiltlm.config.round_stages import round_folder
from tiltlm.config.validation import ready
from tiltlm.evaluation.frontier import Answered, frontier
from tiltlm.judges.choosing import JudgeOptions, chosen_judge, pointwise_judge
from tiltlm.judges.labels import Labels
from tiltlm.pipeline.held_out_answers import FrontierOptions, HeldOutAnswers, held_out_asked
from tiltlm.pipeline.judging import AnyJudge
from tiltlm.pipeline.models import saved_model, starting_model
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.prepare import NOTHING, prepare
from tiltlm.pipeline.ranks_at_work import DATA_REPORT
from tiltlm.pipeline.recipe_folder import whole_folder
from tiltlm.pipeline.reporter import LogReporter, Reporter
from tiltlm.pipeline.round_pairs import make_pairs, round_prompts
from tiltlm.pipeline.run import Run, train
from tiltlm.pipeline.run_frontier import FOLDER
from tiltlm.pipeline.setup import set_up
from tiltlm.report.page import write_report
from tiltlm.report.wording import estimated, number
from tiltlm.runs.earlier_stages import RECIPE
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.folder import MARKER, STAGES, RunFolder
from tiltlm.runs.lock import LOCK, locked
from tiltlm.runs.run_files import FRONTIER
from tiltlm.statistics import bootstrap_mean
from tiltlm.training.observers import Observer


@dataclass(slots=True, eq=False)
class _Course:
    """The points on the way so far, and the rewards of the reference's answers, shape (P, N)."""

    path: list[Answered] = field(default_factory=list)
    reference_PN: np.ndarray | None = None

    def gain(self) -> Estimate:
        """The held-out reward of the last round's model less that of the one before, prompt by prompt."""
        assert self.reference_PN is not None
        before = self.reference_PN if len(self.path) == 1 else self.path[-2].rewards_PM
        return bootstrap_mean((self.path[-1].rewards_PM.mean(1) - before.mean(1)).tolist())


def train_rounds(
    recipe: Recipe,
    command: Sequence[str],
    reporter: Reporter,
    observers: tuple[Observer, ...] = (),
    resume: Resume | None = None,
) -> Run:
    """Trains the rounds of a recipe, each a whole run that begins with the model of the one before.

    After each round the model answers held-out prompts, if a reward is known for single answers (comparison.reward):
    that is its point on the frontier, and decides whether there is another round (rounds.stop).

    Returns:
        The round that was trained last.

    Raises:
        TiltlmError: with what is wrong and how to mend it.
    """
    settings = [ready(recipe.settings(number)) for number in range(len(recipe.stages))]
    base = settings[0]
    judge = _judge(base)
    prepare_model(base, reporter)
    prompts = round_prompts(recipe.base, reporter)
    whole = whole_folder(recipe, settings, resume)
    course = _Course()
    for place, config in enumerate(settings):
        reporter.say(f"Round {place + 1} of {len(settings)}")
        folder, last = recipe.folder(place), place + 1 == len(settings)
        with locked(whole.path):
            make_pairs(set_up(config), prompts, judge, place, round_folder(recipe, place), reporter)
        begun = (folder / DATA_REPORT).is_file()
        goes_on = Resume(folder, resume.allowed if resume is not None else frozenset()) if begun else None
        made = whole if last else whole.stage(folder.name)
        with nullcontext() if last else locked(whole.path):  # the last one holds the whole run itself
            run = train(config, command, reporter, observers, NOTHING, goes_on, made)
        if not run.summary.completed:
            break
        if config.comparison.reward == NONE or config.comparison.prompts < 2:
            if not place:
                reporter.say(
                    "No reward is known for single answers (comparison.reward), so whether a round helped is not "
                    "measured, and all rounds are trained."
                )
            continue
        _place(base, config, place, folder, course, reporter)
        if not last and config.rounds.stop and _nothing_gained(course.gain(), reporter):
            with locked(whole.path):
                run = Run(_made_last(whole, recipe, place), run.summary)
            break
    return run


def _judge(config: Config) -> AnyJudge:
    rounds = config.rounds
    judge = chosen_judge(rounds.judge or config.comparison.reward, JudgeOptions(config.hub, model=rounds.judge_model))
    assert not isinstance(judge, Labels)  # refused as a setting
    return judge


def _place(base: Config, config: Config, place: int, folder: Path, course: _Course, reporter: Reporter) -> None:
    """Measures the round's point on the frontier, from the model before all rounds, and writes it into its report."""
    start = set_up(base)
    prompts = held_out_asked(start, prepare(start, LogReporter(), NOTHING), config.comparison.prompts)
    options = FrontierOptions(len(prompts))
    judge = pointwise_judge(config.comparison.reward, config.hub)
    held_out = HeldOutAnswers(start, starting_model(start), prompts, judge, options, reporter)
    if course.reference_PN is None:
        course.reference_PN = held_out.of_reference()
    scorer = saved_model(set_up(config), folder / "model")
    course.path.append(held_out.of_model(f"round {place + 1}", None, scorer, folder / FOLDER / "model.jsonl"))
    found = frontier(course.reference_PN, course.path, held_out.settings)
    RunFolder(folder).write_json(FRONTIER, found)
    write_report(folder)
    point = found.path[-1]
    words = "" if point.share is None else f", {100 * point.share.mean:.0f}% of the possible gain"
    reporter.say(
        f"After round {place + 1}: held-out reward {number(point.reward.mean)} for {number(point.kl.mean)} nats{words}"
    )
    reporter.say(f"  over the model before: {estimated(course.gain())}")


def _nothing_gained(gain: Estimate, reporter: Reporter) -> bool:
    if gain.interval is None or gain.interval[0] > 0:
        return False
    reporter.say("The round gained nothing that is clear of chance, so no further round is trained (rounds.stop).")
    return True


def _made_last(whole: RunFolder, recipe: Recipe, place: int) -> Path:
    """Moves a round's files to where those of the last one belong, so that the run is whole with it. Returns its
    folder."""
    folder = recipe.folder(place)
    whole.write_json(RECIPE, Recipe(recipe.base, recipe.stages[: place + 1]).to_dict())
    for one in sorted(folder.iterdir()):
        if one.name not in (MARKER, LOCK):
            one.rename(whole.path / one.name)
    shutil.rmtree(folder)
    if not any((whole.path / STAGES).iterdir()):
        (whole.path / STAGES).rmdir()
    write_report(whole.path)
    return whole.path
