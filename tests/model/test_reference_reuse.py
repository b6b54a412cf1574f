"""What costs a reference pass and what costs none: how many examples are computed, case by case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_runs import pairs, tiny_model

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.reference import ReferenceCache, fill_cache, reference_address
from tiltlm.model.scorer import Scorer

EXAMPLES = 6


@dataclass(frozen=True, slots=True)
class Pass:
    """What a reference pass is of."""

    scorer: Scorer
    columns: TokenColumns
    precision: torch.dtype = torch.float32
    budget: int = 256

    def computed(self, folder: Path) -> int:
        """How many examples the cache in a folder lacked."""
        done: list[int] = []
        cache = ReferenceCache(folder, reference_address(self.scorer, self.precision))
        fill_cache(self.scorer, self.columns, cache, self.precision, self.budget, done.append)
        cache.close()
        return sum(done)


def first() -> Pass:
    return Pass(Scorer(tiny_model()), pairs(EXAMPLES))


def _another_weight() -> Pass:
    one = first()
    with torch.no_grad():
        next(one.scorer.model.parameters()).view(-1)[0] += 1e-3
    return one


def _another_token() -> Pass:
    one = first()
    one.columns.ids[one.columns.bounds[1] - 1] ^= 1
    return one


def _further_examples() -> Pass:
    return Pass(Scorer(tiny_model()), pairs(EXAMPLES + 3))


def _another_type() -> Pass:
    return Pass(Scorer(tiny_model()), pairs(EXAMPLES), torch.bfloat16)


CASES: dict[str, tuple[Callable[[], Pass], int]] = {
    "the same": (first, 0),
    "another micro-batch": (lambda: Pass(Scorer(tiny_model()), pairs(EXAMPLES), budget=40), 0),
    "another order": (lambda: Pass(Scorer(tiny_model()), pairs(EXAMPLES).take([3, 1, 0, 5, 4, 2])), 0),
    "fewer": (lambda: Pass(Scorer(tiny_model()), pairs(EXAMPLES).take([4, 2])), 0),
    "further examples": (_further_examples, 3),
    "another token": (_another_token, 1),
    "another weight": (_another_weight, EXAMPLES),
    "another type": (_another_type, EXAMPLES),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_computed_again(tmp_path: Path, name: str) -> None:
    assert first().computed(tmp_path) == EXAMPLES
    changed, wanted = CASES[name]
    assert changed().computed(tmp_path) == wanted
