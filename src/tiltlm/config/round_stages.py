"""Rounds as the stages of a recipe: each is a training on pairs that are made before it begins."""

from __future__ import annotations

from pathlib import Path

from tiltlm.config.loss_config import learns_lists
from tiltlm.config.recipes import Recipe, Stage
from tiltlm.errors import ConfigError
from tiltlm.runs.folder import ROUNDS

ANSWERS, JUDGED, PAIRS, LISTS = "answers.jsonl", "judged.jsonl", "pairs.jsonl", "lists.jsonl"


def in_rounds(recipe: Recipe) -> Recipe:
    """The recipe with a stage for each round that [rounds] asks for; one without rounds as it is.

    Stages that a run's file keeps are made anew, so that they read from where the run is, wherever it was begun.

    Raises:
        ConfigError: there are stages of other kinds besides, or an option has no effect on rounds.
    """
    base = recipe.base
    if not base.rounds.count:
        return recipe
    if base.model.reference is not None:
        raise ConfigError(
            "model.reference has no effect on rounds, whose reference is the model before all of them or the one of "
            "the round before (rounds.reference): remove it."
        )
    if base.data.eval is None:
        raise ConfigError(
            "rounds need held-out data of their own, as their training pairs are made on the way: name data.eval."
        )
    if base.data.source:
        raise ConfigError("rounds answer the prompts of data.train alone: remove data.source.")
    if any(stage.name != _name(number) for number, stage in enumerate(recipe.stages)):
        raise ConfigError("a file has [rounds] or [[stage]], not both: train the stages first, then rounds from there.")
    count = len(recipe.stages) or base.rounds.count
    return Recipe(base, tuple(_stage(recipe, number) for number in range(count)))


def round_folder(recipe: Recipe, number: int) -> Path:
    """Where the files of a round's pairs are, counted from 0."""
    return Path(recipe.base.run.directory) / recipe.base.run.name / ROUNDS / str(number + 1)


def _name(number: int) -> str:
    return f"round-{number + 1}"


def _stage(recipe: Recipe, number: int) -> Stage:
    """How the common data are laid out is said of the held-out ones alone: pairs are as `tiltlm pair` leaves them,
    and lists judged answers."""
    data = recipe.base.data
    pairs = {"path": str(round_folder(recipe, number) / (LISTS if learns_lists(recipe.base.loss.name) else PAIRS))}
    held_out = {"format": data.format, "columns": dict(data.columns), "subset": data.subset}
    return Stage(_name(number), {"data": {"source": [pairs], **held_out}})
