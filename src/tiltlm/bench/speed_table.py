"""The tables of a benchmark: rows of cells as text, for a terminal and for a page alike."""

from __future__ import annotations

from collections.abc import Iterable

from tiltlm.bench.speed_record import SpeedRecord
from tiltlm.bench.systems import ABLATED, COMPARED, LIVE, OURS, SYSTEMS, System
from tiltlm.report.wording import number, percent

Rows = list[tuple[str, ...]]
NOT_TOLD = "–"

COMPARED_HEAD = ("", "pairs/s", "seconds a step", "peak GiB", "useful GFLOP/s", "of the peak")
QUOTIENT_HEAD = ("", "pairs/s", "peak memory")
ABLATED_HEAD = ("", "pairs/s", "of ours", "peak GiB", "of ours")


def compared_rows(record: SpeedRecord) -> Rows:
    """A row a system: its medians."""
    return [
        (
            SYSTEMS[one.system].words,
            number(one.pairs_per_second),
            number(one.seconds_per_step),
            _told(one.peak_gib),
            _told(None if one.useful is None else one.useful / 1e9),
            NOT_TOLD if one.of_peak is None else percent(one.of_peak),
        )
        for one in record.figures
        if one.system in _names(COMPARED)
    ]


def quotient_rows(record: SpeedRecord) -> Rows:
    """A row for each of our systems by each of others."""
    return [
        (f"{SYSTEMS[one.system].words} ÷ {SYSTEMS[one.by].words}", number(one.speed), _told(one.memory))
        for one in record.quotients
        if one.by != OURS
    ]


def ablated_rows(record: SpeedRecord) -> Rows:
    """Ours as it is, then a row for each idea that was switched off, with its quotients by ours."""
    by_ours = {one.system: one for one in record.quotients if one.by == OURS}
    shown = [OURS, *(name for name in (LIVE, *_names(ABLATED)) if name in by_ours)]
    figures = {one.system: one for one in record.figures}
    rows: Rows = []
    for name in shown if OURS in figures else []:
        own, quotient = figures[name], by_ours.get(name)
        speed, memory = (1.0, 1.0) if quotient is None else (quotient.speed, quotient.memory)
        rows.append(
            (SYSTEMS[name].words, number(own.pairs_per_second), number(speed), _told(own.peak_gib), _told(memory))
        )
    return rows


def _names(systems: Iterable[System]) -> list[str]:
    return [one.name for one in systems]


def _told(value: float | None) -> str:
    return NOT_TOLD if value is None else number(value)


def is_ablation(record: SpeedRecord) -> bool:
    """Whether an idea was switched off in any of the systems."""
    return any(one.system in _names(ABLATED) for one in record.figures)


def in_words(record: SpeedRecord) -> list[str]:
    """What was measured, in sentences: one a line."""
    work, peak = record.work, record.peak
    tokens = sum(step.columns for step in work) / len(work)
    padded = sum(step.padded for step in work) / len(work)
    scored = sum(step.scored for step in work) / len(work)
    lines = [
        f"{record.model} on {record.data}: {record.batch} pairs a step, at most {record.max_length} tokens a sequence, "
        f"{record.precision}; {record.environment.device}",
        f"A step has {tokens:,.0f} tokens, shared ones once ({padded:,.0f} with padding and prompts twice), of which "
        f"{scored:,.0f} are scored.",
        f"Medians over {record.rounds} rounds, each system in turn in a process of its own; {record.steps} steps, of "
        "which the first is not counted.",
    ]
    if peak is not None:
        lines.append(f"Matrix products reach {number(peak / 1e9)} GFLOP/s in {record.precision} here.")
    if any(step.forward is None for step in work):
        lines.append("Useful arithmetic is not told: the model has matrices of a kind that is not counted.")
    lines += [f"Left out: {SYSTEMS[name].words}: {why}" for name, why in record.left_out.items()]
    return lines
