"""What `tiltlm bench` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tiltlm.cli.settings_argument import Settings


@dataclass(frozen=True)
class Bench:
    """Arguments of `tiltlm bench`."""

    file: Annotated[
        Path | None,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[CONFIG.toml]", help_behavior_hint="", help="As for tiltlm train."),
    ]
    settings: Settings
    systems: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="NAME ...",
            help_behavior_hint="(default: ours ours-live naive trl trl-live)",
            help="What is measured. -live: the reference is computed in the training that is timed. With --ablation "
            "ours and ours-live, and what --ablation adds.",
        ),
    ] = ()
    ablation: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help_behavior_hint="", help="Measure ours with one idea after another switched off."),
    ] = False
    rounds: Annotated[
        int, tyro.conf.arg(metavar="N", help="In each every system has its turn; figures are medians over them.")
    ] = 3
    steps: Annotated[
        int, tyro.conf.arg(metavar="N", help="Optimizer steps of each training. The first is not counted.")
    ] = 4
    batch: Annotated[
        int | None,
        tyro.conf.arg(metavar="N", help_behavior_hint="", help="Pairs in a step. Unset: training.batch_pairs."),
    ] = None
    trl_python: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="PYTHON",
            help_behavior_hint="",
            help="The interpreter of an environment that has TRL. Unset: this one.",
        ),
    ] = None
    output: Annotated[
        Path,
        tyro.conf.arg(metavar="FOLDER", help="Where speed.json and speed.png are written; neither may be there."),
    ] = Path("speed")
