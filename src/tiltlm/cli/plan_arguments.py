"""What `tiltlm plan` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tiltlm.cli.settings_argument import Settings
from tiltlm.config.declaring import Positive, PositiveInt


@dataclass(frozen=True)
class Plan:
    """Arguments of `tiltlm plan`."""

    file: Annotated[
        Path | None,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[CONFIG.toml]", help_behavior_hint="", help="As for tiltlm train."),
    ]
    settings: Settings
    no_calibration: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help_behavior_hint="", help="Tell memory alone: no weight is loaded, and nothing is timed."),
    ] = False
    ranks: Annotated[
        PositiveInt | None,
        tyro.conf.arg(
            metavar="N",
            help_behavior_hint="",
            help="Tell also what a step takes of each of so many ranks (torchrun): memory, idle time, bytes on the "
            "wire, and how many times faster it is.",
        ),
    ] = None
    per_node: Annotated[
        PositiveInt, tyro.conf.arg(metavar="N", help="With --ranks: how many of them one machine has.")
    ] = 8
    tflops: Annotated[
        Positive | None,
        tyro.conf.arg(
            metavar="TFLOP/S",
            help_behavior_hint="",
            help="With --ranks: what one device sustains in training, in 10^12 operations a second, for another device "
            "than this machine's. Unset: it is measured here.",
        ),
    ] = None
    within: Annotated[
        Positive,
        tyro.conf.arg(
            metavar="GB/S",
            help="With --ranks: what a rank sends in a second to others of its machine. The default: NVLink 4 (H100).",
        ),
    ] = 450.0
    between: Annotated[
        Positive,
        tyro.conf.arg(
            metavar="GB/S",
            help="With --ranks: what a rank sends in a second to other machines. The default is 400 Gb/s a GPU.",
        ),
    ] = 50.0
