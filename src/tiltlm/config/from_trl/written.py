"""A conversion as a file of settings, and as lines for who made it."""

from __future__ import annotations

import textwrap
from itertools import groupby

from tiltlm.config.from_trl.argument import TRL
from tiltlm.config.from_trl.converting import Conversion
from tiltlm.config.from_trl.draft import Remark, RemarkKind
from tiltlm.config.from_trl.given_arguments import Given
from tiltlm.config.toml_text import WIDTH, toml_comment, toml_value
from tiltlm.text.visible import visible_line

HEADINGS: dict[RemarkKind, str] = {
    "lost": "Without a counterpart:",
    "differs": "Another thing here than there:",
    "moot": "Nothing depends on it here:",
}


def toml_text(conversion: Conversion, given: Given, source: str) -> str:
    """The file. source: what it was made of, by name."""
    head = toml_comment(
        f"Made by tiltlm convert-config from {visible_line(source)}. What that file does not say has the default of "
        f"TRL {TRL}, which is named behind it. docs/from-trl.md has the table, and what means another thing here."
    )
    lines = [*head, *(f"# {line}".rstrip() for line in ["", *report(conversion)]), ""]
    for section, settings in groupby(conversion.settings, lambda one: one.option.partition(".")[0]):
        lines.append(f"[{section}]")
        for setting in settings:
            written = f"{setting.option.partition('.')[2]} = {toml_value(setting.value)}"
            origin = ", ".join(name if name in given.values else f"{name} by default" for name in setting.names)
            lines.append(f"{written}  # {origin}")
        lines.append("")
    return "\n".join(lines)


def report(conversion: Conversion) -> list[str]:
    """What the settings leave out, as lines."""
    lines: list[str] = []
    for kind, heading in HEADINGS.items():
        remarks = conversion.said(kind)
        if remarks:
            lines += [heading, *(line for remark in remarks for line in _lines(remark))]
    return lines


def _lines(remark: Remark) -> list[str]:
    return textwrap.wrap(
        visible_line(f"{remark.argument}: {remark.says}"),
        WIDTH - 2,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
