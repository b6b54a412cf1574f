"""The text below each option in the source, for help and for the example file."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from types import MappingProxyType
from typing import Any, get_type_hints


def option_texts(kind: Any) -> dict[str, str]:
    """The text of each field of a dataclass, on one line: as it was declared, or else from below it in the source."""
    declared = getattr(kind, "__pydantic_fields__", {})
    written = {} if declared else _texts_below(kind)
    texts = {name: field.description or "" for name, field in declared.items()} | written
    return {name: " ".join(text.split()) for name, text in texts.items()}


def explain(kind: Any) -> None:
    """Hands the texts of a dataclass of options, and of its sections, to tyro, each as one paragraph.

    Left to itself, tyro keeps the line breaks that the source has.
    """
    sections: list[Any] = [hint for hint in get_type_hints(kind).values() if dataclasses.is_dataclass(hint)]
    for section in sections or [kind]:
        texts = option_texts(section)
        for field in dataclasses.fields(section):
            field.metadata = MappingProxyType({**field.metadata, "help": texts[field.name]})


def _texts_below(kind: Any) -> dict[str, str]:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    texts = {}
    for option, text in zip(node.body, node.body[1:], strict=False):
        if isinstance(option, ast.AnnAssign) and isinstance(option.target, ast.Name):
            assert isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant), option.target.id
            texts[option.target.id] = str(text.value.value)
    return texts
