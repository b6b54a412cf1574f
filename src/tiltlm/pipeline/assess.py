"""The fourth and fifth part: what the saved model is worth on held-out examples, and what it answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tiltlm.config import config_from_dict
from tiltlm.errors import RunError
from tiltlm.evaluation.comparison import Models, Prompt
from tiltlm.evaluation.prompts import extra_prompts
from tiltlm.model.finding import ModelSource
from tiltlm.model.scorer import Scorer
from tiltlm.model.weights import load_model
from tiltlm.pipeline.keeping import exact_values
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, answers_for, prompt_room, reference_source, set_up
from tiltlm.runs.answers import Comparison
from tiltlm.runs.outcomes import Evaluation
from tiltlm.runs.run_files import RunFiles, has_model
from tiltlm.training.held_out import HeldOut, evaluate_saved


def evaluate(
    setup: Setup, saved: Scorer, trained: np.ndarray | None, held_out: HeldOut, reporter: Reporter
) -> Evaluation:
    """The saved model's figures on the held-out examples, in float32.

    trained: the log-probabilities before weights were rounded, see `optimize.Trained`.
    """
    start = time.perf_counter()
    values = exact_values(setup, "the saved model", saved, held_out, reporter)
    name = str(setup.save_dtype).removeprefix("torch.")
    evaluation = evaluate_saved(values, trained, held_out, setup.objective, name, start)
    figures = evaluation.figures
    words = [f"held-out loss {figures.loss:.4f}"]
    words += [f"accuracy {figures.accuracy:.3f}"] if figures.accuracy is not None else []
    words += [f"margin {figures.margin:+.3f}"] if figures.margin is not None else []
    reporter.say(f"  in float32: {', '.join(words)}")
    return evaluation


def compare_answers(
    setup: Setup, trained: Scorer, prompts: list[Prompt], reporter: Reporter, with_reference: bool = True
) -> Comparison:
    """Answers prompts with the model as it was and as it is.

    with_reference: whether a reference other than the model as it was, named in the settings, scores the answers.
    """
    before = Scorer(load_model(setup.source, setup.device))
    reference = before
    if with_reference and setup.config.model.reference is not None:
        reference = Scorer(load_model(reference_source(setup), setup.device))
    answers = answers_for(setup)
    with reporter.progress("answering", answers.total(prompts), "passes") as advance:
        return answers.compare(Models(before, trained, reference), prompts, advance)


def ask_models(run: Path, files: RunFiles, prompts: Sequence[str], reporter: Reporter) -> Comparison:
    """Answers of a run's base model and its trained model to prompts of one's own.

    Raises:
        RunError: the run saved no model.
        ConfigError: a prompt is empty, or the chat template refuses it.
    """
    if not has_model(run):
        raise RunError(f"the run in {run} holds no trained model.")
    config = config_from_dict(files.settings)
    prepare_model(config, reporter)
    setup = set_up(config)
    asked = extra_prompts(prompts, files.data.chat, setup.tokenizer, prompt_room(setup))
    source = ModelSource(str(run / "model"), True, config.model.trust_remote_code)
    trained = Scorer(load_model(source, setup.device))
    return compare_answers(setup, trained, asked, reporter, with_reference=False)
