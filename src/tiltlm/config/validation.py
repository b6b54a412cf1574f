"""Settings that are out of range, or that would have no effect, are refused before anything is done."""

from __future__ import annotations

import difflib
import math
from pathlib import Path

from tiltlm.config.column_names import COLUMNS
from tiltlm.config.sections import ComparisonConfig, Config, DataConfig, TrainingConfig
from tiltlm.errors import ConfigError

LONGEST_NAME = 200
"""Bytes of a run's name: file systems allow 255, and temporary folders have longer names."""


def validate(config: Config) -> Config:
    """Returns the configuration unchanged, or says which option is out of range or has no effect.

    Raises:
        ConfigError: naming the option and how to mend it.
    """
    _require_ranges(config)
    _require_effects(config)
    return config


def _require_ranges(config: Config) -> None:
    loss, training, data, comparison = config.loss, config.training, config.data, config.comparison
    _require(0 < loss.beta < math.inf, "loss.beta must be above 0 and finite; 0.1 is the paper's.")
    _require(0 <= loss.label_smoothing < 0.5, "loss.label_smoothing must be at least 0 and below 0.5.")
    positive = {
        "training.epochs": training.epochs,
        "training.batch_pairs": training.batch_pairs,
        "training.micro_batch_tokens": training.micro_batch_tokens,
        "training.learning_rate": training.learning_rate,
        "data.max_length": data.max_length,
        "comparison.max_new_tokens": comparison.max_new_tokens,
        "comparison.temperature": comparison.temperature,
    }
    optional = {
        "training.max_steps": training.max_steps,
        "data.max_train_pairs": data.max_train_pairs,
        "data.max_eval_pairs": data.max_eval_pairs,
        "data.max_prompt_length": data.max_prompt_length,
    }
    positive |= {name: value for name, value in optional.items() if value is not None}
    for name, value in positive.items():
        _require(0 < value < math.inf, f"{name} must be above 0 and finite, not {value}.")
    not_negative = {
        "training.weight_decay": training.weight_decay,
        "training.warmup_steps": training.warmup_steps,
        "training.gradient_clip": training.gradient_clip,
        "training.eval_every": training.eval_every,
        "comparison.prompts": comparison.prompts,
        "comparison.samples": comparison.samples,
        "run.seed": config.run.seed,
    }
    for name, value in not_negative.items():
        _require(value >= 0, f"{name} must not be negative, and is {value}.")
    _require(
        data.max_prompt_length is None or data.max_prompt_length < data.max_length,
        f"data.max_prompt_length ({data.max_prompt_length}) must be below data.max_length ({data.max_length}).",
    )
    _require(0 < data.eval_fraction < 1, f"data.eval_fraction must be between 0 and 1, not {data.eval_fraction}.")
    places = {
        "run.directory": config.run.directory,
        "model.path": config.model.path,
        "model.reference": config.model.reference,
        "data.train": data.train,
        "data.eval": data.eval,
        "hub.folder": config.hub.folder,
    }
    for name, place in places.items():
        _require(place is None or bool(place.strip()), f"{name} is empty: name something, or leave it out.")
        _require(place is None or "\0" not in place, f"{name} holds a character that no name may have.")
    for ours in data.columns:
        near = difflib.get_close_matches(ours, COLUMNS, n=1, cutoff=0.6)
        hint = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(COLUMNS)}."
        _require(ours in COLUMNS, f"data.columns maps to our columns, and `{ours}` is none of them. {hint}")
    name_is_folder = config.run.name and config.run.name not in (".", "..") and not set(config.run.name) & set("/\\")
    name_is_folder = name_is_folder and config.run.name.isprintable() and len(config.run.name.encode()) <= LONGEST_NAME
    _require(bool(name_is_folder), f"run.name must be a folder name, not `{config.run.name}`.")


def _require_effects(config: Config) -> None:
    loss, training, data, comparison = config.loss, config.training, config.data, config.comparison
    _require(
        loss.name == "sigmoid" or loss.label_smoothing == 0,
        f"loss.label_smoothing has no effect on the loss `{loss.name}`: remove it, or set loss.name to `sigmoid`.",
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
        data.eval is not None or data.eval_split == DataConfig.eval_split,
        "data.eval_split has no effect when data.eval is unset: name the held-out data, or remove it.",
    )
    _require(
        data.eval is None or data.eval_fraction == DataConfig.eval_fraction,
        f"data.eval_fraction has no effect when data.eval is given (it is `{data.eval}`): remove one of them.",
    )
    if training.max_steps is not None:
        require_warmup(training.max_steps, training)


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
    named = {
        "model.path": config.model.path,
        "model.reference": config.model.reference,
        "data.train": config.data.train,
        "data.eval": config.data.eval,
        "hub.folder": config.hub.folder,
    }
    keywords = {"model.path": "embedded", "model.reference": "embedded", "data.train": "demo", "data.eval": "demo"}
    return {
        option: Path(place)
        for option, place in named.items()
        if place is not None and place != keywords.get(option)  # a keyword means no folder of that name
    }


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
