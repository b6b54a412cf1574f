"""Writes configs/example.toml: every option with its default and its text, read from the package's own settings.

python scripts/make_example_config.py
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tiltlm import config
from tiltlm.config.help_texts import option_texts
from tiltlm.config.loss_config import DEFAULT, readers_of
from tiltlm.config.toml_text import toml_comment, toml_value
from tiltlm.objectives import OBJECTIVES
from tiltlm.text.type_words import alternatives

TARGET = Path(__file__).parents[1] / "configs" / "example.toml"
HEAD = """\
# Every option there is, with its default. Copy what you change; what a file leaves out keeps its default, and flags
# (--section.option value) win over the file. An option without a default stands behind a `#`, and so do the settings of
# objectives: each objective has defaults of its own, and refuses settings that it does not read.
#
#     tiltlm train settings.toml
"""


def example() -> str:
    """The file's text."""
    defaults = config.Config()
    sections = [HEAD]
    for section in dataclasses.fields(defaults):
        kind = type(getattr(defaults, section.name))
        hints, texts = get_type_hints(kind), option_texts(kind)
        lines = [*toml_comment((kind.__doc__ or "").strip()), f"[{section.name}]"]
        for option in dataclasses.fields(kind):
            value = getattr(getattr(defaults, section.name), option.name)
            lines += ["", *toml_comment(_described(texts[option.name], hints[option.name]))]
            lines.append(
                f"{option.name} = {toml_value(value)}" if value is not None else _unset(section.name, option.name)
            )
        sections.append("\n".join(lines) + "\n")
    return "\n".join(sections)


def _unset(section: str, option: str) -> str:
    """An option without a default, behind a `#`; that of an objective with the default of one that reads it."""
    if section != "loss":
        return f"# {option} ="
    readers = readers_of(option, OBJECTIVES)
    reader = OBJECTIVES[DEFAULT if DEFAULT in readers else readers[0]]
    return f"# {option} = {toml_value(getattr(reader.settings(), option))}"


def _described(text: str, hint: Any) -> str:
    choices = [choice for kind in alternatives(hint) if get_origin(kind) is Literal for choice in get_args(kind)]
    return f"{text} One of: {', '.join(choices)}." if choices else text


if __name__ == "__main__":
    TARGET.write_text(example(), encoding="utf-8")
