"""What `tiltlm judge` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

_PLAIN = tyro.conf.arg(help_behavior_hint="")


@dataclass(frozen=True)
class Judge:
    """Arguments of `tiltlm judge`."""

    answers: Annotated[
        Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[ANSWERS.jsonl]", help_behavior_hint="")
    ] = None
    """Answers, as `tiltlm sample` leaves them, or lines of your own with `prompt` and `answers`."""
    judge: Annotated[str | None, tyro.conf.arg(metavar="WORD", help_behavior_hint="")] = None
    """Who judges: vader, FILE.py:FUNCTION, FILE.toml, model:NAME, https://HOST/v1 or labels:FILE.jsonl."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="JUDGED.jsonl", help_behavior_hint="")] = None
    """The same lines with rewards. A file that is there is gone on with."""
    pairs: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """In place of answers: preference pairs, whose labels say what the judge is worth."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json", help_behavior_hint="")] = None
    """Keep the account; with --pairs every pair and what the judge said of it."""
    split: Annotated[str | None, _PLAIN] = None
    """With --pairs: which split of a hub dataset or data folder (train if unset)."""
    subset: Annotated[str | None, _PLAIN] = None
    """With --pairs: configuration or sub-folder of a hub dataset, or sub-folder of a data folder."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """With --pairs: at most so many of them, drawn by a fixed seed."""
    hub_folder: Annotated[str | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """A local folder that stands in for the Hugging Face hub."""
    label: Annotated[str | None, _PLAIN] = None
    """Of a reward model: which of its labels counts."""
    form: Annotated[Literal["auto", "chat", "pair", "joined", "answer"] | None, _PLAIN] = None
    """Of a reward model: how prompt and answer are put together. Unset: by its chat template, else joined."""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"] | None, _PLAIN] = None
    """Of a reward model: where it computes, in float32. Unset: the CPU."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Of an address: the model's name there."""
    key_variable: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Of an address: the environment variable that holds the key. Unset: OPENAI_API_KEY, if there is one."""
    criterion: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """Of an address: what the better answer is. Unset: more helpful, honest and harmless."""
    temperature: Annotated[float | None, _PLAIN] = None
    """Of an address: the temperature of its replies. Unset: 0."""
    max_tokens: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Of an address: most tokens of a reply. Unset: 16; models that think aloud need thousands."""
    tokens_option: Annotated[Literal["max_tokens", "max_completion_tokens"] | None, _PLAIN] = None
    """Of an address: what the server calls that limit. Unset: max_tokens."""
    at_once: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Of an address: how many requests are made at one time. Unset: 4."""
    tries: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Of an address: how often a request is tried at most. Unset: 6."""
    timeout: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="")] = None
    """Of an address: how long a try may take. Unset: 120."""
    price_prompt: Annotated[float | None, _PLAIN] = None
    """Of an address: the price of a million tokens read, for the cost that is said at the end."""
    price_completion: Annotated[float | None, _PLAIN] = None
    """Of an address: the price of a million tokens written."""
