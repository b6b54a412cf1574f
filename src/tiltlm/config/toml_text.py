"""Settings as the text of a TOML file."""

from __future__ import annotations

import json
import textwrap

WIDTH = 116


def toml_value(value: object) -> str:
    """A value as TOML writes it: text, numbers, lists and flat tables."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return json.dumps(value) if isinstance(value, bool) else repr(value)


def toml_comment(text: str) -> list[str]:
    """Lines of a comment."""
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)]
