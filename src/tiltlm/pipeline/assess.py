"""The fourth and fifth part: what the saved model is worth on held-out examples, and what it answers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tiltlm.config.judge_words import NONE, is_own_code
from tiltlm.config.resuming import settings_in_place
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.distributed.ranks import ALONE
from tiltlm.errors import RunError
from tiltlm.evaluation.comparison import Models, Prompt
from tiltlm.evaluation.generation import GenerationSettings
from tiltlm.evaluation.pair_surprise import chosen_examples, pair_origins
from tiltlm.evaluation.prompts import extra_prompts
from tiltlm.model.scorer import Scorer
from tiltlm.pipeline.keeping import exact_values
from tiltlm.pipeline.models import as_trained_at, fits_whole, reference_model, saved_model, starting_model
from tiltlm.pipeline.optimize import Trained
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.referencing import ReferencedData
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, answers_for, prompt_room, set_up
from tiltlm.runs.answers import Comparison
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.outcomes import Evaluation
from tiltlm.runs.pair_origins import PairOrigins
from tiltlm.runs.run_files import RunFiles, has_model
from tiltlm.training.held_out import evaluate_saved
from tiltlm.training.paired_figures import held_out_pairs
from tiltlm.training.seen import evaluate_seen, without_squares


def evaluate(setup: Setup, saved: Scorer, trained: Trained, data: ReferencedData, reporter: Reporter) -> Evaluation:
    """The saved model's figures on the held-out examples, and on some that it was trained on, in float32."""
    start = time.perf_counter()
    reference = None
    if setup.objective.needs.live:
        reference = as_trained_at(setup, reference_model(setup))
    values = exact_values(setup, "held-out examples, the saved model", saved, data.exact, reporter, reference)
    name = str(setup.save_dtype).removeprefix("torch.")
    evaluation = evaluate_saved(values, trained.values, data.exact, trained.objective, name, start)
    evaluation = dataclasses.replace(evaluation, pairs=held_out_pairs(values, data.exact, trained.objective))
    if evaluation.margin is not None:
        what = "training examples, the saved model"
        seen = exact_values(setup, what, saved, data.seen, reporter, reference, squares=True)
        own, log_squares = without_squares(seen, trained.objective)
        found = evaluate_seen(own, data.seen, values, data.exact, trained.objective, log_squares)
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
    beside: Callable[[Scorer], None] = lambda before: None,
) -> Comparison:
    """Answers prompts with the model as it was and as it is. Of several ranks each has the models whole, if it can.

    Args:
        folder, trained: of the trained model, and the model as it was loaded from there.
        with_reference: whether a reference other than the model as it was, named in the settings, scores the answers.
        beside: is given the model as it was, once it is loaded and before it answers.
    """
    other = with_reference and setup.config.model.reference is not None
    place = setup
    if setup.ranks.several and fits_whole(setup, trained, 3 if other else 2):
        place = dataclasses.replace(setup, ranks=ALONE)
        trained = saved_model(place, folder)
    before = starting_model(place)
    beside(before)
    reference = reference_model(place) if other else before
    answers = answers_for(setup)
    with reporter.progress("answering", answers.total(prompts), "answers") as advance:
        return answers.compare(Models(before, trained, reference), prompts, advance)


def look_at_origins(
    setup: Setup, seen: TokenColumns, before: Scorer, folder: RunFolder, reporter: Reporter
) -> PairOrigins | None:
    """Who wrote the training examples, as far as the model before training tells, into `origins.json`.

    None, and no file, where no samples are wanted (`comparison.samples`, `comparison.prompts`), where no answer is
    compared with another, or where no prompt leaves room for an answer.

    Args:
        seen: some of the training examples.
    """
    wanted = setup.config.comparison
    if not (wanted.samples and wanted.prompts) or setup.objective.needs.unit == "demonstration":
        return None
    examples, too_long = chosen_examples(seen, prompt_room(setup), setup.config.run.seed)
    with reporter.progress("who wrote the examples", 2 * len(examples), "prompts") as advance:
        found = pair_origins(
            before,
            setup.tokenizer.tokenizer,
            examples,
            GenerationSettings(wanted.max_new_tokens, setup.config.run.seed),
            frozenset(setup.tokenizer.terminators),
            setup.config.training.token_budget,
            too_long,
            advance,
            setup.ranks,
        )
    if found is not None:
        folder.write_json("origins.json", found)
    return found


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
