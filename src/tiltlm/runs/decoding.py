"""From parsed JSON to the types of `records`."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")


class MalformedError(ValueError):
    """A value is not of the declared type; the message says where it lies and what it should be."""


def decode(kind: type[Kind], value: object, where: str = "") -> Kind:
    """Returns parsed JSON as a record, a tuple, a list, a table or a plain value.

    A key that the record does not declare is left out; a missing key counts as null. `where` is
    the dotted path of the value within its file.

    Raises:
        MalformedError: the value, or one within it, is not of the declared type.
    """
    decoded: Kind = _decode(kind, value, where)
    return decoded


def _decode(kind: Any, value: object, where: str) -> Any:
    if kind is object:
        return value
    if isinstance(kind, types.UnionType):
        (inner,) = [option for option in get_args(kind) if option is not types.NoneType]
        return None if value is None else _decode(inner, value, where)
    if isinstance(kind, type) and is_dataclass(kind):
        table = _expect(dict, value, where)
        hints = _fields(kind)
        return kind(**{name: _decode(hint, table.get(name), _join(where, name)) for name, hint in hints.items()})
    if get_origin(kind) is dict:
        (_, inner) = get_args(kind)
        return {name: _decode(inner, item, _join(where, name)) for name, item in _expect(dict, value, where).items()}
    if get_origin(kind) is list:
        (inner,) = get_args(kind)
        return [_decode(inner, item, f"{where}[{index}]") for index, item in enumerate(_expect(list, value, where))]
    if get_origin(kind) is tuple:
        return _decode_tuple(get_args(kind), _expect(list, value, where), where)
    if kind is float and type(value) is int:
        return float(value)
    return _expect(kind, value, where)


def _decode_tuple(kinds: tuple[Any, ...], values: list[object], where: str) -> tuple[Any, ...]:
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(values)
    if len(kinds) != len(values):
        raise MalformedError(f"`{where}` should hold {len(kinds)} values, and holds {len(values)}")
    return tuple(
        _decode(kind, value, f"{where}[{index}]") for index, (kind, value) in enumerate(zip(kinds, values, strict=True))
    )


def _expect(kind: type[Kind], value: object, where: str) -> Kind:
    # `type` rather than `isinstance`: to Python, True is an int.
    if type(value) is kind:
        return value
    words = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    words |= {list: "a list", dict: "a table"}
    subject = f"`{where}`" if where else "it"
    if value is None:
        raise MalformedError(f"{subject} is missing; it should be {words[kind]}")
    raise MalformedError(f"{subject} should be {words[kind]}, and is {value!r:.60}")


@cache
def _fields(record: type) -> Mapping[str, Any]:
    return get_type_hints(record)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
