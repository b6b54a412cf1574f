"""What `tiltlm frontier` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Frontier:
    """Arguments of `tiltlm frontier`."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
    """The folder of a run that ended."""
    reward: Annotated[str | None, tyro.conf.arg(metavar="WORD", help_behavior_hint="")] = None
    """The judge whose rewards are the truth: vader, FILE.py:FUNCTION, FILE.toml or model:NAME. Unset: that of the run
    (comparison.reward)."""
    prompts: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """How many held-out prompts are answered. Unset: as many as in the run (comparison.prompts)."""
    reference_answers: Annotated[int, tyro.conf.arg(metavar="N")] = 128
    """Answers of the reference to each prompt: the limit rests on them, and more are needed the higher the KL. They
    are kept in the cache for other runs of the same model."""
    answers: Annotated[int, tyro.conf.arg(metavar="N")] = 8
    """Answers of each of the run's models to each prompt."""
    no_checkpoints: Annotated[bool, tyro.conf.arg(help_behavior_hint=""), tyro.conf.FlagCreatePairsOff] = False
    """Leave the run's checkpoints out: only the trained model is placed."""
    trust_remote_code: Annotated[bool, tyro.conf.arg(help_behavior_hint=""), tyro.conf.FlagCreatePairsOff] = False
    """Run Python code that comes with the model or judges the answers, if the run was made so. Only for runs you
    trust."""
