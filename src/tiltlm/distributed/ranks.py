"""The processes of one job, each a rank: what they tell each other. One process alone tells nobody anything."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup, distributed_c10d
from torch.distributed.distributed_c10d import Store

from tiltlm.errors import RankError

T = TypeVar("T")
LIFE = "rank {} lives"
"""What every rank sets anew every few seconds (joining.py)."""
_TIMES = itertools.count()
"""Numbers the times that ranks waited for the first one; all count alike."""
_LOOKS_EVERY = 0.05
"""Seconds between two looks whether the first rank is done."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """This process among those of its job. The functions are called by all ranks, in the same order.

    rank: its number, from 0. count: how many there are.
    beside_first: whether it runs on the machine of the first one. on_machine: how many run on its machine.
    patience: seconds after which a rank that gives no sign of life is given up.
    """

    rank: int = 0
    count: int = 1
    beside_first: bool = True
    patience: float = 600.0
    on_machine: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.count > 1

    def sum(self, values: Tensor) -> Tensor:
        """The sum of all ranks' values, in place."""
        if self.several:
            dist.all_reduce(values)
        return values

    def any(self, own: bool) -> bool:
        """Whether it holds for one of the ranks."""
        return bool(self.sum(torch.tensor(int(own)))) if self.several else own

    def gathered(self, own: T, group: ProcessGroup | None = None) -> list[T]:
        """Every rank's object, in the order of the ranks. group: see `beside`."""
        if not self.several:
            return [own]
        every: list[T | None] = [None] * self.count
        dist.all_gather_object(every, own, group=group)
        return every  # type: ignore[return-value]

    def beside(self) -> ProcessGroup | None:
        """A group by which threads of the ranks can tell each other something while the ranks do so too."""
        return dist.new_group(backend="gloo", timeout=timedelta(seconds=self.patience)) if self.several else None

    def agreed(self, own: T) -> T:
        """The first rank's object, whatever the others have."""
        if not self.several:
            return own
        held = [own if self.first else None]
        dist.broadcast_object_list(held, src=0)
        return held[0]  # type: ignore[return-value]

    def of_first(self, values: Tensor) -> Tensor:
        """The first rank's values, in place of those that the others have."""
        if self.several:
            dist.broadcast(values, src=0)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first rank makes; the others make nothing."""
        if not self.several:
            return make()
        return self.agreed(make() if self.first else None)  # type: ignore[return-value]

    @contextmanager
    def first_then_others(self) -> Iterator[None]:
        """Within, the first rank goes ahead; the others begin once it is through, however long that takes.

        Nothing within may ask anything of other ranks.
        """
        if not self.several:
            yield
            return
        store, mark = _store(), f"first through {next(_TIMES)}"
        if not self.first:
            self._wait_for({0: mark})
        yield
        if self.first:
            store.set(mark, "")

    def wait_for_first(self) -> None:
        """Returns once the first rank has come here too, however long that takes."""
        with self.first_then_others():
            pass

    def wait_for_all(self) -> None:
        """Returns once all ranks have come here, however long that takes: where one of them may have done something by
        itself, before what they do together, which would not wait so long."""
        if not self.several:
            return
        number = next(_TIMES)
        _store().set(f"{self.rank} came {number}", "")
        self._wait_for({rank: f"{rank} came {number}" for rank in range(self.count)})

    def _wait_for(self, marks: Mapping[int, str]) -> None:
        """Returns once ranks have set their marks. The first one watches all that have not, the others watch it.

        Raises:
            RankError: a rank that is watched shows no sign of life any more.
        """
        store, signs, looked = _store(), dict[int, tuple[bytes, float]](), time.monotonic()
        while not store.check(list(marks.values())):
            time.sleep(_LOOKS_EVERY)
            if (now := time.monotonic()) - looked < min(1.0, self.patience / 4):
                continue
            looked = now
            lacking = [rank for rank, mark in marks.items() if rank and not store.check([mark])]
            for rank in lacking if self.first else [0]:
                shown = store.get(LIFE.format(rank)) if store.check([LIFE.format(rank)]) else b""
                before, since = signs.get(rank, (None, now))
                if shown != before:
                    signs[rank] = shown, now
                elif now - since > self.patience:
                    raise RankError(f"rank {rank} has given no sign of life for {self.patience / 60:.3g} minutes.")


ALONE = Ranks()
"""One process, as without torchrun."""


def _store() -> Store:
    store: Store = distributed_c10d._get_default_store()
    return store
