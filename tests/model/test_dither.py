"""Dithered weights: rounded to bfloat16 they show every step on average, and come off again to the bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import SHAREABLE, build
from tiny_runs import packed
from torch import Tensor

from tiltlm.data.tokens.token_columns import TokenizedSequence
from tiltlm.model import dither
from tiltlm.model.dither import add_dither, move, noise, remove_dither, rounded_parameters
from tiltlm.model.embedded import embedded_model
from tiltlm.model.finding import ModelSource
from tiltlm.model.loading import autocast, choose_precision, load_tokenizer
from tiltlm.model.scorer import Scorer, sequence_logps
from tiltlm.model.weights import load_model

CPU = torch.device("cpu")
SIZE = 1_000_000
BFLOAT16_UNITS = choose_precision("auto", CPU)[0] is torch.bfloat16


def stored_in_bfloat16() -> Tensor:
    return (torch.randn(SIZE, generator=torch.Generator().manual_seed(0)) * 0.1).bfloat16().float()


def on_the_border_of_two_cells() -> Tensor:
    return (stored_in_bfloat16().view(torch.int32) + 0x8000).view(torch.float32)


def from_four_bit_blocks() -> Tensor:
    """Sixteen levels of a scale a block, in float16 as such files have it."""
    generator = torch.Generator().manual_seed(1)
    scales = (torch.rand(SIZE // 32, 1, generator=generator) * 0.05).half().float()
    return (scales * torch.randint(-8, 8, (SIZE // 32, 32), generator=generator)).flatten()


def any_float32() -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(2)) * 0.1


WEIGHTS = [stored_in_bfloat16, on_the_border_of_two_cells, from_four_bit_blocks, any_float32]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("step", [1e-8, 1e-7, 1e-6, 1e-5])
def test_a_first_step_moves_the_rounded_weights_by_as_much(weights: Callable[[], Tensor], step: float) -> None:
    dithered = weights()
    move(dithered, "layer.weight", 1)
    moved = (dithered + step).bfloat16().double() - dithered.bfloat16().double()
    # A share step/unit of the weights jumps a unit each.
    error = moved.std().item() / len(moved) ** 0.5
    assert moved.mean().item() == pytest.approx(step, abs=5 * error + 1e-10)
    assert 0 < error < step


def test_without_dither_steps_are_hidden_or_shown_that_were_not_taken() -> None:
    stored, border = stored_in_bfloat16(), on_the_border_of_two_cells()
    assert ((stored + 1e-7).bfloat16() != stored.bfloat16()).float().mean() < 0.01
    positive = border[border > 0]
    jumps = (positive + 1e-7).bfloat16().double() - (positive - 1e-7).bfloat16().double()
    assert jumps.mean() > 100 * 2e-7


@pytest.mark.parametrize("weights", WEIGHTS)
def test_it_is_half_a_unit_either_way_and_comes_off_again(weights: Callable[[], Tensor]) -> None:
    before, dithered = weights(), weights()
    move(dithered, "layer.weight", 1)
    added = (dithered - before)[before != 0]
    unit = torch.exp2(torch.floor(torch.log2(before[before != 0].abs())) - 7)
    assert (added.abs() <= unit).all()  # half a unit of the greater side at a power of two
    assert (added.abs() <= unit / 2).float().mean() > 0.98
    assert (added / unit).mean().abs() < 5 / SIZE**0.5
    assert (dithered == before)[before == 0].all()
    move(dithered, "layer.weight", -1)
    assert torch.equal(dithered.view(torch.int32), before.view(torch.int32))


def test_a_change_comes_through_the_removal_but_near_powers_of_two() -> None:
    before, weights = any_float32().double(), any_float32()
    move(weights, "layer.weight", 1)
    weights += 1e-6
    move(weights, "layer.weight", -1)
    kept = ((weights.double() - before) / 1e-6)[before.abs() > 0.01]
    assert ((kept - 1).abs() > 0.05).double().mean() < 0.01
    assert 0.45 < kept.min() < kept.max() < 2.05
    assert kept.mean().item() == pytest.approx(1, abs=2e-3)


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 1500), st.text(max_size=10))
@settings(deadline=None, max_examples=50)
def test_a_part_makes_its_own_numbers(start: int, count: int, block: int, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dither, "BLOCK", block)
        whole = noise(name, 0, start + count)
        assert torch.equal(noise(name, start, count), whole[start:])


@given(st.integers(1, 400), st.integers(1, 200))
@settings(deadline=None, max_examples=30)
def test_weights_that_are_worked_on_at_once_change_nothing(size: int, piece: int) -> None:
    weights = any_float32()[:size].clone()
    whole = weights.clone()
    move(whole, "some", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dither, "PIECE", piece)
        move(weights, "some", 1)
    assert torch.equal(weights, whole)


def test_the_numbers_are_uniform_and_tell_names_and_places_apart() -> None:
    one, other = noise("a", 0, SIZE).double(), noise("b", 0, SIZE).double()
    for numbers in (one, other):
        assert (numbers.min().item(), numbers.max().item()) == (-32767, 32767)
        assert numbers.mean().abs() < 5 * 32768 / (3 * SIZE) ** 0.5
        share = torch.histc(numbers, 64, -32768, 32768) / SIZE * 64
        assert (share - 1).abs().max() < 5 * (64 / SIZE) ** 0.5
    pairs = [(one, other), (one[1:], one[:-1]), (one[2:], one[:-2]), (one[4096:], one[:-4096])]
    for first, second in pairs:
        assert torch.corrcoef(torch.stack([first, second]))[0, 1].abs() < 5 / SIZE**0.5
    assert not torch.equal(noise("a", dither.BLOCK, 10), noise("a", 0, 10))


@pytest.mark.parametrize("name", SHAREABLE)
def test_what_is_multiplied_with_is_dithered_and_nothing_else(name: str) -> None:
    model = build(SHAREABLE[name](), torch.float32)
    before = {key: value.clone() for key, value in model.named_parameters()}
    add_dither(model)
    changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert changed == {key for key, value in rounded_parameters(model) if value.abs().max() > 0}
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = embeddings.weight is head.weight
    for key, value in before.items():
        if value.dim() > 1 and ("embed" not in key and ".wte" not in key and ".wpe" not in key):
            assert key in changed, key
        if "norm" in key or ".ln_" in key:
            assert key not in changed, key
    assert any(embeddings.weight is parameter for _, parameter in rounded_parameters(model)) == tied
    remove_dither(model)
    assert all(torch.equal(value, before[key]) for key, value in model.named_parameters())


def test_wider_weights_are_left_alone() -> None:
    model = build(SHAREABLE["llama"](), torch.float64)
    before = [parameter.clone() for parameter in model.parameters()]
    add_dither(model)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


@pytest.mark.skipif(not BFLOAT16_UNITS, reason="this processor has no units for bfloat16, and would take minutes")
@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize("stored", ["as dequantised", "in bfloat16"])
def test_a_first_step_of_the_embedded_model_shows_in_bfloat16_as_in_float32(stored: str) -> None:
    """Log-probabilities of real sentences change as in float32, within the noise that rounding activations makes."""
    source = ModelSource(str(embedded_model()), True, False)
    model, tokenizer = load_model(source, CPU), load_tokenizer(source)
    if stored == "in bfloat16":
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16().float()
    prompt = tokenizer("The weather in the mountains").input_ids
    endings = [" changes quickly in autumn.", " is a matter of taste.", " was fine, and we walked to the lake.", " or."]
    sequences = [TokenizedSequence(torch.tensor(prompt + tokenizer(e).input_ids).int().numpy(), 1) for e in endings]
    batch = packed(sequences)
    scorer = Scorer(model)

    def logps(precision: torch.dtype) -> Tensor:
        with torch.no_grad(), autocast(CPU, precision):
            return sequence_logps(scorer(batch), batch)

    scorer(batch).sum().backward()
    signs = [parameter.grad.sign() for parameter in model.parameters() if parameter.grad is not None]
    plain = [parameter.detach().clone() for parameter in model.parameters()]
    add_dither(model)
    before, exact = logps(torch.bfloat16), logps(torch.float32)
    noise_of_activations = (before - exact).abs().mean().item()
    for step in (1e-8, 1e-6, 1e-5):
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), plain, strict=True):
                parameter.copy_(value)
            add_dither(model)
            for parameter, sign in zip(model.parameters(), signs, strict=True):
                parameter.add_(step * sign)
        shown, true = logps(torch.bfloat16) - before, logps(torch.float32) - exact
        # Each of the four has noise of its own before and after; the mean of their differences has half of that.
        assert (shown - true).mean().abs() < 3 * noise_of_activations
    assert true.mean() > 5 * noise_of_activations, "the largest step shows above the noise"
