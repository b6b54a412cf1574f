"""The commands from Python: train, inspect, compare, frontier, with names and paths or what a program holds already.

Nothing here prints: what is done is told to Python's `logging` under the name `tiltlm`, or to a `Reporter` of yours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tiltlm.api.side_effects import leaving_no_trace
from tiltlm.config import Config, config_from_dict, load_config
from tiltlm.config.loss_config import settings_of
from tiltlm.config.own_loss import UnreadLoss, own_loss
from tiltlm.config.recipes import Recipe, load_recipe, recipe_from_dict
from tiltlm.config.resuming import Resume, in_place_of, recipe_to_resume, require_named
from tiltlm.config.tables import settings_of_run
from tiltlm.config.validation import ready
from tiltlm.data.conversion import GivenRows
from tiltlm.data.files.sources import given_name
from tiltlm.data.preparation import examine_data, read_data
from tiltlm.data.tokens.tokenization import ExampleTokenizer, check_limits
from tiltlm.errors import ConfigError, DataError, RunError
from tiltlm.model.given import Model, name_of, own_tokenizer, with_template
from tiltlm.model.loading import facts_of
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import LossOutput, Objective
from tiltlm.objectives.own_file import GIVEN, given_objective
from tiltlm.pipeline.assess import ask_models
from tiltlm.pipeline.own_answers.held_out_answers import MODEL_ANSWERS, REFERENCE_ANSWERS
from tiltlm.pipeline.own_answers.run_frontier import Asking, measure_frontier
from tiltlm.pipeline.prepare import Given
from tiltlm.pipeline.reporter import LogReporter, Reporter
from tiltlm.pipeline.run import Run
from tiltlm.pipeline.setup import set_up
from tiltlm.pipeline.stages.recipe_run import train_recipe
from tiltlm.runs.answers import Comparison
from tiltlm.runs.data_account import DataReport
from tiltlm.runs.folder import free_name
from tiltlm.runs.frontier_record import Frontier
from tiltlm.runs.run_files import read_run
from tiltlm.training.observers import Observer

Settings = Config | Mapping[str, Any] | str | Path
"""Settings as a `Config`, as nested tables like those of a TOML file, or as the path of such a file or of a run's
`config.json`. Tables and files for `train` may have stages."""

Rows = GivenRows
"""Rows of data: a list of dicts or a `datasets.Dataset`, in any of the formats of docs/data.md."""


def train(
    config: Settings | None = None,
    *,
    model: Model | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    train: str | Path | Rows | None = None,
    eval: str | Path | Rows | None = None,
    reporter: Reporter | None = None,
    objective: Objective | Callable[..., LossOutput] | None = None,
    observers: Sequence[Observer] = (),
    resume: str | Path | None = None,
    allow: Sequence[str] = (),
    auto_resume: bool = False,
) -> Run:
    """Runs a whole training, as `tiltlm train` does, and leaves its files in the run's folder.

    A model that is given is not changed: the trained one lies in `Run.model`, for `from_pretrained`.

    Args:
        config: the settings; what is not set keeps its default.
        model: in place of `config.model.path`: a name, a folder, or a loaded model, which needs its `tokenizer`.
        train, eval: in place of `config.data.train` and `config.data.eval`: a name, a path, or rows.
        reporter: is told how it goes; without one Python's `logging` is.
        objective: one of your own, in place of `config.loss.name`: an `Objective`, or a function whose keyword
            arguments are its settings (docs/objectives.md). Its settings are those of [loss].
        observers: are called with every row of the metrics as it is made (`TrainRow` or `EvalRow`); one that fails is
            named in a warning and told no more.
        resume: the folder of a run to go on with, from its last checkpoint, as if it had never stopped. Its own
            settings are used where none are given; rows and a loaded model must be given again.
        allow: with `resume`, what may be another than before though it changes the result: `data`, `model`,
            `reference`, or options by name.
        auto_resume: goes on with the run of this name where it was begun.

    Raises:
        TiltlmError: with what is wrong and how to mend it.
    """
    with leaving_no_trace():
        run = Path(resume).expanduser() if resume is not None else None
        if run is None and allow:
            raise ConfigError("`allow` has no effect without `resume`: name the run to go on with, or leave it out.")
        recipe = recipe_to_resume(run) if run is not None and config is None else _recipe(config, objective)
        if objective is not None:
            recipe = recipe.over(_with_objective(recipe.base, objective))
        elif run is not None and config is None:
            require_named(run, recipe)
        recipe.require_common(name for name, rows in (("data.train", train), ("data.eval", eval)) if rows is not None)
        settings, given = with_data(with_model(recipe.base, model, tokenizer), train, eval)
        goes_on = None
        if run is not None:
            settings, goes_on = in_place_of(run, settings), Resume(run, frozenset(allow))
        return train_recipe(
            recipe.over(settings),
            ("tiltlm.train",),
            reporter or LogReporter(),
            tuple(observers),
            given=given,
            resume=goes_on,
            auto_resume=auto_resume,
        )


def inspect(
    data: str | Path | Rows,
    config: Settings | None = None,
    *,
    model: Model | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> DataReport:
    """What is in preference data as training would see it, as `tiltlm inspect` shows it.

    Data that is not enough to train on has a report all the same.

    Args:
        data: a name, a path, or rows.
        config: the settings; those of data decide.
        model: whose tokenizer counts, as for `train`. A `tokenizer` alone will do.

    Raises:
        DataError: no example can be used.
        TiltlmError: the data or the tokenizer cannot be had.
    """
    settings, given = with_data(settings_given(config), data, None)
    settings = ready(settings)
    if isinstance(model, PreTrainedModel) or (tokenizer is not None and model is None):
        fast = with_template(own_tokenizer(tokenizer), settings.model.chat_template)
        facts = facts_of(model.config, model.generation_config, fast) if model is not None else None
        check_limits(settings.data, settings.comparison, facts.positions if facts is not None else None)
        encoder = ExampleTokenizer(fast, settings.data, facts.terminators if facts is not None else frozenset())
    else:
        with leaving_no_trace():
            encoder = set_up(with_model(settings, model, tokenizer)).tokenizer
    prepared, problem = examine_data(
        read_data(settings, settings.loss.objective.needs, given.train), encoder, lambda done: None
    )
    if problem is not None and not len(prepared.train) and not len(prepared.eval):
        raise DataError(problem)
    return prepared.report


def compare(
    run: str | Path | Run,
    prompts: Sequence[str] = (),
    *,
    trust_remote_code: bool = False,
    reporter: Reporter | None = None,
) -> Comparison:
    """Answers of a run's model before and after training, as `tiltlm compare` shows them.

    Args:
        run: the run, or its folder.
        prompts: prompts to answer now, written as the training data was; without any, the answers recorded.
        trust_remote_code: run Python code that comes with the model, if the run was trained so.

    Raises:
        RunError: the run, its model or its recorded answers are missing.
    """
    folder = _folder(run)
    files = read_run(folder)
    if prompts:
        with leaving_no_trace():
            return ask_models(folder, files, prompts, trust_remote_code, reporter or LogReporter())
    if files.comparison is None:
        raise RunError(f"the run in {folder} recorded no answers: give prompts.")
    return files.comparison


def frontier(
    run: str | Path | Run,
    *,
    reward: str | None = None,
    prompts: int | None = None,
    reference_answers: int = REFERENCE_ANSWERS,
    answers: int = MODEL_ANSWERS,
    checkpoints: bool = True,
    trust_remote_code: bool = False,
    reporter: Reporter | None = None,
) -> Frontier:
    """How close a run came to the most reward that any policy could have had at its KL, as `tiltlm frontier` measures
    it (docs/frontier.md). It is kept in the run's folder, as are all answers, which are not drawn again.

    Args:
        run: the run, or its folder.
        reward: the word of the judge whose rewards are the truth; without one that of the run.
        prompts: how many held-out prompts are answered; without a number as many as in the run.
        reference_answers, answers: to each prompt, of the reference and of each of the run's models.
        checkpoints: whether the run's checkpoints are placed too.
        trust_remote_code: run Python code that comes with the model or judges the answers, if the run was made so.

    Raises:
        RunError: the run has no model, its data are others by now, or another process is at work on it.
        ConfigError: no reward is known, or an option cannot be.
        TiltlmError: the model, the data or the judge cannot be had any more.
    """
    asking = Asking(reward, prompts, reference_answers, answers, checkpoints, trust_remote_code)
    with leaving_no_trace():
        return measure_frontier(_folder(run), asking, reporter or LogReporter())


def _folder(run: str | Path | Run) -> Path:
    return run.folder if isinstance(run, Run) else Path(run).expanduser()


def _with_objective(config: Config, objective: Objective | Callable[..., LossOutput]) -> Config:
    """The settings with an objective given in Python, whose own settings are those that the section has."""
    own = given_objective(objective)
    if isinstance(config.loss, UnreadLoss):
        options = config.loss.options
    else:
        options = {option: getattr(config.loss, option) for option in settings_of(OBJECTIVES)}
        options = {option: value for option, value in options.items() if value is not None}
    return replace(config, loss=own_loss(own, options))


def _recipe(config: Settings | None, objective: object = None) -> Recipe:
    """The settings, with the stages that they have."""
    if objective is not None and isinstance(config, Mapping) and isinstance(config.get("loss"), Mapping):
        # Settings of an objective that is given are no settings of tiltlm's.
        config = {**config, "loss": {**config["loss"], "name": f"{GIVEN}objective"}}
    if isinstance(config, Mapping):
        recipe = recipe_from_dict(config)
    elif isinstance(config, str | Path) and Path(config).suffix != ".json":
        recipe = load_recipe(Path(config).expanduser())
    else:
        recipe = Recipe(settings_given(config))
    if objective is not None and recipe.stages:
        raise ConfigError("`objective` is for one training, and these settings have stages: name its file in a stage.")
    return recipe


def settings_given(config: Settings | None) -> Config:
    """The settings, in whatever form they are given; defaults where none are."""
    if config is None:
        return Config()
    if isinstance(config, str | Path):
        path = Path(config).expanduser()
        earlier = settings_of_run(path) if path.suffix == ".json" else None
        if earlier is None:
            return load_config(path)
        # That run has its name.
        name = free_name(Path(earlier.run.directory), earlier.run.name)
        return replace(earlier, run=replace(earlier.run, name=name))
    return config if isinstance(config, Config) else config_from_dict(config)


def with_model(config: Config, model: Model | None, tokenizer: PreTrainedTokenizerBase | None) -> Config:
    """The settings with the model that is named or given."""
    if model is None and tokenizer is None:
        return config
    return replace(config, model=replace(config.model, path=name_of(model, tokenizer)))


def with_data(config: Config, train: str | Path | Rows | None, eval: str | Path | Rows | None) -> tuple[Config, Given]:
    """The settings with the data that is named, and the rows that are given."""
    data = config.data
    if train is not None:
        data = replace(data, train=_name(train))
    if eval is not None:
        data = replace(data, eval=_name(eval))
    return replace(config, data=data), Given(_rows(train), _rows(eval))


def _name(source: str | Path | Rows) -> str:
    return str(source) if isinstance(source, str | Path) else given_name(source)


def _rows(source: str | Path | Rows | None) -> Rows | None:
    return None if isinstance(source, str | Path) else source
