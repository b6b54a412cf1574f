"""The section [loss]: which objective, and its settings. Made of what the objectives declare."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

import tyro
from pydantic import Field, ValidationError

from tiltlm.config.declaring import in_words, limits_of, section
from tiltlm.config.help_texts import option_texts
from tiltlm.errors import ConfigError
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import Objective
from tiltlm.objectives.own_file import OwnObjective

DEFAULT = "sigmoid"

NAMED = 4
"""How many objectives are named one by one, and explained one by one, before a text refers to `tiltlm objectives`."""


class ChosenObjective:
    """An objective by its name, with settings; one that is unset (None) has the objective's own default.

    Attributes:
        objectives: the objectives there are, by name. Not annotated, as what is annotated is an option.
        own: a user's own objective that is one of them, with its source; None without one.
    """

    objectives = OBJECTIVES
    own = cast("OwnObjective | None", None)
    name: str

    def __post_init__(self) -> None:
        self._checked({option: value for option, value in self._given().items() if option in _options(self.objective)})

    @property
    def objective(self) -> Objective:
        """What the name stands for."""
        return self.objectives[self.name]

    @property
    def settings(self) -> Any:
        """The objective's own settings, an instance of `objective.settings`.

        Raises:
            ConfigError: a setting is given that the objective does not read.
        """
        self.require_effect()
        return self._checked(self._given())

    def require_effect(self) -> None:
        """Refuses a setting that the objective does not read.

        Raises:
            ConfigError: naming the setting and the objectives that read it.
        """
        for option in self._given():
            if option not in _options(self.objective):
                names = readers_of(option, self.objectives)
                readers = " or ".join(f"`{name}`" for name in names[:NAMED])
                if len(names) > NAMED:
                    readers += f" or another of {len(names)} (`tiltlm objectives`)"
                raise ConfigError(
                    f"loss.{option} has no effect on the loss `{self.name}`: remove it, or set loss.name to {readers}."
                )

    def without_defaults(self) -> LossConfig:
        """The same, with every setting unset that has the objective's own default: so another objective's can follow.

        Raises:
            ConfigError: a setting is given that the objective does not read.
        """
        usual, own = self.objective.settings(), dataclasses.asdict(self.settings)
        changed = {option: own[option] for option in own if own[option] != getattr(usual, option)}
        section: LossConfig = type(self)(self.name, **changed)  # type: ignore[assignment, call-arg]
        return section

    def written(self) -> dict[str, Any]:
        """The section as a table, with every setting that the objective reads.

        Raises:
            ConfigError: a setting is given that the objective does not read.
        """
        return {"name": self.name, **dataclasses.asdict(self.settings)}

    def _given(self) -> dict[str, Any]:
        options = {option: getattr(self, option) for option in settings_of(self.objectives)}
        return {option: value for option, value in options.items() if value is not None}

    def _checked(self, given: dict[str, Any]) -> Any:
        try:
            return self.objective.settings(**given)
        except ValidationError as error:
            raise ConfigError(in_words(error, self.objective.settings, "loss", given)) from error


def settings_of(objectives: Mapping[str, Objective]) -> list[str]:
    """The settings of all objectives, each once."""
    return list(dict.fromkeys(option for objective in objectives.values() for option in _options(objective)))


def readers_of(option: str, objectives: Mapping[str, Objective]) -> list[str]:
    """The names of the objectives that read a setting."""
    return [name for name, objective in objectives.items() if option in _options(objective)]


def loss_section(objectives: Mapping[str, Objective], base: type = ChosenObjective) -> type:
    """The section for a table of objectives: their names, and every setting of any of them, all unset.

    base: what it is one of; LossConfig, where a table has more objectives than the field's.
    """
    annotations: dict[str, Any] = {
        "name": Annotated[Literal[tuple(objectives)], Field(description=_names_text())],
    }
    for option in settings_of(objectives):
        kind = _common_type(option, objectives)
        text = _setting_text(option, objectives)
        annotations[option] = Annotated[kind | None, Field(description=text), tyro.conf.arg(help_behavior_hint=_if_set)]
    members = {
        "__doc__": "The objective.",
        "__module__": __name__,
        "__annotations__": annotations,
        "objectives": objectives,
        "name": DEFAULT,
        **dict.fromkeys(settings_of(objectives)),
    }
    return section("loss")(type("LossConfig", (base,), members))


def _options(objective: Objective) -> list[str]:
    return [field.name for field in dataclasses.fields(objective.settings)]


def _common_type(option: str, objectives: Mapping[str, Objective]) -> Any:
    """The type of a setting, with its range where all objectives give it the same; else each checks its own."""
    settings = [objectives[name].settings for name in readers_of(option, objectives)]
    plain = [get_type_hints(kind)[option] for kind in settings]
    ranged = [get_type_hints(kind, include_extras=True)[option] for kind in settings]
    same = all(limits_of(hint) == limits_of(ranged[0]) for hint in ranged) and len(set(plain)) == 1
    return ranged[0] if same else reduce(or_, dict.fromkeys(plain))


def _names_text() -> str:
    return (
        "What is learnt from the data. `tiltlm objectives` says what each is for, `tiltlm objectives NAME` what it "
        "computes and where it comes from."
    )


def _setting_text(option: str, objectives: Mapping[str, Objective]) -> str:
    """What the objectives say of a setting, each text once, with the names and defaults of those that say it.

    Of a setting that many read, it is what most of them say; the others are named.
    """
    said: dict[str, dict[str, list[str]]] = {}
    for name in readers_of(option, objectives):
        text = _sentence(option_texts(objectives[name].settings)[option])
        default = getattr(objectives[name].settings(), option)
        said.setdefault(text, {}).setdefault(f"{default}", []).append(f"`{name}`")
    common, *others = sorted(said.items(), key=lambda one: -sum(map(len, one[1].values())))
    if len(readers_of(option, objectives)) <= NAMED:
        return " ".join(f"Of {_defaults(values)}: {text}" for text, values in (common, *others))
    text = f"{common[0]} Default of {_defaults(common[1])}."
    return f"{text} Something else of {_defaults(_merged(others))}: see `tiltlm objectives NAME`." if others else text


def _defaults(values: Mapping[str, Sequence[str]]) -> str:
    """Names by their default, the commonest first: `a`, `b` (0.1), `c` (2.0); of many names that is said of most."""
    by_number = sorted(values.items(), key=lambda one: -len(one[1]))
    return ", ".join(
        f"{'most' if place == 0 and len(names) > NAMED else ', '.join(names)} ({default})"
        for place, (default, names) in enumerate(by_number)
    )


def _merged(said: Sequence[tuple[str, Mapping[str, Sequence[str]]]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for _, values in said:
        for default, names in values.items():
            found.setdefault(default, []).extend(names)
    return found


def _if_set(default: str) -> str:
    """What help says of the value that a setting has without its flag; nothing where that is up to the objective."""
    return "" if default == "None" else f"(default: {default})"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "`", ")")) else f"{text}."


if TYPE_CHECKING:

    class LossConfig(ChosenObjective):
        """The objective, and every setting of any objective; None leaves it to the objective's own default."""

        def __init__(self, name: str = DEFAULT, **settings: Any) -> None: ...

        def __getattr__(self, option: str) -> Any: ...

else:
    LossConfig = loss_section(OBJECTIVES)


def learns_lists(name: str) -> bool:
    """Whether an objective of ours learns from all answers to a prompt as one ranked list. Of a user's own nothing is
    known before its code is run."""
    return name in OBJECTIVES and OBJECTIVES[name].needs.unit == "list"
