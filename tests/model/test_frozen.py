"""A frozen model kept in fewer bits computes what its unpacked weights say, in every layout, and is never written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import family, one_at_a_time
from tiny_runs import packed, tiny_model
from transformers import PreTrainedModel

from tiltlm.model.adapters import load_scorer
from tiltlm.model.finding import ModelSource
from tiltlm.model.frozen import Base, dequantise, freeze
from tiltlm.model.loading import autocast
from tiltlm.model.reference import fingerprint
from tiltlm.model.scorer import Scorer, sequence_logps

CPU = torch.device("cpu")
BASES = [Base(), Base("none", torch.bfloat16), Base("nf4"), Base("nf4", torch.bfloat16), Base("int8")]


@pytest.fixture(scope="module", params=["llama", "gpt2", "qwen2"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    folder = tmp_path_factory.mktemp(str(request.param))
    tiny_model(str(request.param)).save_pretrained(folder)
    return ModelSource(str(folder), True, False)


def weights(scorer: Scorer) -> list[torch.Tensor]:
    return [own.detach().clone() for own in scorer.parameters()]


def trained_norms(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The weights of norms, to be trained, so that there is a gradient through frozen layers."""
    norms = [own for name, own in model.named_parameters() if own.dim() == 1 and name.endswith("weight")]
    for own in norms:
        own.requires_grad_(True)
    return norms


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.in_words)
def test_packed_rows_equal_one_sequence_at_a_time_and_unpacked_weights(source: ModelSource, base: Base) -> None:
    """The products of bitsandbytes would not: what int8 rounds of a token depends on the rest of the batch."""
    scorer = load_scorer(source, CPU, base)
    sequences = family()
    batch = packed(sequences)
    with torch.no_grad():
        found = sequence_logps(scorer(batch), batch)
        torch.testing.assert_close(found, one_at_a_time(scorer.model, sequences), atol=2e-5, rtol=0)
        dequantise(scorer.model)
        kinds = {type(module).__name__ for module in scorer.model.modules()}
        assert not kinds & {"Linear4bit", "Linear8bitLt"}
        torch.testing.assert_close(Scorer(scorer.model)(batch), scorer(batch))
        torch.testing.assert_close(sequence_logps(Scorer(scorer.model)(batch), batch), found, atol=2e-5, rtol=0)


@pytest.mark.parametrize("base", BASES[1:], ids=lambda base: base.in_words)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_no_pass_writes_the_weights(source: ModelSource, base: Base, precision: torch.dtype) -> None:
    """bitsandbytes repacks 4-bit weights in place where a CPU multiplies without a gradient."""
    scorer = load_scorer(source, CPU, base)
    before, mark = weights(scorer), fingerprint(scorer.model)
    batch = packed(family())
    with torch.inference_mode(), autocast(CPU, precision):
        first = scorer(batch)
    trained_norms(scorer.model)
    with autocast(CPU, precision):
        scorer(batch).sum().backward()
        torch.testing.assert_close(scorer(batch).detach(), first.clone(), atol=0, rtol=0)
    assert all(torch.equal(old, new) for old, new in zip(before, weights(scorer), strict=True))
    assert fingerprint(scorer.model) == mark


@pytest.mark.parametrize("base", BASES[1:], ids=lambda base: base.in_words)
def test_the_gradient_through_frozen_layers_is_that_of_their_unpacked_weights(source: ModelSource, base: Base) -> None:
    def gradient(model: PreTrainedModel) -> torch.Tensor:
        norms = trained_norms(model)
        Scorer(model)(packed(family())).sum().backward()
        return torch.cat([own.grad for own in norms if own.grad is not None])

    found = gradient(load_scorer(source, CPU, base).model)
    plain = load_scorer(source, CPU, base).model
    dequantise(plain)
    torch.testing.assert_close(found, gradient(plain), atol=1e-5, rtol=1e-4)


def test_a_bfloat16_base_has_the_bits_of_a_float32_base_whose_files_are_bfloat16(tmp_path: Path) -> None:
    """In bfloat16 arithmetic: so it is the default on a GPU. Sums between layers stay float32 either way."""
    model = tiny_model("llama")
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(tmp_path)
    batch, values = packed(family()), []
    for dtype in (torch.float32, torch.bfloat16):
        scorer = load_scorer(ModelSource(str(tmp_path), True, False), CPU, Base("none", dtype))
        with torch.no_grad(), autocast(CPU, torch.bfloat16):
            values.append(scorer(batch))
    assert torch.equal(*values)


def test_nothing_wide_is_kept_for_the_backward_pass(source: ModelSource) -> None:
    scorer = load_scorer(source, CPU, Base("nf4"))
    trained_norms(scorer.model)
    kept: list[torch.Size] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    unpack: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, unpack):
        scorer(packed(family()))
    shapes = {torch.Size((module.in_features, module.out_features)) for module in _packed_layers(scorer.model)}
    assert shapes and not {*kept} & {*shapes, *(shape[::-1] for shape in shapes)}


def _packed_layers(model: PreTrainedModel) -> list[torch.nn.Linear]:
    return [module for module in model.modules() if type(module).__name__ == "Linear4bit"]  # type: ignore[misc]


def test_freezing_leaves_a_float32_model_as_it_is() -> None:
    model = tiny_model("llama")
    batch = packed(family())
    with torch.no_grad():
        before = Scorer(model)(batch)
        freeze(model, Base())
        assert torch.equal(Scorer(model)(batch), before)
    assert not any(own.requires_grad for own in model.parameters())
