"""The curves of a sweep's members over each other, and known reward against divergence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tiltlm.report.palette import CSS_NAMES, MEMBERS, MUTED
from tiltlm.report.plots import svg
from tiltlm.report.sweep_figures import MemberFigures
from tiltlm.runs.rows import EvalRow
from tiltlm.runs.sweep_folder import SweepRecord

DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.6), (1, 1.4), (6, 1.4, 1, 1.4), (2.4, 1, 2.4, 1, 1, 1))
MARKERS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True, slots=True)
class Look:
    """How a member is drawn in every picture: places in `MEMBERS`, and in `DASHES` and `MARKERS`."""

    colour: int
    dash: int

    @property
    def stroke(self) -> str:
        """The style of its line in the table."""
        colour = MEMBERS[self.colour]
        dashes = " ".join(f"{length * 2:g}" for length in DASHES[self.dash]) or "none"
        return f"stroke: var(--plot-{CSS_NAMES[colour]}, {colour}); stroke-dasharray: {dashes}"


def looks(record: SweepRecord) -> dict[int, Look]:
    """How each member is drawn, by its number.

    In a grid of two options and more the first decides the colour, and what the others come to the dashes.
    """
    options = list(record.values)
    if record.trials is not None or len(options) < 2 or len(record.values[options[0]]) > len(MEMBERS):
        return {
            member.number: Look(place % len(MEMBERS), place // len(MEMBERS) % len(DASHES))
            for place, member in enumerate(record.members)
        }
    found, others = {}, dict[int, int]()
    colours = {str(value): place for place, value in enumerate(record.values[options[0]])}
    for member in record.members:
        # Members whose objective does not read the option have a colour of their own.
        colour = colours.get(str(member.settings.get(options[0])), len(colours)) % len(MEMBERS)
        others[colour] = others.get(colour, -1) + 1
        found[member.number] = Look(colour, others[colour] % len(DASHES))
    return found


def curve_svgs(members: list[MemberFigures], look: dict[int, Look]) -> list[tuple[str, str]]:
    """The held-out figures on the way, as (title, svg element); empty where none was taken."""
    if not any(len(member.evaluations) > 1 for member in members):
        return []
    panels: tuple[tuple[str, str, str, Callable[[EvalRow, EvalRow], float | None]], ...] = (
        ("accuracy", "Held-out accuracy", "share of pairs", lambda row, start: row.accuracy),
        ("log-odds", "Log-odds of chosen against rejected", "nats, from the start", _log_odds_change),
        ("margin", "Implicit reward margin", "each objective's own units", lambda row, start: row.margin),
    )
    return [
        (title, svg(name, f"{title} of all members over the training steps", partial(_curves, members, look, unit, of)))
        for name, title, unit, of in panels
    ]


def frontier_svg(members: list[MemberFigures], look: dict[int, Look]) -> str | None:
    """Known reward gained against KL paid, a numbered point a member; None where fewer than two have both."""
    shown = [member for member in members if member.kl is not None and member.reward_change is not None]
    if len(shown) < 2:
        return None
    return svg("frontier", "Change of the known reward against KL from the reference", partial(_frontier, shown, look))


def on_frontier(members: list[MemberFigures]) -> list[MemberFigures]:
    """Members than which no other has at least their reward for at most their KL; by KL."""
    points = [
        (member.kl.mean, member.reward_change.mean, member)
        for member in members
        if member.kl is not None and member.reward_change is not None
    ]
    best = [
        (kl, member)
        for kl, reward, member in points
        if not any(k <= kl and r >= reward and (k, r) != (kl, reward) for k, r, _ in points)
    ]
    return [member for _, member in sorted(best, key=lambda found: found[0])]


def _curves(
    members: list[MemberFigures],
    look: dict[int, Look],
    unit: str,
    of: Callable[[EvalRow, EvalRow], float | None],
    axes: Axes,
) -> None:
    last = 1
    for member in members:
        rows = member.evaluations
        points = [(row.step, value) for row in rows if (value := of(row, rows[0])) is not None]
        if not points:
            continue
        drawn = look[member.record.number]
        (line,) = axes.plot(*zip(*points, strict=True), color=MEMBERS[drawn.colour], linewidth=1.4)
        if DASHES[drawn.dash]:
            line.set_dashes(DASHES[drawn.dash])
        last = max(last, points[-1][0])
    axes.axhline(0.5 if unit == "share of pairs" else 0, color=MUTED, linewidth=0.6, zorder=1)
    axes.set_xlim(-0.02 * last, 1.04 * last)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(unit)


def _log_odds_change(row: EvalRow, start: EvalRow) -> float | None:
    """By how much the mean log pi(chosen) - log pi(rejected) has grown since training began, in nats."""
    values = (row.chosen_logp, row.rejected_logp, start.chosen_logp, start.rejected_logp)
    if any(value is None for value in values):
        return None
    chosen, rejected, chosen_start, rejected_start = (value or 0.0 for value in values)
    return (chosen - rejected) - (chosen_start - rejected_start)


def _frontier(members: list[MemberFigures], look: dict[int, Look], axes: Axes) -> None:
    axes.axhline(0, color=MUTED, linewidth=0.6, zorder=1)
    for member in members:
        assert member.kl is not None and member.reward_change is not None
        drawn, kl, reward = look[member.record.number], member.kl, member.reward_change
        colour = MEMBERS[drawn.colour]
        if reward.interval is not None:
            axes.plot([kl.mean, kl.mean], reward.interval, color=colour, linewidth=0.9, alpha=0.5)
        if kl.standard_error is not None:
            reach = 1.96 * kl.standard_error
            axes.plot([kl.mean - reach, kl.mean + reach], [reward.mean] * 2, color=colour, linewidth=0.9, alpha=0.5)
        axes.plot([kl.mean], [reward.mean], color=colour, marker=MARKERS[drawn.dash], markersize=5)
        axes.annotate(
            str(member.record.number), (kl.mean, reward.mean), xytext=(4, 3), textcoords="offset points", fontsize=7.5
        )
    best = on_frontier(members)
    points = [(one.kl.mean, one.reward_change.mean) for one in best if one.kl and one.reward_change]
    if len(points) > 1:
        axes.plot(*zip(*points, strict=True), color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    axes.set_xlabel("KL from the reference, nats per answer")
    axes.set_ylabel("change of the known reward")
