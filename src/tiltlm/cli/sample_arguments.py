"""What `tiltlm sample` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tiltlm.config import Format, Precision

_PLAIN = tyro.conf.arg(help_behavior_hint="")


@dataclass(frozen=True)
class Sample:
    """Arguments of `tiltlm sample`."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_OR_RUN", help_behavior_hint="")]
    """A hub id, a folder or `embedded`; or the folder of a run, which stands for the model that it trained."""
    prompts: Annotated[str, tyro.conf.arg(metavar="DATA", help_behavior_hint="")]
    """Where the prompts are: any preference data that tiltlm reads, `demo`, rows with a `prompt` alone, or a text file
    with one a line. Each different prompt is answered once."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE.jsonl", help_behavior_hint="")]
    """The file of answers. If it is there, and was drawn in the same way, it is gone on with."""
    answers: int = 8
    """Answers to each prompt, drawn independently."""
    temperature: float = 1.0
    """Temperature of the softmax they are drawn from. At 1 they are the model's own."""
    max_new_tokens: int = 128
    """Longest answer in tokens; one that is cut there is marked as not ended."""
    seed: int = 0
    """Decides the draws."""
    limit: Annotated[int | None, _PLAIN] = None
    """Ask the first so many prompts alone."""
    form: Literal["auto", "chat", "text"] = "auto"
    """What a prompt that is text becomes: what a user of a chat says, or text as it stands. `auto`: prompts that stand
    alone are chats if the model has a chat template; those of preference data stand as training takes them."""
    format: Format = "auto"
    """How rows of preference data are laid out, as data.format."""
    split: str = "train"
    """Which split of a folder or hub dataset."""
    precision: Precision = "auto"
    """Arithmetic of the model, as model.precision."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the model works, as model.device."""
    chat_template: Annotated[str | None, _PLAIN] = None
    """Another chat template than the model's: a file, or the name of one of several, as model.chat_template."""
    hub_folder: Annotated[str | None, _PLAIN] = None
    """A folder that stands for the hub, as hub.folder."""
    trust_remote_code: Annotated[bool, _PLAIN, tyro.conf.FlagCreatePairsOff] = False
    """Run Python code that comes with the model. Only for sources you trust."""
