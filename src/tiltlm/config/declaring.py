"""How a section of settings is declared: a frozen dataclass that checks types and ranges whoever fills it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar, cast, dataclass_transform, get_args, get_origin, get_type_hints

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from tiltlm.config.suggestions import begun_with, nearest_options, nearest_value
from tiltlm.errors import ConfigError
from tiltlm.objectives.interface import SETTINGS
from tiltlm.text.type_words import alternatives, takes

PositiveInt = Annotated[int, Field(gt=0)]
NotNegativeInt = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

Kind = TypeVar("Kind")

_SECTIONS: dict[str, type] = {}
"""The sections by name, as first declared; what another section may have meant is looked up here."""
_RANGE_ERRORS = frozenset(
    {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number", "multiple_of"}
)


@dataclass_transform(frozen_default=True)
def section(name: str) -> Callable[[type[Kind]], type[Kind]]:
    """Declares a class of options as the section of this name: its values are checked wherever they come from.

    The class fails to construct with a ConfigError that names the option, what it takes and how to mend it.
    """

    def declare(kind: type[Kind]) -> type[Kind]:
        declared: Any = dataclass(frozen=True, config=SETTINGS)(kind)
        checked, options = declared.__init__, list(declared.__pydantic_fields__)

        def construct(self: Kind, /, *values: Any, **named: Any) -> None:
            try:
                checked(self, *values, **named)
            except ValidationError as error:
                given = dict(zip(options, values, strict=False)) | named
                raise ConfigError(in_words(error, declared, name, given)) from error

        declared.__init__ = construct
        if name and "." not in name:  # a table within a section has no flags that could be meant
            _SECTIONS.setdefault(name, declared)
        return cast(type[Kind], declared)

    return declare


def in_words(error: ValidationError, kind: Any, section_name: str, given: dict[str, Any]) -> str:
    """The first thing wrong with the options of a section.

    kind: the dataclass that refused them. given: the options by name, as they were given.
    """
    first = error.errors(include_url=False)[0]
    if not first["loc"]:  # what several options are together
        return f"[{section_name}] {first['ctx']['error']}"
    what, place, known = first["type"], first["loc"][0], list(kind.__pydantic_fields__)
    if what == "unexpected_positional_argument":
        return f"[{section_name}] has fewer options than values were given. There are: {', '.join(known)}."
    option = known[place] if isinstance(place, int) else place
    if what == "unexpected_keyword_argument":
        return unknown_option(option, section_name, known)
    full = f"{section_name}.{option}".lstrip(".")
    if what == "multiple_argument_values":
        return f"{full} was given twice."
    value, hint = given.get(option), get_type_hints(kind, include_extras=True)[option]
    if what == "value_error":
        return f"{full} {first['ctx']['error']}"
    if what == "literal_error":
        return impossible_choice(full, value, hint)
    if what in _RANGE_ERRORS:
        return f"{full} must be {range_in_words(hint)}, not {value!r}."
    return f"{full} is {takes(hint)}, not {value!r}."


def unknown_option(option: str, section_name: str, known: Sequence[str]) -> str:
    """That a section has no such option, and which one was probably meant."""
    plain = option.replace("-", "_")
    near = begun_with(plain, known) or difflib.get_close_matches(plain, known, n=1, cutoff=0.5)
    if not near:
        near = nearest_options(f"{section_name}.{option}", declared_options())[:1]
    hint = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(known)}."
    where = f"option in [{section_name}]" if section_name else "section"
    return f"unknown {where}: `{option}`. {hint}"


def impossible_choice(option: str, value: object, hint: Any) -> str:
    """That an option has no such choice, and which one was probably meant."""
    kinds = alternatives(hint)
    choices = [str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    near = nearest_value(option, str(value), choices)
    meant = f" Did you mean `{near}`?" if near else ""
    return f"{option} cannot be `{value}`; it is one of {', '.join(choices)}.{meant}"


def declared_options() -> list[str]:
    """Every option declared, as `section.option`."""
    return [f"{name}.{option}" for name, kind in _SECTIONS.items() for option in get_type_hints(kind)]


def range_in_words(hint: Any) -> str:
    """The range annotated to a number: `above 0 and finite`, `between 0 and 1`, `at least 0`."""
    limits = limits_of(hint)
    if {"gt", "lt"} <= limits.keys():
        return f"between {limits['gt']} and {limits['lt']}"
    named = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    words = [f"{name} {limits[limit]}" for limit, name in named.items() if limit in limits]
    if float in alternatives(hint) and not {"lt", "le"} & limits.keys():
        words.append("finite")
    return " and ".join(words)


def limits_of(hint: Any) -> dict[str, float]:
    """The limits annotated to a number: `gt`, `ge`, `lt`, `le`."""
    names = ("gt", "ge", "lt", "le")
    return {name: getattr(note, name) for note in _notes(hint) for name in names if hasattr(note, name)}


def _notes(hint: Any) -> Iterator[Any]:
    """What is annotated to a type and to the members of a union."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        yield from _notes(inner)
        for note in notes:
            yield from note.metadata if isinstance(note, FieldInfo) else [note]
        return
    for kind in get_args(hint):
        yield from _notes(kind)
