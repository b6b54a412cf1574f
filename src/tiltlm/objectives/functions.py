"""Functions as objectives: keyword arguments become settings, so that a few lines are a whole declaration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, ReferenceUpdate, Scored

Function = Callable[..., LossOutput]


class DeclarationError(ValueError):
    """A function or a value cannot be an objective; the message says why and how to mend it."""


def objective(
    needs: Needs = Needs(),  # noqa: B008, as it is frozen
    *,
    name: str | None = None,
    what: str | None = None,
    detaches: bool = False,
    moves: Callable[[Any], ReferenceUpdate] | None = None,
) -> Callable[[Function], Objective]:
    """Declares a function as an objective; its keyword arguments, each with a default, are its settings.

        @tiltlm.objective(tiltlm.Needs(counts=True))
        def mine(scored, *, beta: Annotated[float, Field(gt=0)] = 0.1): ...

    Args:
        needs: what a run must provide for it.
        name: what it is called; else as the function.
        what: one sentence on it; else the first line of the function's docstring.
        detaches: whether a part of the loss has no gradient on purpose.
        moves: how the reference moves, given the settings.

    Raises:
        DeclarationError: the function takes something else than scored sequences and settings.
    """

    def declare(function: Function) -> Objective:
        called = name or function.__name__
        first = (inspect.getdoc(function) or f"`{called}`, an objective of one's own.").partition("\n\n")[0]
        text = " ".join((what or first).split())
        settings = _settings(function, called)

        @functools.wraps(function)
        def loss(scored: Scored, own: Any) -> LossOutput:
            return function(scored, **vars(own))

        return Objective(
            name=called,
            loss=loss,
            settings=settings,
            needs=needs,
            what=text if text.endswith(".") else f"{text}.",
            detaches=detaches,
            moves=moves,
        )

    return declare


def _settings(function: Function, name: str) -> type:
    """The settings that a function's keyword arguments make up."""
    scored, *options = inspect.signature(function).parameters.values()
    if scored.kind is inspect.Parameter.KEYWORD_ONLY or any(
        option.kind is not inspect.Parameter.KEYWORD_ONLY or option.default is inspect.Parameter.empty
        for option in options
    ):
        raise DeclarationError(
            f"`{name}` must take the scored sequences, and settings as keyword arguments with defaults: "
            f"def {function.__name__}(scored, *, beta=0.1)."
        )
    hints = {option.name: _hint(function, option) for option in options}
    members = {
        "__doc__": f"What `{name}` may be given.",
        "__module__": function.__module__,
        "__annotations__": {
            option: Annotated[hint, Field(description=f"A setting of `{name}`.")] for option, hint in hints.items()
        },
        **{option.name: option.default for option in options},
    }
    config: ConfigDict = {**SETTINGS, "use_attribute_docstrings": False, "validate_default": True}
    made = dataclass(frozen=True, config=config)(type(name, (), members))
    try:
        made()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DeclarationError(f"`{name}`: the default of its setting `{first['loc'][0]}`: {first['msg']}.") from error
    return made


def _hint(function: Function, option: inspect.Parameter) -> Any:
    """A setting's type: as annotated, or that of its default; of a number without annotation any number."""
    hint = option.annotation
    if hint is inspect.Parameter.empty:
        kind = type(option.default)
        return float if kind is int else kind
    if isinstance(hint, str):
        try:
            return eval(hint, inspect.unwrap(function).__globals__)
        except NameError as error:
            raise DeclarationError(
                f"`{function.__name__}`: the type of its setting `{option.name}` is not known ({error}): import it."
            ) from error
    return hint
