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


@dataclass(frozen=True, slots=True)
class Arguments:
    """Which pairs."""

    pairs: Path
    """A file with a `prompt`, a `chosen` and a `rejected` in each line."""
    output: Path
    """Where the pairs are written."""


def main() -> None:
    """Writes the file."""
    arguments = tyro.cli(Arguments, description=__doc__)
    pairs = [json.loads(line) for line in arguments.pairs.read_text(encoding="utf-8").splitlines()]
    with arguments.output.open("w", encoding="utf-8") as file:
        for first, second in zip(pairs[::2], pairs[1::2], strict=False):
            for answered in (first, second):
                file.write(json.dumps(answered | {"prompt": first["prompt"]}) + "\n")


if __name__ == "__main__":
    main()
