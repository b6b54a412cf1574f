"""Writes the tables of docs/from-trl.md, read from what `tiltlm convert-config` goes by.

python scripts/make_from_trl_table.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tiltlm.config.from_trl import of_dpo, of_earlier, of_scripts, of_training
from tiltlm.config.from_trl.argument import Argument

TARGET = Path(__file__).parents[1] / "docs" / "from-trl.md"
HEAD = "| TRL | its default | here | |\n| --- | --- | --- | --- |\n"
TABLES = {
    "dpo": of_dpo.ARGUMENTS,
    "model": of_scripts.MODEL_ARGUMENTS,
    "data": (*of_scripts.SCRIPT_ARGUMENTS, *of_scripts.MIXTURE_ARGUMENTS, *of_scripts.COMMAND_ARGUMENTS),
    "training": of_training.ARGUMENTS,
    "earlier": of_earlier.ARGUMENTS,
}
"""The tables by what stands in the page's comment before each: `<!-- table: dpo -->`."""


def page() -> str:
    """The page's text, with its tables as the code has them."""
    text = TARGET.read_text(encoding="utf-8")
    for name, arguments in TABLES.items():
        place = re.compile(rf"(?<=<!-- table: {name} -->\n)(?:\|.*\n)*")
        (found,) = place.finditer(text)
        text = text[: found.start()] + table(arguments) + text[found.end() :]
    return text


def table(arguments: Iterable[Argument]) -> str:
    """Rows for arguments: first those with a counterpart."""
    return HEAD + "".join(f"{row(one)}\n" for one in sorted(arguments, key=_group))


def row(argument: Argument) -> str:
    """An argument's row."""
    default = "" if argument.now or argument.default in (None, "") else f"`{json.dumps(argument.default)}`"
    here = ", ".join(f"`{option}`" for option in argument.ours)
    if argument.now is None and not here:
        here = "not needed" if argument.moot else "none"
    return f"| `{argument.name}` | {default} | {here} | {argument.says} |"


def _group(argument: Argument) -> int:
    return 0 if argument.ours or argument.now else 2 if argument.moot else 1


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
