"""What a declared type takes, in the words of people who write settings and read files."""

from __future__ import annotations

import types
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_PLAIN = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "unset"}
_MANY = {tuple: "a list", list: "a list", dict: "a table"}


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a union joins, without what is annotated to them; any other type alone."""
    if get_origin(hint) is Annotated:
        return alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(kind for part in get_args(hint) for kind in alternatives(part))
    return (hint,)


def takes(hint: Any) -> str:
    """`a number`, `a whole number or unset`, `a list of strings`, `one of all, best-worst`, `a table`."""
    return " or ".join(dict.fromkeys(_words(kind) for kind in alternatives(hint)))


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    whole = get_origin(kind) or kind
    if whole in _MANY:
        inner = set(get_args(kind)) - {Ellipsis}
        return _MANY[whole] + (" of strings" if inner == {str} else "")
    return "a table" if is_dataclass(whole) else _PLAIN.get(whole, "something else")
