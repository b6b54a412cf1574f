"""The key figures at the top of the page."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tiltlm.report.learnt_from import imitates, unit
from tiltlm.report.verdict import NEGATIVE_KL
from tiltlm.report.wording import at_temperature, count, duration, number, percent, signed
from tiltlm.runs.estimates import Estimate, Interval
from tiltlm.runs.outcomes import Summary
from tiltlm.statistics import STUDIED_FROM

WIN_RATE = "Win rate after against before"


@dataclass(frozen=True, slots=True)
class Bar:
    """A share with its 95% interval, drawn on a scale from 0 to 1 with a mark at one half."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure: what it is, the figure (None: not measured), what surrounds it.

    why: of a figure that is missing, the reason, where there is more to say than that.
    """

    label: str
    value: str | None
    detail: str
    bar: Bar | None = None
    why: str = ""


def tiles(summary: Summary) -> list[Tile]:
    """The figures a reader looks for first. Those of a known reward are left out where there is none."""
    margin, memory = summary.eval_margin, summary.peak_memory_gib
    compared = [
        _share("Held-out accuracy", summary.eval_accuracy, summary.eval_accuracy_interval),
        Tile("Held-out margin", None if margin is None else signed(margin), _margin(summary)),
    ]
    return [
        *([_change_of_loss(summary)] if imitates(summary) else compared),
        Tile("Held-out loss", None if summary.eval_loss is None else number(summary.eval_loss), _first_loss(summary)),
        *(_reward_tiles(summary) if summary.reward is not None else []),
        _divergence(summary),
        Tile("Duration", None if summary.seconds is None else duration(summary.seconds), _speed(summary)),
        Tile("Peak memory", None if memory is None else f"{number(memory)} GiB", ""),
    ]


def _change_of_loss(summary: Summary) -> Tile:
    change = summary.eval_loss_change
    detail = ", ".join(part for part in ("nats per token", _interval(change)) if part)
    return Tile("Change in held-out loss", None if change is None else signed(change.mean), detail)


def _reward_tiles(summary: Summary) -> list[Tile]:
    difference = summary.reward_difference
    change = None if difference is None else signed(difference.mean)
    return [
        Tile(f"Change in reward ({summary.reward})", change, _interval(difference)),
        _of_few(_share(WIN_RATE, summary.win_rate, summary.win_rate_interval), summary),
        *_length_controlled(summary),
    ]


def _length_controlled(summary: Summary) -> list[Tile]:
    """The tile beside the win rate; none of a run whose files know of no such figure."""
    label, found = f"{WIN_RATE}, length-controlled", summary.length_controlled_win_rate
    if found is not None:
        return [_of_few(_share(label, found.mean, found.interval), summary)]
    why = summary.length_controlled_win_rate_why
    return [] if why is None else [Tile(label, None, "", why=f"{why[:1].upper()}{why[1:]}.")]


def _of_few(tile: Tile, summary: Summary) -> Tile:
    """The tile, with a word on its interval where that is of fewer prompts than such intervals were studied with."""
    prompts = summary.counted_prompts
    if tile.bar is None or prompts is None or prompts >= STUDIED_FROM:
        return tile
    return replace(tile, detail=f"{tile.detail}, a rough one: {count(prompts, 'prompt')}")


def _share(label: str, share: float | None, interval: Interval | None) -> Tile:
    if share is None or interval is None:
        return Tile(label, None if share is None else percent(share), "")
    detail = f"95% interval {percent(interval[0])} to {percent(interval[1])}"
    return Tile(label, percent(share), detail, Bar(share, *interval))


def _interval(estimate: Estimate | None) -> str:
    if estimate is None or estimate.interval is None:
        return ""
    return f"95% interval {number(estimate.interval[0])} to {number(estimate.interval[1])}"


def _divergence(summary: Summary) -> Tile:
    label, kl = "KL from the reference", summary.kl or summary.kl_at_temperature
    if kl is None:
        return Tile(label, None, "nats per answer")
    error = "" if kl.standard_error is None else f", standard error {number(kl.standard_error)}"
    below = f". {NEGATIVE_KL}" if kl.mean < 0 else ""
    return Tile(label + at_temperature(kl.temperature), number(kl.mean), f"nats per answer{error}{below}")


def _margin(summary: Summary) -> str:
    interval, seen = summary.eval_margin_interval, summary.training_margin
    parts = ["beta × nats"]
    if interval is not None:
        parts.append(f"95% interval {signed(interval[0])} to {signed(interval[1])}")
    if seen is not None:
        parts.append(f"as training saw it {signed(seen)}")
    return ", ".join(parts)


def _first_loss(summary: Summary) -> str:
    return "" if summary.first_loss is None else f"first training loss {summary.first_loss:.4f}"


def _speed(summary: Summary) -> str:
    steps = [] if summary.steps is None else [count(summary.steps, "optimizer step")]
    rate = summary.pairs_per_second
    speed = [] if rate is None else [f"{number(rate)} {unit(summary)}s per second"]
    return ", ".join(steps + speed)
