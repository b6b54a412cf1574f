"""Settings that would have no effect beside others, or that contradict them, are refused before anything is done."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tiltlm.config.data_sources import OWN_OPTIONS, named
from tiltlm.config.judge_words import NONE
from tiltlm.config.loss_config import learns_lists
from tiltlm.config.own_loss import read_loss
from tiltlm.config.rounds_config import OF_PAIRS, RoundsConfig
from tiltlm.config.sections import ComparisonConfig, Config, DataConfig, TrainingConfig
from tiltlm.errors import ConfigError


def ready(config: Config) -> Config:
    """The settings validated, and with a home written out. An objective of a user's own that they name is read, which
    runs its code.

    Raises:
        ConfigError: see `validate`, `own_loss.read_loss`.
    """
    return validate(with_home(dataclasses.replace(config, loss=read_loss(config.loss))))


def with_home(config: Config) -> Config:
    """The settings with a home written out where no shell has seen them: in a file, or from Python."""
    if not config.run.directory.startswith("~"):
        return config
    directory = str(Path(config.run.directory).expanduser())
    return dataclasses.replace(config, run=dataclasses.replace(config.run, directory=directory))


def validate(config: Config) -> Config:
    """Returns the configuration unchanged, or says which option has no effect or contradicts another.

    Each option's own range is checked where it is declared.

    Raises:
        ConfigError: naming the option and how to mend it.
    """
    _require_effects(config)
    return config


def _require_effects(config: Config) -> None:
    training, data, comparison = config.training, config.data, config.comparison
    config.loss.require_effect()
    config.adapter.require_effect()
    _require(
        config.model.reference is None or config.loss.objective.needs.reference,
        f"model.reference has no effect on the loss `{config.loss.name}`, which needs none: remove it.",
    )
    _require(
        config.adapter.kind == "none" or config.loss.objective.moves is None,
        f"`{config.loss.name}` moves its reference towards the policy, weight by weight, and averaging the factors of "
        "adapters is not averaging weights: train all weights (remove [adapter]), or take another objective.",
    )
    _require(
        config.adapter.kind == "none" or training.parameters == "all",
        f"an adapter (adapter.kind {config.adapter.kind}) and training.parameters `{training.parameters}` both say "
        "what is trained: leave one of them out.",
    )
    _require(
        not (config.model.trust_remote_code and config.model.path == "embedded" and config.model.reference is None),
        "model.trust_remote_code has no effect on the embedded model, which brings no code: remove it.",
    )
    _require(
        data.max_prompt_length is None or data.max_prompt_length < data.max_length,
        f"data.max_prompt_length ({data.max_prompt_length}) must be below data.max_length ({data.max_length}).",
    )
    _require(
        training.optimizer == "adamw" or training.weight_decay == 0,
        f"training.weight_decay has no effect on `{training.optimizer}`: remove it, or train with adamw.",
    )
    _require(
        training.max_steps is None or training.epochs == TrainingConfig.epochs,
        "training.epochs has no effect when training.max_steps is given: remove one of them.",
    )
    _require(
        comparison.samples > 0 or comparison.temperature == ComparisonConfig.temperature,
        "comparison.temperature has no effect without sampled answers: raise comparison.samples, or remove it.",
    )
    _require(
        all(prompt.strip() for prompt in comparison.extra_prompts),
        "comparison.extra_prompts: one of the prompts is empty: there is nothing to answer.",
    )
    _require(
        data.eval is not None or data.eval_split == DataConfig.eval_split,
        "data.eval_split has no effect when data.eval is unset: name the held-out data, or remove it.",
    )
    _require(
        data.eval is None or data.eval_fraction == DataConfig.eval_fraction,
        f"data.eval_fraction has no effect when data.eval is given (it is `{data.eval}`): remove one of them.",
    )
    _require_sources(data)
    _require_rounds(config)
    if training.max_steps is not None:
        require_warmup(training.max_steps, training)


def _require_rounds(config: Config) -> None:
    """Refuses settings of rounds without rounds, and rounds without what they need."""
    rounds, comparison = config.rounds, config.comparison
    if not rounds.count:
        changed = [name for name, value in dataclasses.asdict(rounds).items() if value != getattr(RoundsConfig(), name)]
        _require(not changed, f"rounds.{changed[0] if changed else ''} has no effect without rounds: set rounds.count.")
        return
    _require(
        bool(rounds.judge) or comparison.reward != NONE,
        "rounds need somebody who judges: set rounds.judge, or comparison.reward.",
    )
    _require(
        config.loss.objective.needs.unit == "pair" or learns_lists(config.loss.name),
        f"rounds make pairs or lists, and `{config.loss.name}` learns from other examples, or is of your "
        "own: take an objective of those.",
    )
    changed = [name for name in OF_PAIRS if getattr(rounds, name) != getattr(RoundsConfig(), name)]
    _require(
        not changed or not learns_lists(config.loss.name),
        f"rounds.{changed[0] if changed else ''} has no effect on the loss `{config.loss.name}`, which learns from all "
        "answers to a prompt as one list: remove it.",
    )
    _require(
        rounds.choose != "best-worst" or rounds.most_pairs is None,
        "rounds.most_pairs has no effect with rounds.choose best-worst, which takes one pair: remove it.",
    )
    _require(
        rounds.choose != "gap" or rounds.most_pairs is not None or rounds.least_gap > 0,
        "rounds.choose gap needs rounds.most_pairs or rounds.least_gap.",
    )


def _require_sources(data: DataConfig) -> None:
    """Refuses options of one source beside several, each of which has its own."""
    if not data.source:
        return
    _require(
        data.train == DataConfig.train,
        f"data.train (`{data.train}`) has no effect beside data.source: make it one of the sources, or remove it.",
    )
    defaults = DataConfig()
    for own, option in OWN_OPTIONS.items():
        # Held-out data that are given apart are read by these options, but for the training split.
        _require(
            getattr(data, option) == getattr(defaults, option) or (data.eval is not None and own != "split"),
            f"data.{option} has no effect on data.source: write `{own}` into the table [[data.source]] that it is for.",
        )


def require_warmup(steps: int, training: TrainingConfig) -> None:
    """Refuses a warm-up that never ends: the learning rate asked for would never be reached.

    steps: optimizer steps of the whole run.

    Raises:
        ConfigError: the warm-up is longer than the run.
    """
    _require(
        training.warmup_steps <= steps,
        f"training.warmup_steps is {training.warmup_steps}, but the run has {steps} "
        f"step{'' if steps == 1 else 's'}, so training.learning_rate would never be reached: lower it to {steps} or "
        "less, or train for longer.",
    )


def places_read(config: Config) -> dict[str, Path]:
    """The local places that a run would read, by the option that names each; places of the hub are not there."""
    places = {
        "model.path": config.model.path,
        "model.reference": config.model.reference,
        "data.train": config.data.train if not config.data.source else None,
        **named(config.data.source),
        "data.eval": config.data.eval,
        "hub.folder": config.hub.folder,
    }
    keywords = {
        **dict.fromkeys(("model.path", "model.reference"), "embedded"),
        **dict.fromkeys(("data.train", "data.eval", *named(config.data.source)), "demo"),
    }
    return {
        option: Path(place)
        for option, place in places.items()
        if place is not None and place != keywords.get(option)  # a keyword means no folder of that name
    }


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
