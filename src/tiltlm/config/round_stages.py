"""Rounds as the stages of a recipe: each is a training on pairs that are made before it begins."""

from __future__ import annotations

from pathlib import Path

from tiltlm.config.recipes import Recipe, Stage
from tiltlm.errors import ConfigError

ROUNDS = "rounds"
"""The folder in a run that keeps, for each round, the answers, what the judge said, and the pairs."""
ANSWERS, JUDGED, PAIRS = "answers.jsonl", "judged.jsonl", "pairs.jsonl"


def in_rounds(recipe: Recipe) -> Recipe:
    """The recipe with a stage for each round that [rounds] asks for; one without rounds, or with its stages, as it is.

    Raises:
        ConfigError: there are stages of other kinds besides.
    """
    count = recipe.base.rounds.count
    if not count:
        return recipe
    if not recipe.stages:
        return Recipe(recipe.base, tuple(_stage(recipe, number) for number in range(count)))
    if any(stage.name != _name(number) for number, stage in enumerate(recipe.stages)):
        raise ConfigError("a file has [rounds] or [[stage]], not both: train the stages first, then rounds from there.")
    return recipe


def round_folder(recipe: Recipe, number: int) -> Path:
    """Where the files of a round's pairs are, counted from 0."""
    return Path(recipe.base.run.directory) / recipe.base.run.name / ROUNDS / str(number + 1)


def _name(number: int) -> str:
    return f"round-{number + 1}"


def _stage(recipe: Recipe, number: int) -> Stage:
    data = {"train": str(round_folder(recipe, number) / PAIRS), "format": "auto", "columns": {}}
    return Stage(_name(number), {"data": data})
