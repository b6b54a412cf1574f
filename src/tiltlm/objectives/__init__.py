"""The objectives of the field, one file a family. What each of them is: `interface.Objective`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from tiltlm.objectives.interface import Objective


def gathered(package: str, folders: Iterable[str]) -> Mapping[str, Objective]:
    """The objectives that the modules of a package declare, by name, in the order of their modules' names.

    package: dotted name of the package. folders: where its modules lie, its `__path__`.

    Raises:
        ValueError: two objectives have one name, or one has another's as an alias.
    """
    found: dict[str, Objective] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(folders)):
        declared = vars(importlib.import_module(f"{package}.{name}")).values()
        for objective in (value for value in declared if isinstance(value, Objective)):
            if found.setdefault(objective.name, objective) is not objective:
                raise ValueError(
                    f"{package}.{name} declares an objective `{objective.name}`, and so does another module."
                )
    taken: dict[str, str] = {}
    for objective in found.values():
        for name in (objective.name, *objective.aliases):
            if name in taken:
                raise ValueError(
                    f"Names and aliases of objectives must differ: `{name}` is one of `{taken[name]}` and of "
                    f"`{objective.name}`, both in {package}."
                )
            taken[name] = objective.name
    return MappingProxyType(found)


OBJECTIVES = gathered(__name__, __path__)
"""Every objective by its name in the configuration. A new one is a module of this package that declares it."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {alias: objective.name for objective in OBJECTIVES.values() for alias in objective.aliases}
)
"""From what other trainers call an objective to its name here: for suggestions, never for a silent translation."""
