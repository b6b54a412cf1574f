"""From the words of `tiltlm sample` and `tiltlm pair` to what they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from tiltlm.cli.arguments import Arguments, name_of
from tiltlm.cli.command_line import asks_for_help, check_flags, flag_names, parse_simple
from tiltlm.cli.pair_arguments import Pair
from tiltlm.cli.sample_arguments import Sample
from tiltlm.errors import ConfigError

_USE = {
    Sample: "tiltlm sample MODEL_OR_RUN --prompts DATA --output answers.jsonl",
    Pair: "tiltlm pair JUDGED.jsonl --output pairs.jsonl",
}


def parse_sample(words: Sequence[str]) -> Sample:
    """What `tiltlm sample` is to do.

    Raises:
        ConfigError: a word is not understood, or one is missing.
        SystemExit: help was asked for, and shown.
    """
    return _parsed(Sample, words, ("prompts", "output"))


def parse_pair(words: Sequence[str]) -> Pair:
    """What `tiltlm pair` is to do; raises as `parse_sample`."""
    return _parsed(Pair, words, ("output",))


def _parsed(kind: type[Arguments], words: Sequence[str], needed: Sequence[str]) -> Arguments:
    if not asks_for_help(words):
        name = name_of(kind)
        if not words or words[0].startswith("-"):
            raise ConfigError(f"tiltlm {name} needs to know of what: {_USE[kind]}.")
        # A misspelt option is no missing one.
        check_flags(words[1:], _options(kind), f"tiltlm {name}")
        if missing := [option for option in needed if option not in flag_names(words)]:
            raise ConfigError(f"tiltlm {name} needs --{missing[0]}: {_USE[kind]}.")
    return parse_simple(kind, words, _options(kind), positional=1)


def _options(kind: type) -> dict[str, Any]:
    """The flags of a command with their types."""
    first = fields(kind)[0].name
    return {name: hint for name, hint in get_type_hints(kind).items() if name != first}
