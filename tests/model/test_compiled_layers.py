"""Compiled layers give what the layers gave, and new shapes compile nothing new."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tiny_models import SHAREABLE, build
from torch._dynamo.utils import counters

from tiltlm.config import Config, TrainingConfig
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.errors import ConfigError
from tiltlm.model import compiled_layers
from tiltlm.model.compiled_layers import compile_layers, require_compiler
from tiltlm.model.fused_layers import fuse_layers
from tiltlm.model.loading import checkpoint_activations
from tiltlm.model.scorer import Scorer
from tiltlm.pipeline.setup import set_up
from tiltlm.plan.packing import plan

# PyTorch's compiler loads what PyTorch itself warns of, and looks where PyTorch warns of looking.
pytestmark = pytest.mark.filterwarnings("ignore")

LENGTHS = [(3, 4, 2), (9, 2, 6), (5, 11, 3), (2, 3, 17)]
"""Tokens of prompts and of both answers, one pair a batch."""


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def _columns() -> TokenColumns:
    rng = np.random.default_rng(0)

    def pair(number: int, lengths: tuple[int, int, int]) -> TokenizedExample:
        prompt, *answers = (rng.integers(3, 60, length) for length in lengths)
        chosen, rejected = (TokenizedSequence(np.append(prompt, own).astype(np.int32), len(prompt)) for own in answers)
        return TokenizedExample.pair(str(number), chosen, rejected)

    return TokenColumns.of([pair(number, lengths) for number, lengths in enumerate(LENGTHS)])


def _trained(scorer: Scorer, columns: TokenColumns, example: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Log-probabilities of a pair's tokens, and the gradients of their sum."""
    (batch,) = plan(columns, [example], 4096, scorer.layout).micro_batches
    scorer.zero_grad()
    found = scorer(batch)
    found.sum().backward()
    return found.detach(), [own.grad for own in scorer.parameters() if own.grad is not None]


def _agree(backend: str, recomputed: bool, family: str) -> None:
    columns, graphs = _columns(), []
    model = build(SHAREABLE[family](), torch.float32)
    fuse_layers(model)
    plain, compiled = Scorer(model), Scorer(copy.deepcopy(model))
    compile_layers(compiled.model, backend)
    if recomputed:
        checkpoint_activations(compiled.model)
    for example in range(len(columns)):
        (wanted, gradients), (found, own) = (_trained(scorer, columns, example) for scorer in (plain, compiled))
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        for one, other in zip(own, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0 and graphs[1] == graphs[-1], graphs


@pytest.mark.parametrize(("family", "recomputed"), [("llama", True), ("gpt2", False)])
def test_values_and_gradients_are_those_of_the_layers(family: str, recomputed: bool) -> None:
    _agree("aot_eager", recomputed, family)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_so_are_those_of_programs_that_are_really_made() -> None:
    _agree(compiled_layers.INDUCTOR, False, "llama")


def test_layers_that_are_not_known_are_refused() -> None:
    model = build(SHAREABLE["llama"](), torch.float32)
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(ConfigError, match=r"training\.compile has no effect"):
        compile_layers(model)


def test_a_missing_compiler_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler"):
        require_compiler(torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler"):
        set_up(Config(training=TrainingConfig(compile=True)))
