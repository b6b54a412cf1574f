"""Which examples make up which optimizer step, and their plans, made ahead of time."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

PLANS_AHEAD = 2
"""How many plans wait for the device: enough that a step never waits, few enough to need no memory."""


@dataclass(slots=True)
class Order:
    """The order of training: every pass is a new permutation of the examples, decided by (seed, pass) alone.

    A pass never leaves an example out: its last step may be smaller. Every step is known by its number, so training
    can go on from any.
    """

    examples: int
    batch: int
    seed: int
    _pass: int = field(default=-1, init=False)
    _permutation: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64), init=False)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass."""
        return math.ceil(self.examples / self.batch)

    def step(self, number: int) -> np.ndarray:
        """Numbers of the examples of a step, counted from 0."""
        epoch, part = divmod(number, self.steps_per_epoch)
        if epoch != self._pass:
            self._pass = epoch
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.examples)
        return self._permutation[part * self.batch : (part + 1) * self.batch]


def ahead(items: Iterator[Item], most: int = PLANS_AHEAD) -> Generator[Item]:
    """The same items, made by a worker thread before they are asked for, at most so many (1 or more).

    What the worker raises is raised where the item would have come. Closing the iterator ends the worker.
    """
    made: queue.SimpleQueue[tuple[Item] | BaseException] = queue.SimpleQueue()
    room, ended = threading.Semaphore(most), threading.Event()

    def work() -> None:
        try:
            while True:
                room.acquire()
                if ended.is_set():
                    return
                made.put((next(items),))
        except BaseException as error:  # raised again by the consumer, whatever it is
            made.put(error)

    worker = threading.Thread(target=work, name="plans", daemon=True)
    worker.start()
    try:
        while True:
            got = made.get()
            if isinstance(got, StopIteration):
                return
            if isinstance(got, BaseException):
                raise got
            room.release()
            yield got[0]
    finally:
        ended.set()
        room.release()
        worker.join()
