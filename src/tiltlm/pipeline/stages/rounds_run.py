"""Training in rounds: sample, judge, pair, train, and again. Each round is a stage of the run, with its own report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tiltlm import demo
from tiltlm.answers.pair_file import NoPairsError
from tiltlm.config import Config
from tiltlm.config.judge_words import NONE, judge_word
from tiltlm.config.recipes import Recipe
from tiltlm.config.resuming import Resume
from tiltlm.config.round_stages import round_folder
from tiltlm.config.validation import ready
from tiltlm.data.conversion import load_examples
from tiltlm.data.preparation import DEMO
from tiltlm.evaluation.frontier import Answered, frontier
from tiltlm.judges.choosing import JudgeOptions, chosen_judge, pointwise_judge, require_reward
from tiltlm.judges.labels import Labels
from tiltlm.objectives.interface import Needs
from tiltlm.pipeline.models import saved_model, starting_model
from tiltlm.pipeline.own_answers.held_out_answers import FrontierOptions, HeldOutAnswers, held_out_asked
from tiltlm.pipeline.own_answers.judging import AnyJudge
from tiltlm.pipeline.own_answers.run_frontier import FOLDER
from tiltlm.pipeline.own_objective import say_tried
from tiltlm.pipeline.preflight import before_work
from tiltlm.pipeline.prepare import NOTHING, prepare
from tiltlm.pipeline.ranks_at_work import DATA_REPORT
from tiltlm.pipeline.reporter import LogReporter, Reporter
from tiltlm.pipeline.run import Run, train
from tiltlm.pipeline.setup import set_up
from tiltlm.pipeline.stages.recipe_folder import whole_folder
from tiltlm.pipeline.stages.round_pairs import make_pairs, round_prompts
from tiltlm.pipeline.stages.rounds_end import end_after, finish_ending
from tiltlm.report.page import write_report
from tiltlm.report.wording import estimated, number
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.lock import locked
from tiltlm.runs.run_files import FRONTIER
from tiltlm.statistics import STUDIED_FROM, bootstrap_mean
from tiltlm.training.observers import Observer

FEWEST_PROMPTS = 2
"""Held-out prompts without which there is no interval."""


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

    After each round the model answers held-out prompts, if the judge rewards single answers: that is its point on the
    frontier, and decides whether there is another round (rounds.stop).

    Returns:
        The round that was trained last.

    Raises:
        TiltlmError: with what is wrong and how to mend it. What can be known before the first answer is known then.
    """
    settings = [ready(recipe.settings(number)) for number in range(len(recipe.stages))]
    judge = _looked_over(recipe.base, settings[0].loss.objective.needs, reporter, resume is not None)
    prompts = round_prompts(recipe.base, reporter)
    _say_temperatures(recipe.base, reporter)
    whole = whole_folder(recipe, settings, resume)
    ended = len(settings) < recipe.base.rounds.count
    if ended:  # and perhaps it was killed over that
        with locked(whole.path):
            finish_ending(whole, recipe)
    course, measured = _Course(), _reward(recipe.base)
    for place, config in enumerate(settings):
        reporter.say(f"Round {place + 1} of {len(settings)}")
        folder, last = recipe.folder(place), place + 1 == len(settings)
        begun = (folder / DATA_REPORT).is_file()
        try:
            with locked(whole.path):
                if not begun:
                    make_pairs(set_up(config), prompts, judge, place, round_folder(recipe, place), reporter)
        except NoPairsError as error:
            if not place:
                raise
            why = f"round {place + 1} has no pairs to learn from: {error}"
            reporter.say(f"Rounds end here, as {why}")
            return _ended(whole, recipe, place - 1, why, reporter)
        goes_on = Resume(folder, resume.allowed if resume is not None else frozenset()) if begun else None
        made = whole if last else whole.stage(folder.name)
        with nullcontext() if last else locked(whole.path):  # the last one holds the whole run itself
            run = train(config, command, reporter, observers, NOTHING, goes_on, made)
        if not run.summary.completed:
            break
        if measured is None:
            continue
        with locked(whole.path):
            _place(settings[0], config, measured, place, folder, course, reporter)
        if not (last or ended) and config.rounds.stop and _nothing_gained(course.gain(), reporter):
            return _ended(whole, recipe, place, "the last round gained nothing that is clear of chance", reporter)
    if measured is None:
        reporter.say(
            "Whether a round helped was not measured: it takes a judge of single answers (comparison.reward, or "
            f"rounds.judge) and {FEWEST_PROMPTS} held-out prompts (comparison.prompts) or more."
        )
    return run


def _say_temperatures(config: Config, reporter: Reporter) -> None:
    drawn, trained = config.rounds.temperature, config.training.temperature
    if drawn != trained:
        reporter.say(
            f"  note: answers are drawn at temperature {drawn:g} (rounds.temperature) and learnt from at {trained:g} "
            "(training.temperature), which is another distribution"
        )


def _looked_over(config: Config, needs: Needs, reporter: Reporter, goes_on: bool) -> AnyJudge:
    """The judge, once all that the rounds need is there, as far as it can be known."""
    say_tried(config.loss, reporter)
    rounds = config.rounds
    judge = chosen_judge(rounds.judge or config.comparison.reward, JudgeOptions(config.hub, model=rounds.judge_model))
    assert not isinstance(judge, Labels)  # refused as a setting
    require_reward(config.comparison.reward, config.hub)
    before_work(config, reporter, goes_on)
    data = config.data
    assert data.eval is not None
    held_out = str(demo.EVAL) if data.eval == DEMO else data.eval
    load_examples(held_out, data, config.hub, "eval", needs.unit, needs.scores)
    return judge


def _reward(config: Config) -> str | None:
    """The word of the judge by whose rewards rounds are measured; None where there is none, or nobody is asked."""
    words = [config.comparison.reward, config.rounds.judge]
    pointwise = [word for word in words if word not in ("", NONE) and judge_word(word).pointwise]
    return pointwise[0] if pointwise and config.comparison.prompts >= FEWEST_PROMPTS else None


def _place(
    base: Config, config: Config, word: str, place: int, folder: Path, course: _Course, reporter: Reporter
) -> None:
    """Measures the round's point on the frontier, from the model before all rounds, and writes it into its report.

    word: of the judge.
    """
    start = set_up(dataclasses.replace(base, data=dataclasses.replace(base.data, source=config.data.source)))
    prompts = held_out_asked(start, prepare(start, LogReporter(), NOTHING), config.comparison.prompts)
    options = FrontierOptions(len(prompts))
    judge = pointwise_judge(word, config.hub)
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
    few = "" if (gain.clusters or 0) >= STUDIED_FROM else f", which few prompts ({gain.clusters}) may be the reason of"
    reporter.say(
        f"The round gained nothing that is clear of chance{few}, so no further round is trained (rounds.stop)."
    )
    return True


def _ended(whole: RunFolder, recipe: Recipe, place: int, why: str, reporter: Reporter) -> Run:
    with locked(whole.path):
        summary = end_after(whole, recipe, place, why)
    reporter.say(f"The run is in {whole.path}, with the model of round {place + 1}.")
    return Run(whole.path, summary)
