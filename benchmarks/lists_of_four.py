"""Pairs in which every prompt has four answers, to measure what it is worth that they share it.

    python benchmarks/lists_of_four.py --pairs hh.jsonl --output fours.jsonl
    tiltlm bench --data.train fours.jsonl --systems ours no-sharing

Of every two neighbouring pairs of a file the first's prompt is kept, with both pairs of answers. So lengths are those
of real prompts and real answers; what the second pair says there is of no use but for timing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.conversion import load_examples


@dataclass(frozen=True, slots=True)
class Arguments:
    """Which pairs."""

    pairs: Path
    """A file of pairs given as text, in any format that training reads."""
    output: Path
    """Where the pairs are written."""


def main() -> None:
    """Writes the file."""
    arguments = tyro.cli(Arguments, description=__doc__)
    read = load_examples(str(arguments.pairs), DataConfig(), HubConfig(), "train").examples
    pairs = [one for one in read if one.is_pair and isinstance(one.prompt, str)]
    if len(pairs) < 2:
        raise SystemExit(f"{arguments.pairs} has fewer than two pairs given as text.")
    with arguments.output.open("w", encoding="utf-8") as file:
        for first, second in zip(pairs[::2], pairs[1::2], strict=False):
            for chosen, rejected in (first.completions, second.completions):
                row = {"prompt": first.prompt, "chosen": chosen, "rejected": rejected}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
