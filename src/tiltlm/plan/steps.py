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
    """The same items, made by a worker thread before they are asked for, at most so many.

    What the worker raises is raised where the item would have come. Closing the iterator ends the worker.
    """
    made: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=most)
    ended = threading.Event()

    def offer(item: Item | None, error: BaseException | None) -> None:
        while not ended.is_set():
            try:
                made.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                offer(item, None)
                if ended.is_set():
                    return
        except BaseException as error:  # raised again by the consumer, whatever it is
            offer(None, error)
        else:
            offer(None, StopIteration())

    worker = threading.Thread(target=work, name="plans", daemon=True)
    worker.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert item is not None
            yield item
    finally:
        ended.set()
        worker.join()
