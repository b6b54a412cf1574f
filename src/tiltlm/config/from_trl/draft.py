"""What a conversion comes to, while it is made: settings, and remarks on what they leave out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from tiltlm.config.from_trl.given_arguments import ARGUMENTS, Given
from tiltlm.config.tables import option_types

RemarkKind = Literal["lost", "differs", "moot"]


@dataclass(frozen=True, slots=True)
class Setting:
    """An option with its value, and the arguments that it comes from."""

    option: str
    value: Any
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remark:
    """What is to be known of an argument, in a sentence.

    kind: `lost`: what it asks for is not done; `differs`: it means something else here; `moot`: nothing depends on it.
    """

    kind: RemarkKind
    argument: str
    says: str


@dataclass(slots=True)
class Draft:
    """Settings so far.

    pairs: training pairs, where they are known, to turn shares of a run into steps. processes: how many trained at
        once.
    """

    given: Given
    pairs: int | None = None
    processes: int = 1
    settings: dict[str, Setting] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def set(self, option: str, value: Any, *names: str) -> None:
        """Sets an option, for the sake of arguments; one that this version does not have is named instead."""
        if option in _option_types():
            self.settings[option] = Setting(option, value, names)
            self.seen.update(names)
        else:
            for name in names:
                self.remark("lost", name, f"This version of tiltlm has no {option}.")

    def remark(self, kind: RemarkKind, name: str, says: str) -> None:
        """Says something of an argument, with its value."""
        self.remarks.append(Remark(kind, self.given.shown(name) if name in ARGUMENTS else name, says))
        self.seen.add(name)

    def name_unused(self) -> None:
        """Names each argument that is given, asks for something, and has not come up."""
        for name, value in self.given.values.items():
            argument = ARGUMENTS[name]
            if name in self.seen or not argument.asks(value):
                continue
            if argument.ours:
                self.remark("moot", name, "Without effect beside the others, in TRL too.")
            else:
                self.remark("moot" if argument.moot else "lost", name, argument.says)

    @property
    def batch(self) -> int:
        """Pairs in a step."""
        given = self.given
        return int(given["per_device_train_batch_size"] * given["gradient_accumulation_steps"] * max(1, self.processes))

    @property
    def pass_steps(self) -> int | None:
        """Optimizer steps of a pass over the pairs, where their number is known."""
        return None if self.pairs is None or self.batch < 1 else math.ceil(self.pairs / self.batch)

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the run, where they are known."""
        if self.given["max_steps"] > 0:
            return int(self.given["max_steps"])
        return None if self.pass_steps is None else math.ceil(self.given["num_train_epochs"] * self.pass_steps)

    def share(self, number: float) -> int | None:
        """A number of steps, given as such or, below 1, as a share of the run's; None where that is not known."""
        if number >= 1 or number <= 0:
            return int(number)
        return None if self.steps is None else math.ceil(number * self.steps)


@lru_cache(maxsize=1)
def _option_types() -> dict[str, Any]:
    return option_types()
