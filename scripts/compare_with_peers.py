"""Compares every loss with the peers' own code, in float64, and records by how much they differ and why.

    HALOS=CHECKOUT FOLDER/bin/python scripts/compare_with_peers.py

in an environment of scripts/make_peers_environment.py. Writes benchmarks/results/peers/objectives.json, and from it the
table of docs/peers.md.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from halos_losses import COMMIT, is_there
from peer_comparisons import COMPARISONS, Comparison
from peer_losses import Loss, random_batch
from torch import Tensor

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks" / "results" / "peers" / "objectives.json"
PAGE = ROOT / "docs" / "peers.md"
COMMAND = "python scripts/compare_with_peers.py"
PACKAGES = ("trl", "liger-kernel", "torch", "transformers")
BATCHES, PAIRS = 40, 8
FEW = 10
"""Batches that the tests make do with."""
ROWS = re.compile(r"(?<=\n\| --- \| --- \| --- \| --- \|\n)(?:\| `.*\n)*")


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest there was."""

    of_losses: float
    of_gradients: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a comparison came to.

    difference: the largest |ours - theirs| / max(1, |theirs|) over all batches, of losses and of the gradient of their
    mean in every log-probability; mended: the same with the known difference undone, or None where there is none.
    agrees: whether definitions do.
    """

    objective: str
    peer: str
    call: str
    agrees: bool
    difference: Difference
    mended: Difference | None
    within: float
    because: str


@dataclass(frozen=True, slots=True)
class Record:
    """All comparisons, with what they were made with."""

    command: str
    versions: dict[str, str]
    batches: int
    pairs_a_batch: int
    comparisons: list[Found]


def largest_difference(one: Loss, other: Loss, batches: int = BATCHES) -> Difference:
    """Over random batches, with a beta between 0.02 and 0.5 for each, relative to 1 or to the value."""
    worst, steepest = 0.0, 0.0
    for seed in range(batches):
        batch, beta = random_batch(PAIRS, seed), 0.02 + 0.48 * seed / batches
        both = [loss(batch, beta) for loss in (one, other)]
        assert both[0].shape == both[1].shape
        slopes = [_slopes(values, batch.leaves()) for values in both]
        worst = max(worst, _relative(*both))
        steepest = max(steepest, _relative(*slopes))
    return Difference(worst, steepest)


def _slopes(losses: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    """The gradient of the mean loss in every log-probability."""
    found = torch.autograd.grad(losses.mean(), leaves, allow_unused=True)
    kept = [torch.zeros_like(leaf) if slope is None else slope for leaf, slope in zip(leaves, found, strict=True)]
    return torch.cat(kept)


def compare(comparison: Comparison) -> Found:
    """Runs ours and theirs."""
    because = "; ".join(text for text in (comparison.differs, comparison.note) if text)
    return Found(
        objective=comparison.objective,
        peer=comparison.peer,
        call=comparison.call,
        agrees=not comparison.differs,
        difference=largest_difference(comparison.ours, comparison.theirs),
        mended=largest_difference(comparison.ours, comparison.mended) if comparison.mended is not None else None,
        within=comparison.within,
        because=because,
    )


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return float(((ours - theirs).abs() / theirs.abs().clamp(min=1)).detach().max())


def page(record: Record) -> str:
    """The page's text, with the record's table."""
    rows = "".join(f"{row(found)}\n" for found in record.comparisons)
    text, tables = ROWS.subn(lambda _: rows, PAGE.read_text(encoding="utf-8"))
    assert tables == 1
    return text


def row(found: Found) -> str:
    """A comparison's row of the table."""
    said = f"; {found.because}" if found.because else ""
    if not found.agrees:
        assert found.mended is not None
        said = f": {found.because}; that undone, {_words(found.mended)}"
    verdict = "agrees" if found.agrees else "differs"
    return f"| `{found.objective}` | {found.peer}: {found.call} | {_words(found.difference)} | {verdict}{said} |"


def _words(difference: Difference) -> str:
    return f"{difference.of_losses:.1e} and {difference.of_gradients:.1e}"


def read_record() -> Record:
    """The record as it was last made."""
    table = json.loads(RECORD.read_text(encoding="utf-8"))
    found = [
        Found(
            **{
                **one,
                "difference": Difference(**one["difference"]),
                "mended": Difference(**one["mended"]) if one["mended"] else None,
            }
        )
        for one in table["comparisons"]
    ]
    return Record(**{**table, "comparisons": found})


def main() -> None:
    torch.manual_seed(0)
    found = []
    for comparison in COMPARISONS:
        if not comparison.there:
            print(f"left out: there is no objective {comparison.objective}")
            continue
        if comparison.peer == "HALOs" and not is_there():
            sys.exit("HALOS names no checkout of HALOs: see scripts/halos_losses.py.")
        one = compare(comparison)
        found.append(one)
        print(f"{one.objective:<14}{one.peer}: {one.call:<56}  {_words(one.difference)}  {one.because}")
    versions = {name: version(name) for name in PACKAGES} | {"HALOs": COMMIT}
    record = Record(COMMAND, versions, BATCHES, PAIRS, found)
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(record), encoding="utf-8")


if __name__ == "__main__":
    main()
