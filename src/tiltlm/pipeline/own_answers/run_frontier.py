"""The frontier of a run that ended: its checkpoints and its model between the reference and the limit."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tiltlm.checkpoints.checkpoint_folder import checkpoints_in
from tiltlm.config import Config
from tiltlm.config.judge_words import NONE, is_own_code
from tiltlm.config.resuming import settings_in_place
from tiltlm.config.validation import validate
from tiltlm.data.preparation import PreparedData
from tiltlm.errors import ConfigError, RunError
from tiltlm.evaluation.frontier import Answered, frontier
from tiltlm.evaluation.prompts import held_out_prompts
from tiltlm.judges.choosing import pointwise_judge, require_reward
from tiltlm.pipeline.models import reference_model, saved_model, starting_model
from tiltlm.pipeline.own_answers.held_out_answers import (
    MODEL_ANSWERS,
    REFERENCE_ANSWERS,
    FrontierOptions,
    HeldOutAnswers,
    held_out_asked,
)
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.prepare import NOTHING, prepare
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.saved_models.exporting import export
from tiltlm.pipeline.setup import Setup, prompt_room, set_up
from tiltlm.report.frontier_words import unknown
from tiltlm.report.page import write_report
from tiltlm.runs.answers import Comparison
from tiltlm.runs.earlier_stages import RECIPE, earlier_stages, whole_run
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.frontier_record import Frontier
from tiltlm.runs.lock import locked
from tiltlm.runs.run_files import FRONTIER, RunFiles, has_model, read_run

FOLDER = "frontier"
"""The folder in a run that keeps the answers of its models."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a run is asked for its frontier. Unset: as its comparison was.

    reward: the word of a judge. prompts: how many held-out prompts. checkpoints: whether those that there are stand on
    the path; of rounds their models alone do. trusted: whether code that comes with the model, or a Python file that
    judges, may be run.
    """

    reward: str | None = None
    prompts: int | None = None
    reference_answers: int = REFERENCE_ANSWERS
    answers: int = MODEL_ANSWERS
    checkpoints: bool = True
    trusted: bool = False


def measure_frontier(run: Path, asking: Asking, reporter: Reporter) -> Frontier:
    """Measures, writes `frontier.json` and the report anew. Answers drawn before are not drawn again.

    Of a run in rounds the models of all rounds stand on the path, and the reference is the model before them all.

    Raises:
        RunError: the run has no model, its data are others by now, or another process is at work on it.
        ConfigError: no reward is known, or an option cannot be.
        TiltlmError: the model, the data or the judge cannot be had any more.
    """
    rounds = _rounds(run)
    begun = rounds[0] if rounds else run
    files = read_run(begun)
    for one in rounds or [run]:
        if not has_model(one):
            raise RunError(f"the run in {one} holds no trained model.")
    config = _settings(begun, files, asking)
    options = FrontierOptions(config.comparison.prompts, asking.reference_answers, asking.answers)
    require_reward(config.comparison.reward, config.hub)
    judge = pointwise_judge(config.comparison.reward, config.hub)
    prepare_model(config, reporter)
    setup = set_up(config)
    with locked(run):
        data = prepare(setup, reporter, NOTHING)
        _require_same_prompts(begun, files.comparison, setup, data)
        prompts = held_out_asked(setup, data, options.prompts)
        before = rounds or config.model.reference is None
        # The model as training starts from it: beneath an adapter its frozen weights may be kept in fewer bits.
        reference = starting_model(setup) if before else reference_model(setup)
        held_out = HeldOutAnswers(setup, reference, prompts, judge, options, reporter)
        reference_PN = held_out.of_reference()
        if rounds:
            path = list(_path_of_rounds(rounds, held_out, asking))
        else:
            path = list(_path(run, files, setup, held_out, asking, reporter))
        found = frontier(reference_PN, path, held_out.settings)
        RunFolder(run).write_json(FRONTIER, found)
        write_report(run)
    return found


def _rounds(run: Path) -> list[Path]:
    """The runs of the rounds ([rounds]) up to this one, in their order; none of a run that is not of rounds."""
    whole = whole_run(run)
    if not (whole / RECIPE).is_file() or not settings_in_place(run, read_run(run).settings).rounds.count:
        return []
    every = [*(path for _, path in earlier_stages(whole)), whole]
    return every[: 1 + [path.resolve() for path in every].index(run.resolve())]


def _require_same_prompts(run: Path, compared: Comparison | None, setup: Setup, data: PreparedData) -> None:
    """Refuses prompts other than those that the run answered when it ended: its data may have been changed since."""
    was = [(one.id, one.prompt) for one in compared.prompts if one.counted] if compared is not None else []
    here = held_out_prompts(data.eval_rendered, len(was), setup.tokenizer, prompt_room(setup)) if was else []
    for number, (id, prompt) in enumerate(was):
        if number >= len(here) or (here[number].id, here[number].text) != (id, prompt):
            found = f"{here[number].id!r}, {here[number].text[:60]!r}" if number < len(here) else "none"
            raise RunError(
                f"the data are not those of the run in {run}: its held-out prompt {number + 1} was {id!r}, "
                f"{prompt[:60]!r}, and there is {found}. Put the files back that it was trained with."
            )


def _settings(run: Path, files: RunFiles, asking: Asking) -> Config:
    config = settings_in_place(run, files.settings)
    if config.model.trust_remote_code and not asking.trusted:
        raise RunError(
            f"the run in {run} was trained with model.trust_remote_code, so asking its models runs Python code that "
            "came with them: say --trust-remote-code if you trust it."
        )
    reward = asking.reward or config.comparison.reward
    if reward == NONE:
        raise ConfigError(f"{unknown(files.summary)} Name a judge: --reward WORD.")
    if asking.reward is None and is_own_code(reward) and not asking.trusted:
        raise ConfigError(
            f"the run's answers were judged by a Python file, {reward}, which is not run because the run's folder "
            f"names it: say --reward {reward} if you trust it."
        )
    prompts = config.comparison.prompts if asking.prompts is None else asking.prompts
    if not prompts:
        raise ConfigError(
            "the run answered no held-out prompts (comparison.prompts is 0): say how many are to be, --prompts N."
            if asking.prompts is None
            else "--prompts 0: a frontier needs 2 prompts or more."
        )
    comparison = dataclasses.replace(config.comparison, reward=reward, prompts=prompts)
    return validate(dataclasses.replace(config, comparison=comparison))


def _path(
    run: Path, files: RunFiles, setup: Setup, held_out: HeldOutAnswers, asking: Asking, reporter: Reporter
) -> Iterator[Answered]:
    """The models that the run kept, in the order of its steps."""
    last = files.metrics.train[-1].step if files.metrics.train else None
    for checkpoint in checkpoints_in(RunFolder(run).checkpoints) if asking.checkpoints else ():
        step = int(checkpoint.name.removeprefix("step-"))
        if step == last:  # the trained model itself
            continue
        model = run / FOLDER / f".model-of-step-{step}"
        shutil.rmtree(model, ignore_errors=True)  # of a command that was killed
        export(run, str(step), model, reporter)
        scorer = saved_model(setup, model)
        yield held_out.of_model(f"step {step}", step, scorer, run / FOLDER / f"step-{step}.jsonl")
        del scorer
        shutil.rmtree(model)
    scorer = saved_model(setup, run / "model")
    yield held_out.of_model("trained", last, scorer, run / FOLDER / "model.jsonl")


def _path_of_rounds(rounds: list[Path], held_out: HeldOutAnswers, asking: Asking) -> Iterator[Answered]:
    """The models that the rounds left."""
    for number, run in enumerate(rounds, start=1):
        scorer = saved_model(set_up(_settings(run, read_run(run), asking)), run / "model")
        yield held_out.of_model(f"round {number}", None, scorer, run / FOLDER / "model.jsonl")
        del scorer
