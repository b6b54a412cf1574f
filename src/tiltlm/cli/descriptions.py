"""What each command is for: known without its settings, so that `tiltlm --help` waits for nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any

import tyro

PROGRAM = """\
Direct Preference Optimization of language models: small, fast, honest.

Each command explains itself: tiltlm train --help
"""
DESCRIPTIONS = {
    "train": "Train on preference pairs, compare, report; without arguments the demo.\n\n"
    "Everything a run leaves behind lies in runs/NAME. Without a file of settings and without --data.train the demo's "
    "settings are the starting point.",
    "sweep": "Train over several values of any options, and compare the runs on one page.\n\n"
    "An option that is given several values, --loss.beta 0.05,0.1,0.5, is swept: every combination is a member, an "
    "ordinary run. With --trials N members are drawn instead, from lists and from ranges such as "
    "--training.learning_rate 1e-7..1e-5, and those that do badly are stopped. All other options are those of tiltlm "
    "train. The page, the table and the runs lie in runs/NAME; docs/sweeps.md has the rest.",
    "compare": "Answers before and after training, side by side: those recorded, or new ones to prompts of your own.",
    "report": "Rebuild training_metrics.png, comparison.md and report.html from the files of a run.",
    "inspect": "Show what is in preference data, before training on it.\n\n"
    "The options are those of tiltlm train; --model.path names the model whose tokenizer counts.",
    "export": "Write a checkpoint of a run as a model that transformers and vLLM load.",
    "merge": "Write the trained adapter of a run, merged into its model, as plain weights that need no adapter.",
    "plan": "Show what training would take: memory by part, disk, steps, tokens, time by stage; whether it fits, and "
    "what would.\n\n"
    "The options are those of tiltlm train. The time is told from half a minute on the model as it is.",
    "bench": "Measure how fast training is on a model and data of yours, beside a naive loop and TRL.\n\n"
    "The options are those of tiltlm train; docs/speed.md says what is measured.",
    "frontier": "Show how close a run came to the most reward that any policy could have had at its KL.\n\n"
    "It takes a known reward: a judge. docs/frontier.md says how the limit is found, and how sure it is.",
    "sample": "Draw answers of a model to prompts, several to each, for tiltlm judge.\n\n"
    "Stopped or killed, the same command goes on where it was. docs/own-pairs.md has the files.",
    "judge": "Judge answers by a function, rules, a reward model, a language model or people; or judge the judge.\n\n"
    "ANSWERS.jsonl is judged line by line into --output, and gone on with where it was stopped. With --pairs the judge "
    "is held to the labels of preference pairs: how often it agrees, and whether it goes by place or by length. "
    "docs/judges.md says what each judge is, what is recorded, and what never is.",
    "pair": "Make pairs for training out of judged answers.\n\n"
    "What is left out is counted and listed. docs/own-pairs.md has the files.",
    "objectives": "List the objectives there are, or show one: its equation, needs, settings and source.",
    "cache": "Show what is kept between runs: where it lies, what it is, how large; or remove it.",
    "convert-config": "Write the settings that a TRL script's arguments come to.\n\n"
    "What has no counterpart is named, in the file and on standard error. docs/from-trl.md has the table.",
}
"""Every command by its name; the first paragraph stands in the list of commands."""


@dataclass(frozen=True)
class _Named:
    """A command of which no more is to be known than its name."""


def show_help() -> None:
    """Prints what commands there are, as tyro draws its sub-commands."""
    commands = [
        Annotated[_Named, tyro.conf.subcommand(name, description=text.partition("\n\n")[0])]
        for name, text in DESCRIPTIONS.items()
    ]
    union: Any = reduce(or_, commands)
    try:
        tyro.cli(union, args=["--help"], prog="tiltlm", description=PROGRAM)
    except SystemExit:
        return
