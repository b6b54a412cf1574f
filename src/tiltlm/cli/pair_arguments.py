"""What `tiltlm pair` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

_PLAIN = tyro.conf.arg(help_behavior_hint="")


@dataclass(frozen=True)
class Pair:
    """Arguments of `tiltlm pair`."""

    judged: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="JUDGED.jsonl", help_behavior_hint="")]
    """Answers with rewards, as `tiltlm judge` leaves them."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE.jsonl", help_behavior_hint="")]
    """The pairs, for `tiltlm train --data.train FILE.jsonl`. The account goes to FILE.jsonl.report.json beside."""
    choose: Literal["all", "best-worst", "gap"] = "all"
    """`all`: every two answers of a prompt. `best-worst`: of each prompt the two whose rewards are furthest apart.
    `gap`: those furthest apart, as many as --most-pairs says, or as --least-gap leaves."""
    least_gap: float = 0.0
    """Rewards nearer to each other than this make no pair; equal ones never do."""
    most_pairs: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """At most so many pairs of a prompt: with `gap` the widest, with `all` some that do not depend on the rewards."""
    longest_ratio: Annotated[float | None, tyro.conf.arg(metavar="R", help_behavior_hint="")] = None
    """Two answers of which one is more than so many times as long as the other make no pair: in tokens where the file
    has them, else in characters."""
    overwrite: Annotated[bool, _PLAIN, tyro.conf.FlagCreatePairsOff] = False
    """Replace other pairs that are in the file already."""
