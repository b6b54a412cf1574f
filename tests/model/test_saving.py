"""What is saved is what was trained: in the source's type, without losing small steps, and with its other files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_models import SHAREABLE, build
from tiny_tokenizers import byte_level
from transformers import AutoModelForCausalLM, PreTrainedModel

from tiltlm.model.dither import add_dither, remove_dither, rounded_parameters
from tiltlm.model.finding import ModelSource
from tiltlm.model.loading import load_tokenizer, model_facts
from tiltlm.model.saving import choose_save_dtype, round_weights, save_model
from tiltlm.model.weights import load_model

CPU = torch.device("cpu")
NARROW = [torch.bfloat16, torch.float16]


def stored(folder: Path, dtype: torch.dtype, name: str = "llama") -> ModelSource:
    build(SHAREABLE[name](), dtype).save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return ModelSource(str(folder), True, False)


def saved(model: PreTrainedModel, source: ModelSource, folder: Path) -> dict[str, torch.Tensor]:
    save_model(model, load_tokenizer(source), source, folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, *NARROW])
def test_by_default_the_type_is_the_sources(tmp_path: Path, dtype: torch.dtype) -> None:
    source = stored(tmp_path / "source", dtype)
    facts = model_facts(source, load_tokenizer(source))
    chosen, why = choose_save_dtype("auto", facts.stored)
    assert chosen is dtype
    assert str(dtype).removeprefix("torch.") in why
    assert choose_save_dtype("float32", facts.stored)[0] is torch.float32
    assert choose_save_dtype("auto", None)[0] is torch.float32
    model = load_model(source, CPU)
    round_weights(model, chosen)
    tensors = saved(model, source, tmp_path / "saved")
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved").dtype is dtype


@pytest.mark.parametrize("dtype", [torch.float32, *NARROW])
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
def test_an_untrained_model_is_saved_as_it_was(tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    source = stored(tmp_path / "source", dtype, name)
    model = load_model(source, CPU)
    add_dither(model)
    remove_dither(model)
    round_weights(model, dtype)
    tensors, original = saved(model, source, tmp_path / "saved"), load_file(tmp_path / "source" / "model.safetensors")
    assert tensors.keys() == original.keys()  # tied weights stay tied
    assert all(torch.equal(tensors[key], original[key]) for key in original)


@pytest.mark.parametrize("dtype", NARROW)
def test_a_small_step_survives_on_average(dtype: torch.dtype) -> None:
    weights = (torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0)) * 0.1).to(dtype).float()
    layer = torch.nn.Linear(1000, 1000, bias=False)
    layer.weight.data = weights + 1e-6
    assert (layer.weight.to(dtype).float() - weights).mean().item() < 2e-7, "rounded to the nearest, it is gone"
    round_weights(layer, dtype)
    moved = (layer.weight.double() - weights).mean().item()
    assert moved == pytest.approx(1e-6, rel=0.2)


@given(st.floats(-1e5, 1e5, width=32))
@settings(deadline=None, max_examples=100)
def test_float16_rounds_to_a_neighbour_and_stays_finite(value: float) -> None:
    layer = torch.nn.Linear(4000, 1, bias=False)
    layer.weight.data = torch.full((1, 4000), value)
    round_weights(layer, torch.float16)
    limit = torch.finfo(torch.float16).max
    clamped = max(-limit, min(limit, value))
    unit = 2.0 ** max(-24, torch.frexp(torch.tensor(clamped)).exponent.item() - 11)
    assert layer.weight.isfinite().all()
    assert (layer.weight.double() - clamped).abs().max() <= unit
    assert layer.weight.double().mean().item() == pytest.approx(clamped, abs=unit * 5 / 4000**0.5)


def test_a_bfloat16_file_holds_the_weights_that_training_computed_with(tmp_path: Path) -> None:
    source = stored(tmp_path / "source", torch.bfloat16)
    model = load_model(source, CPU)
    add_dither(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1e-5)
    computed_with = {name: parameter.bfloat16() for name, parameter in rounded_parameters(model)}
    remove_dither(model)
    round_weights(model, torch.bfloat16)
    tensors = saved(model, source, tmp_path / "saved")
    for name, wanted in computed_with.items():
        assert torch.equal(tensors[name], wanted), name


def test_files_of_a_processor_are_carried_over(tmp_path: Path) -> None:
    source = stored(tmp_path / "source", torch.float32)
    names = ["preprocessor_config.json", "processor_config.json"]
    for name in names:
        (tmp_path / "source" / name).write_text('{"do_resize": true}')
    model = load_model(source, CPU)
    saved(model, source, tmp_path / "saved")
    assert all((tmp_path / "saved" / name).read_text() == '{"do_resize": true}' for name in names)
