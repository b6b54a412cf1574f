"""What a command that cannot be run says, in a line on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tiltlm.cli.launched import rank
from tiltlm.text.masking import masked
from tiltlm.text.visible import visible

_FIRST_SPEAKS = 2.0
"""Seconds that the other ranks leave to the first one."""


def complain(message: str, before: str = "") -> None:
    """Says it on standard error, where there is one."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):  # there is nowhere left to say it
        print(f"{before}tiltlm: {visible(masked(message))}", file=sys.stderr, flush=True)


def complain_of_rank(message: str) -> None:
    """Says it as the first rank, or, as another, with the rank's name, and not before the first has had time to say
    the same: torchrun ends the others once one has ended."""
    own = rank()
    if own:
        time.sleep(_FIRST_SPEAKS)
    complain(f"rank {own}: {message}" if own else message)


def no_command(word: str, commands: Sequence[str]) -> str:
    """What is said of a word that is no command: what may have been meant."""
    from tiltlm.config.suggestions import nearest

    near = nearest(word, commands)
    if near is None and Path(word).exists():
        return f"there is no command `{word}`. To look at data: tiltlm inspect {word}"
    hint = f"Did you mean `tiltlm {near}`?" if near else f"There are: {', '.join(commands)}."
    return f"there is no command `{word}`. {hint}"
