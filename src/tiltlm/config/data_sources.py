"""Where data are read from: a place, how its rows are laid out, and several places with weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import AfterValidator, BeforeValidator, Field, Strict

from tiltlm.config.column_names import ColumnNames
from tiltlm.config.declaring import section
from tiltlm.errors import ConfigError

Format = Literal[
    "auto",
    "preference",
    "dialogue",
    "chat",
    "text-chat",
    "instruction",
    "question",
    "sharegpt",
    "messages",
    "swift",
    "openai",
    "output-list",
    "shp",
    "safe-rlhf",
    "stack-exchange",
    "helpsteer3",
    "helpsteer2",
    "arena",
    "judged",
    "ranked",
    "ranked-chat",
    "labelled",
    "labelled-chat",
    "demonstration",
    "demonstration-chat",
]


def _place(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: it names no file, folder or hub id.
    """
    if not name.strip():
        raise ValueError("is empty: name something, or leave it out.")
    if "\0" in name:
        raise ValueError("holds a character that no name may have.")
    return name


Place = Annotated[str, AfterValidator(_place)]


@section("data.source")
class SourceConfig:
    """One of several places that pairs are read from."""

    path: Place
    """File or folder, hub dataset id, or `demo`."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often each of its pairs is trained on in a pass. Below 1: so many of them, drawn by the seed."""
    split: str = "train"
    """Which split of a hub dataset or data folder."""
    subset: str | None = None
    """Configuration or sub-folder of a hub dataset, or sub-folder of a data folder."""
    format: Format = "auto"
    """How rows are laid out. `auto`: recognised by their columns, and reported."""
    columns: ColumnNames = field(default_factory=dict)
    """Columns of other names: ours and theirs."""
    ranked_pairs: Literal["all", "best-worst"] = "all"
    """For ranked lists of completions: every pair of different rank, or only best against worst."""


def _as_sources(given: object) -> object:
    """The tables of a file as sources; what is something else is left as it is, to be refused.

    Raises:
        ConfigError: an option of a source is unknown, missing, of the wrong type or out of range.
    """
    if not isinstance(given, list | tuple):
        return given
    return tuple(_as_source(number, one) for number, one in enumerate(given, start=1))


def _as_source(number: int, given: object) -> object:
    if not isinstance(given, Mapping):
        return given
    if "path" not in given:
        raise ConfigError(
            f"data.source: the {number}. table [[data.source]] names no `path`: the file, folder or hub id."
        )
    options: dict[str, Any] = dict(given)
    return SourceConfig(**options)


def _of_words(words: list[str]) -> tuple[SourceConfig, ...]:
    """The sources of words such as `hh.jsonl` and `more.jsonl=0.5`; a word that is a path as it stands is one.

    Raises:
        ConfigError: there are none, or a weight is no number or out of range.
    """
    if not words:
        raise ConfigError("--data.source needs at least one PATH or PATH=WEIGHT.")
    sources = []
    for word in words:
        path, equals, weight = word.rpartition("=")
        if not equals or Path(word).expanduser().exists():
            sources.append(SourceConfig(word))
            continue
        try:
            number = float(weight)
        except ValueError:
            raise ConfigError(
                f"--data.source: `{word}` is no path, and `{weight}` no weight: write PATH or PATH=WEIGHT, for example "
                "hh.jsonl more.jsonl=0.5."
            ) from None
        sources.append(SourceConfig(path, number))
    return tuple(sources)


Sources = Annotated[
    tuple[SourceConfig, ...],
    Strict(False),
    BeforeValidator(_as_sources),
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="PATH[=WEIGHT] ...",
        instance_from_str=_of_words,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda sources: [f"{one.path}={one.weight:g}" for one in sources],
    ),
]


def named(sources: tuple[SourceConfig, ...]) -> dict[str, str]:
    """The place of each source by what it is called in messages: `data.source 2`."""
    return {f"data.source {number}": one.path for number, one in enumerate(sources, start=1)}


OWN_OPTIONS = {"split": "train_split"} | {
    option.name: option.name
    for option in dataclasses.fields(SourceConfig)
    if option.name not in ("path", "weight", "split")
}
"""The options that each source has for itself, and what they are called where there is one source."""
