"""Several sources as one: so much of each as its weight says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tiltlm.config import DataConfig
from tiltlm.config.data_sources import OWN_OPTIONS, SourceConfig
from tiltlm.data.conversion import Called, LoadedExamples
from tiltlm.data.examples import Example
from tiltlm.data.splitting import drawing_order
from tiltlm.data.stored_examples import JoinedExamples, some_of
from tiltlm.errors import DataError

Load = Callable[[DataConfig, Called], LoadedExamples]
"""Reads one source, given settings in which it is the only one."""


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Examples to train on, and where they come from.

    times: int64, how often each is trained on in a pass; None: once each.
    """

    examples: Sequence[Example]
    loaded: list[LoadedExamples]
    times: np.ndarray | None = None

    @staticmethod
    def alone(loaded: LoadedExamples) -> Mixture:
        """The examples of one source, each once."""
        return Mixture(loaded.examples, [loaded])

    def take(self, numbers: np.ndarray) -> Mixture:
        """Those with these numbers."""
        times = self.times[numbers] if self.times is not None else None
        return Mixture(some_of(self.examples, numbers), self.loaded, times)


def mixture(data: DataConfig, load: Load, seed: int) -> Mixture:
    """The examples of all of data.source, one source after another.

    A weight of 2.5 is each example twice, and half of them once more. Which half is drawn by the seed, prompt by
    prompt, so a larger weight adds some and takes none away; and apart from what is held out and from what limits draw,
    which so take the same share of every source.

    Raises:
        DataError: a source cannot be read, or nothing is left of it.
    """
    parts, times, loaded = list[Sequence[Example]](), list[np.ndarray](), list[LoadedExamples]()
    for number, source in enumerate(data.source, start=1):
        # Rows of a file are named by its last part, those of a folder by the files within it: two could be alike.
        prefix = f"source {number}, " if len(data.source) > 1 else ""
        found = load(_alone(data, source), Called(f"data.source {number}", prefix))
        how_often = _times(found.examples, source.weight, seed)
        used = np.flatnonzero(how_often)
        if not len(used):
            raise DataError(
                f"nothing is left of {source.path}: a weight of {source.weight:g} takes none of its "
                f"{len(found.examples)} examples: raise it, or remove the source."
            )
        left_out = len(found.examples) - len(used)
        of_all = f"{left_out} of {len(found.examples)} examples of {source.path}"
        note = f"{of_all} are left out by its weight, {source.weight:g}."
        report = dataclasses.replace(found.source, weight=source.weight)
        notes = [f"{source.path}: {one}" for one in found.notes] + ([note] if left_out else [])
        loaded.append(dataclasses.replace(found, source=report, notes=notes))
        parts.append(some_of(found.examples, used) if left_out else found.examples)
        times.append(how_often[used])
    return Mixture(JoinedExamples(parts), loaded, np.concatenate(times))


def _alone(data: DataConfig, source: SourceConfig) -> DataConfig:
    """The settings as if this source were the only one."""
    own = {option: getattr(source, name) for name, option in OWN_OPTIONS.items()}
    return dataclasses.replace(data, train=source.path, eval=None, source=(), **own)


def _times(examples: Sequence[Example], weight: float, seed: int) -> np.ndarray:
    whole, part = divmod(weight, 1)
    times = np.full(len(examples), int(whole), dtype=np.int64)
    if part:
        times[drawing_order(examples, seed, "by weight")[: round(part * len(examples))]] += 1
    return times
