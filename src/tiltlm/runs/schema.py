"""The schema of a run's files: its version, and from JSON to the declared records."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from tiltlm.text.type_words import alternatives, takes

Kind = TypeVar("Kind")

SCHEMA = 1
"""The version of the records that are written. It grows when a file's reader must know what a key has come to mean; a
key that is added or may be missing needs no new one. Files without a version were written by tiltlm 0.1."""
SCHEMA_KEY = "schema"
"""The key of the version, in every file and in every row of `metrics.jsonl`."""

_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)

# JSON's escape of half a surrogate pair, which is no text: what a model generated, or a file name that is not UTF-8.
_HALF_PAIR = re.compile(
    rb"(?<!\\)((?:\\\\)*)\\(u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|[c-fC-F][0-9a-fA-F]{2}))"
    rb"|(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)


class MalformedError(ValueError):
    """A file is not JSON, or a value is not of the declared type; the message says where, and what it should be."""


class NewerSchemaError(ValueError):
    """A file has a schema that this version of tiltlm does not know."""


@dataclass(frozen=True, slots=True)
class _Version:
    schema: Annotated[int, Field(ge=1)] | None = None


def versioned(content: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it is written: with the version of its schema first."""
    return {SCHEMA_KEY: SCHEMA, **content}


def from_json(kind: type[Kind], text: bytes) -> Kind:
    """Reads a record that `versioned` has marked, or one of before there were versions.

    A key that the record does not declare is left out. Of half a surrogate pair, JSON's escape of it is read.

    Raises:
        MalformedError: the text is not JSON, or a value is not of the declared type.
        NewerSchemaError: a later version of tiltlm wrote it.
    """
    whole = _HALF_PAIR.sub(lambda found: found[3] or found[1] + rb"\\" + found[2], text)
    if whole.lstrip()[:1] == b"{":
        require_known(_read(_Version, whole).schema)
    return _read(kind, whole)


def require_known(version: int | None) -> None:
    """Refuses a version that is later than ours.

    Raises:
        NewerSchemaError: it is.
    """
    if version is not None and version > SCHEMA:
        raise NewerSchemaError(
            f"a later version of tiltlm wrote it (its schema is {version}, and this version knows none above {SCHEMA})"
        )


def checked(kind: type[Kind], value: object) -> Kind:
    """A parsed value of plain types, such as a table of tables, as the declared type.

    Raises:
        MalformedError: it is of another.
    """
    try:
        found: Kind = _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        raise MalformedError(_in_words(error, kind)) from error
    return found


def _read(kind: type[Kind], text: bytes) -> Kind:
    try:
        found: Kind = _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise MalformedError(_in_words(error, kind)) from error
    return found


def _in_words(error: ValidationError, kind: Any) -> str:
    """The first thing that is wrong: where it lies, what should be there, and what is."""
    first = error.errors(include_url=False)[0]
    what, place, value = first["type"], first["loc"], first["input"]
    if what == "json_invalid":
        return f"it is not valid JSON ({first['ctx']['error']})"
    # A tuple of fixed length is told from a record that lacks a key by the place, a number.
    if what == "too_long" or (what == "missing" and isinstance(place[-1], int)):
        where = place if what == "too_long" else place[:-1]
        return f"{_name(where)} should hold {len(get_args(_at(kind, where)))} values, and holds {len(value)}"
    wanted = takes(_at(kind, place)) if what != "greater_than_equal" else f"at least {first['ctx']['ge']}"
    if value is None or what == "missing":
        return f"{_name(place)} is missing; it should be {wanted}"
    return f"{_name(place)} should be {wanted}, and is {value!r:.60}"


def _name(place: Sequence[int | str]) -> str:
    if not place:
        return "it"
    return "`" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".") + "`"


def _at(kind: Any, place: Sequence[int | str]) -> Any:
    """The type declared for a place within a record; that of a value which may be missing is the value's."""
    (kind, *_) = [option for option in alternatives(kind) if option is not type(None)]
    if not place:
        return kind
    step, *rest = place
    if is_dataclass(kind):
        return _at(get_type_hints(kind)[str(step)], rest)
    inner = [option for option in get_args(kind) if option is not Ellipsis]
    if get_origin(kind) is tuple and isinstance(step, int) and Ellipsis not in get_args(kind):
        return _at(inner[step], rest)
    return _at(inner[-1], rest)
