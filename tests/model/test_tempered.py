"""What a model expects of the next token at several temperatures, against whole distributions in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_runs import pairs, tiny_model
from torch import Tensor, nn

from tiltlm.model import head as chunks
from tiltlm.model.head import LogitTransform, token_logps_and_squares
from tiltlm.model.scorer import Asked, Scorer
from tiltlm.model.scoring import score
from tiltlm.model.tempered import MOMENTS, tempered_moments

TEMPERATURES = (0.25, 0.5, 1.0, 2.0)
ROWS, WIDTH, VOCABULARY = 7, 6, 19


def made(dtype: torch.dtype = torch.float64, scale: float = 3.0) -> tuple[Tensor, Tensor, nn.Linear]:
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(WIDTH, VOCABULARY, dtype=dtype)
    with torch.no_grad():
        head.weight.copy_(scale * torch.randn(head.weight.shape, generator=generator))
    hidden_SD = torch.randn((ROWS, WIDTH), generator=generator).to(dtype)
    return hidden_SD, torch.randint(VOCABULARY, (ROWS,), generator=generator), head


def oracle(logits_SV: Tensor, token_S: Tensor, temperature: float) -> Tensor:
    """Surprise, excess and variance by sums over the vocabulary, shape (S, 3)."""
    logp_SV = F.log_softmax(logits_SV.double() / temperature, dim=-1)
    surprise_S = -logp_SV.gather(-1, token_S[:, None]).squeeze(-1)
    weighted_SV = logp_SV.exp() * logp_SV.nan_to_num(neginf=0.0)
    entropy_S = -weighted_SV.sum(-1)
    variance_S = (weighted_SV * logp_SV.nan_to_num(neginf=0.0)).sum(-1) - entropy_S**2
    return torch.stack([surprise_S, surprise_S - entropy_S, variance_S], dim=-1)


@pytest.mark.parametrize("transform", [LogitTransform(), LogitTransform(scale=0.5, softcap=4.0)], ids=["plain", "both"])
@pytest.mark.parametrize("tile", [chunks.TILE_ELEMENTS, 2 * VOCABULARY, 1], ids=["one tile", "two rows", "a row"])
def test_moments_are_those_of_whole_distributions(
    transform: LogitTransform, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "TILE_ELEMENTS", tile)
    hidden_SD, token_S, head = made()
    logits_SV = transform.made_in(hidden_SD).logits(hidden_SD, head.weight, head.bias)
    found = tempered_moments(hidden_SD, token_S, head, transform, TEMPERATURES)
    assert found.shape == (ROWS, len(TEMPERATURES) * MOMENTS) and not found.requires_grad
    for place, temperature in enumerate(TEMPERATURES):
        own = found[:, MOMENTS * place : MOMENTS * (place + 1)]
        torch.testing.assert_close(own, oracle(logits_SV, token_S, temperature), rtol=1e-9, atol=1e-9)


def test_the_sum_of_squares_follows_from_the_surprise_at_one_half_and_at_one() -> None:
    hidden_SD, token_S, head = made()
    moments = tempered_moments(hidden_SD, token_S, head, LogitTransform(), (0.5, 1.0))
    _, log_squares_S = token_logps_and_squares(hidden_SD, token_S, head, LogitTransform())
    torch.testing.assert_close(moments[:, 0] - 2 * moments[:, MOMENTS], log_squares_S, rtol=1e-9, atol=1e-9)


def test_moments_of_distributions_that_leave_no_choice_are_finite() -> None:
    hidden_SD, _, head = made(torch.float32, scale=300.0)
    best_S = head(hidden_SD).argmax(-1)
    moments = tempered_moments(hidden_SD, best_S, head, LogitTransform(), TEMPERATURES)
    assert bool(moments.isfinite().all()) and float(moments[:, :MOMENTS].abs().max()) < 1e-3


def test_a_token_drawn_from_the_model_surprises_as_expected_and_scatters_as_expected() -> None:
    hidden_SD, _, head = made()
    for temperature in TEMPERATURES:
        drawn = torch.multinomial(
            F.softmax(head(hidden_SD) / temperature, -1), 4000, True, generator=torch.Generator().manual_seed(1)
        )
        every = hidden_SD.repeat_interleave(4000, 0)
        moments = tempered_moments(every, drawn.flatten(), head, LogitTransform(), (temperature,))
        excess, variance = moments[:, 1], moments[:, 2]
        assert abs(float(excess.mean())) < 5 * math.sqrt(float(variance.mean()) / len(excess))
        assert float((excess**2).mean() / variance.mean()) == pytest.approx(1, abs=0.1)


def test_a_scorer_gives_them_beside_log_probabilities_of_shared_prompts_and_of_single_rows() -> None:
    scorer, columns = Scorer(tiny_model()), pairs(6)
    values = score(scorer, columns, torch.float32, 200, asked=Asked(squares=True, temperatures=(0.5, 1.0)))
    assert values.shape == (columns.scored_starts[-1], 2 + 2 * MOMENTS)
    plain = score(scorer, columns, torch.float32, 50)
    np.testing.assert_allclose(values[:, 0], plain, atol=1e-5)
    np.testing.assert_allclose(values[:, 2 + MOMENTS], -plain, atol=1e-5)
    np.testing.assert_allclose(values[:, 2] - 2 * values[:, 2 + MOMENTS], values[:, 1], atol=1e-5)
