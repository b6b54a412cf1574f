"""The file of settings that a command line names: TOML, or the record of an earlier run; else what it seems to be."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Set
from pathlib import Path

from tiltlm import demo
from tiltlm.config import Config, load_config
from tiltlm.config.recipes import Recipe, load_recipe
from tiltlm.config.tables import settings_of_run
from tiltlm.errors import ConfigError
from tiltlm.runs.folder import MARKER

DATA_NAME = re.compile(r"\.(jsonl?|ndjson|csv|tsv|parquet|arrow|feather|txt)(\.(gz|xz|zst|bz2|zip))?$", re.IGNORECASE)
"""How files of data are called."""


def settings_without_file(named: Set[str]) -> Config:
    """Those to start from where no file is named: the demo's, unless data are.

    named: the options that flags set.
    """
    return Config() if {"data.train", "data.source"} & named else load_config(demo.CONFIG)


def read_settings(word: str) -> tuple[Recipe, bool]:
    """The settings in a file, and whether they name the run. Those of an earlier run do not: its name is taken."""
    path = Path(word).expanduser()
    if path.is_dir():
        raise ConfigError(_not_settings_folder(word, path))
    if path.suffix.lower() in (".yaml", ".yml"):
        raise ConfigError(
            f"`{word}`: settings are TOML, not YAML: configs/example.toml shows every option, and "
            f"tiltlm convert-config {word} writes them from a TRL script's."
        )
    if path.suffix.lower() == ".json" and path.is_file():
        settings = settings_of_run(path)
        if settings is not None:
            return Recipe(settings), False
    if not path.is_file() and (word == "demo" or path.suffix.lower() != ".toml"):
        looks = DATA_NAME.search(word) or word == "demo" or "/" in word
        raise ConfigError(_looks_like_data(word) if looks else f"there is no file of settings `{word}`.")
    if DATA_NAME.search(word) or (path.suffix.lower() != ".toml" and not _is_toml(path)):
        raise ConfigError(_looks_like_data(word))
    recipe = load_recipe(path)
    return recipe, path != demo.CONFIG and "name" in tomllib.loads(path.read_text(encoding="utf-8")).get("run", {})


def _is_toml(path: Path) -> bool:
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _looks_like_data(word: str) -> str:
    return f"`{word}` looks like data, not like settings: tiltlm train --data.train {word}"


def _not_settings_folder(word: str, path: Path) -> str:
    if (path / MARKER).is_file():
        return f"{path} is a run: to start from its settings, tiltlm train {path / 'config.json'}"
    if (path / "config.json").is_file():
        return f"{path} looks like a model, not like settings: tiltlm train --model.path {word}"
    return _looks_like_data(word)
