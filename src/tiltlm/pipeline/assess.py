"""The fourth and fifth part: what the saved model is worth on held-out examples, and what it answers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from tiltlm.config.judge_words import NONE, is_own_code
from tiltlm.config.resuming import settings_in_place
from tiltlm.distributed.ranks import ALONE
from tiltlm.errors import RunError
from tiltlm.evaluation.comparison import Models, Prompt
from tiltlm.evaluation.prompts import extra_prompts
from tiltlm.model.scorer import Scorer
from tiltlm.pipeline.keeping import exact_values
from tiltlm.pipeline.models import fits_whole, reference_model, saved_model, starting_model
from tiltlm.pipeline.optimize import Trained
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.referencing import ReferencedData
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, answers_for, prompt_room, set_up
from tiltlm.runs.answers import Comparison
from tiltlm.runs.outcomes import Evaluation
from tiltlm.runs.run_files import RunFiles, has_model
from tiltlm.training.held_out import evaluate_saved
from tiltlm.training.paired_figures import held_out_pairs
from tiltlm.training.seen import evaluate_seen


def evaluate(setup: Setup, saved: Scorer, trained: Trained, data: ReferencedData, reporter: Reporter) -> Evaluation:
    """The saved model's figures on the held-out examples, and on some that it was trained on, in float32."""
    start = time.perf_counter()
    reference = None
    if setup.objective.needs.live:
        reference = reference_model(setup)
    values = exact_values(setup, "held-out examples, the saved model", saved, data.exact, reporter, reference)
    name = str(setup.save_dtype).removeprefix("torch.")
    evaluation = evaluate_saved(values, trained.values, data.exact, trained.objective, name, start)
    evaluation = dataclasses.replace(evaluation, pairs=held_out_pairs(values, data.exact, trained.objective))
    if evaluation.margin is not None:
        seen = exact_values(setup, "training examples, the saved model", saved, data.seen, reporter, reference)
        found = evaluate_seen(seen, data.seen, values, data.exact, trained.objective)
        evaluation = dataclasses.replace(evaluation, seen=found)
    figures = evaluation.figures
    words = [f"held-out loss {figures.loss:.4f}"]
    words += [f"accuracy {figures.accuracy:.3f}"] if figures.accuracy is not None else []
    words += [f"margin {figures.margin:+.3f}"] if figures.margin is not None else []
    reporter.say(f"  in float32: {', '.join(words)}")
    return evaluation


def compare_answers(
    setup: Setup,
    folder: Path,
    trained: Scorer,
    prompts: list[Prompt],
    reporter: Reporter,
    with_reference: bool = True,
) -> Comparison:
    """Answers prompts with the model as it was and as it is. Of several ranks each has the models whole, if it can.

    Args:
        folder, trained: of the trained model, and the model as it was loaded from there.
        with_reference: whether a reference other than the model as it was, named in the settings, scores the answers.
    """
    other = with_reference and setup.config.model.reference is not None
    place = setup
    if setup.ranks.several and fits_whole(setup, trained, 3 if other else 2):
        place = dataclasses.replace(setup, ranks=ALONE)
        trained = saved_model(place, folder)
    before = starting_model(place)
    reference = reference_model(place) if other else before
    answers = answers_for(setup)
    with reporter.progress("answering", answers.total(prompts), "answers") as advance:
        return answers.compare(Models(before, trained, reference), prompts, advance)


def ask_models(
    run: Path, files: RunFiles, prompts: Sequence[str], trust_remote_code: bool, reporter: Reporter
) -> Comparison:
    """Answers of a run's base model and its trained model to prompts of one's own.

    trust_remote_code: whether code that comes with the models, or a Python file that judges answers, may be run. That
        the run's own settings say so is not enough: its folder may be somebody else's.

    Raises:
        RunError: the run saved no model, or its settings ask for code that comes with a model and nobody else does.
        ConfigError: a prompt is empty, or the chat template refuses it.
    """
    if not has_model(run):
        raise RunError(f"the run in {run} holds no trained model.")
    config = settings_in_place(run, files.settings)
    if config.model.trust_remote_code and not trust_remote_code:
        raise RunError(
            f"the run in {run} was trained with model.trust_remote_code, so asking its models runs Python code that "
            "came with them: say --trust-remote-code if you trust it."
        )
    if is_own_code(config.comparison.reward) and not trust_remote_code:
        reporter.say(
            f"The run's answers were judged by a Python file, {config.comparison.reward}, which is not run because the "
            "run's folder names it: these are shown without rewards. --trust-remote-code runs it."
        )
        config = dataclasses.replace(config, comparison=dataclasses.replace(config.comparison, reward=NONE))
    prepare_model(config, reporter)
    setup = set_up(config)
    asked = extra_prompts(prompts, files.data.chat, setup.tokenizer, prompt_room(setup))
    trained = saved_model(setup, run / "model")
    return compare_answers(setup, run / "model", trained, asked, reporter, with_reference=False)
