"""What a benchmark of training speed leaves: every step's seconds, and the figures told from them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from tiltlm.runs.environment import Environment

RECORD, PICTURE = "speed.json", "speed.png"
"""The files in the folder of a benchmark."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One training, in a process of its own.

    step_seconds: of each optimizer step, the first included. losses: of the same steps.
    reference_seconds: what the reference's values of all but the first step's pairs took before training; 0 where they
        were known, or are computed within the steps.
    peak_gib: largest memory of the process: resident on a CPU, allocated on a GPU; None where it is not told.
    versions: of the packages that are not this program's own.
    """

    step_seconds: tuple[float, ...]
    losses: tuple[float, ...]
    reference_seconds: float = 0.0
    peak_gib: float | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def counted_seconds(self) -> float:
        """Of all steps but the first, with what they share of the reference's pass."""
        return sum(self.step_seconds[1:]) + self.reference_seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """A system's training in one of the rounds."""

    system: str
    round: int
    timed: Timed


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one optimizer step must compute, whoever computes it: see `arithmetic.py`.

    columns: its sequences' tokens, what they share once. scored: tokens whose probability is asked for.
    padded: tokens of the same sequences one by one, each of a half padded to its longest.
    forward: floating-point operations of a forward pass; None where the model's are not known.
    """

    columns: int
    scored: int
    padded: int
    forward: float | None


@dataclass(frozen=True, slots=True)
class SystemFigures:
    """Medians over the rounds.

    useful: operations a second that the work needs, without those that the system does besides; of_peak: the same as a
    share of the machine's matrix products.
    """

    system: str
    pairs_per_second: float
    seconds_per_step: float
    peak_gib: float | None
    useful: float | None
    of_peak: float | None


@dataclass(frozen=True, slots=True)
class Quotient:
    """One system by another: medians of the quotients of the same rounds.

    speed: of the pairs a second. memory: of the peaks.
    """

    system: str
    by: str
    speed: float
    memory: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRecord:
    """`speed.json`.

    model, data: as they were named. batch: pairs in a step. precision: the arithmetic of forward and backward passes.
    micro_batch_tokens, max_length: as in the settings. steps: in each training, the first of which is not counted.
    load_before, load_after: processes that ran or waited, a minute's average; None where the system does not tell.
    work: of the steps but the first. peaks: matrix products' operations a second in that arithmetic, of each round.
    left_out: systems that were asked for and not measured, with why.
    figures, quotients: told from the rest by `with_figures`.
    """

    environment: Environment
    model: str
    data: str
    batch: int
    steps: int
    rounds: int
    precision: str
    micro_batch_tokens: int
    max_length: int
    load_before: float | None
    load_after: float | None
    work: tuple[StepWork, ...]
    peaks: tuple[float, ...]
    measured: tuple[Measured, ...]
    left_out: dict[str, str]
    figures: tuple[SystemFigures, ...] = ()
    quotients: tuple[Quotient, ...] = ()

    @property
    def peak(self) -> float | None:
        """The most that the machine's matrix products reached: what others take from it makes them slower only."""
        return max(self.peaks, default=None)

    @property
    def systems(self) -> list[str]:
        """Those that were measured, in the order in which they were first."""
        return list(dict.fromkeys(one.system for one in sorted(self.measured, key=lambda one: one.round)))

    def of(self, system: str) -> dict[int, Timed]:
        """A system's trainings by their rounds."""
        return {one.round: one.timed for one in self.measured if one.system == system}

    def pairs_per_second(self, timed: Timed) -> float:
        """Of the steps that count."""
        return self.batch * (len(timed.step_seconds) - 1) / timed.counted_seconds


def with_figures(
    record: SpeedRecord, order: Iterable[str], live: Iterable[str], quotients: Iterable[tuple[str, str]]
) -> SpeedRecord:
    """The record with its figures.

    Args:
        order: of the systems. live: those that compute the reference's values too.
        quotients: which systems are compared, the faster first.
    """
    there, live = set(record.systems), set(live)
    figures = tuple(_figures(record, system, system in live) for system in order if system in there)
    compared = tuple(_quotient(record, a, b) for a, b in quotients if a in there and b in there)
    return dataclasses.replace(record, figures=figures, quotients=compared)


TRAINING_UNITS, REFERENCE_UNITS = 3, 1
"""Forward passes' worth that training needs, its backward pass being two, and the reference; recomputing is waste."""


def _figures(record: SpeedRecord, system: str, live: bool) -> SystemFigures:
    trainings = list(record.of(system).values())
    forward = [step.forward for step in record.work]
    useful = None
    if all(one is not None for one in forward):
        units = TRAINING_UNITS + (REFERENCE_UNITS if live else 0)
        whole = units * sum(one for one in forward if one is not None)
        useful = statistics.median(whole / timed.counted_seconds for timed in trainings)
    peaks = [timed.peak_gib for timed in trainings if timed.peak_gib is not None]
    return SystemFigures(
        system=system,
        pairs_per_second=statistics.median(record.pairs_per_second(timed) for timed in trainings),
        seconds_per_step=statistics.median(timed.counted_seconds / (record.steps - 1) for timed in trainings),
        peak_gib=statistics.median(peaks) if peaks else None,
        useful=useful,
        of_peak=None if useful is None or record.peak is None else useful / record.peak,
    )


def _quotient(record: SpeedRecord, system: str, by: str) -> Quotient:
    own, others = record.of(system), record.of(by)
    both = [(own[number], others[number]) for number in own if number in others]
    memory = [a.peak_gib / b.peak_gib for a, b in both if a.peak_gib is not None and b.peak_gib]
    return Quotient(
        system=system,
        by=by,
        speed=statistics.median(record.pairs_per_second(a) / record.pairs_per_second(b) for a, b in both),
        memory=statistics.median(memory) if memory else None,
    )
