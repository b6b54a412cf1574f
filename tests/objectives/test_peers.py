"""Values that TRL 1.16.0 gives in float64, its loss functions run on these log-probabilities.

For `kto` it gives the batch's mean. Over 200 random batches with random settings the five differ from TRL's by at most
1e-14; `label_smoothing` is left out, which TRL does not read in its sigmoid loss.
"""

from __future__ import annotations

from typing import Any

import pytest

from tiltlm.api.loss_values import loss

CHOSEN, REFERENCE_CHOSEN = [-1.25, -0.5, -2.0, -0.25], [-1.5, -1.0, -1.75, -1.0]
REJECTED, REFERENCE_REJECTED = [-3.0, -1.0], [-2.0, -1.5]
POLICY: dict[str, Any] = {"chosen": [sum(CHOSEN)], "rejected": [sum(REJECTED)]}
REFERENCE: dict[str, Any] = {
    "reference_chosen": [sum(REFERENCE_CHOSEN)],
    "reference_rejected": [sum(REFERENCE_REJECTED)],
}
TOKENS: dict[str, Any] = {"chosen_tokens": [len(CHOSEN)], "rejected_tokens": [len(REJECTED)]}


def mean(losses: object) -> float:
    assert isinstance(losses, list)
    return float(sum(losses) / len(losses))


def test_sigmoid() -> None:
    assert mean(loss("sigmoid", **POLICY, **REFERENCE, beta=0.3)) == pytest.approx(0.46471175467299347, rel=1e-14)


def test_ipo() -> None:
    found = mean(loss("ipo", **POLICY, **REFERENCE, **TOKENS, beta=0.3))
    assert found == pytest.approx(1.219184027777778, rel=1e-14)


def test_ld_dpo() -> None:
    """TRL: loss_type sigmoid with ld_alpha."""
    found = loss(
        "ld_dpo",
        chosen_token_logps=[CHOSEN],
        rejected_token_logps=[REJECTED],
        reference_chosen_token_logps=[REFERENCE_CHOSEN],
        reference_rejected_token_logps=[REFERENCE_REJECTED],
        beta=0.3,
        alpha=0.25,
    )
    assert mean(found) == pytest.approx(0.5080176029777267, rel=1e-14)


def test_simpo() -> None:
    """TRL: CPOTrainer.cpo_loss with simpo_gamma 0.75, which is 0.5 times beta."""
    found = mean(loss("simpo", **POLICY, **TOKENS, beta=1.5, gamma_beta_ratio=0.5))
    assert found == pytest.approx(0.38687100611489994, rel=1e-14)


def test_kto() -> None:
    """Mismatched log-ratios 1 and -0.5: z is 0.25."""
    others: dict[str, Any] = {"mismatched": [-4.0, -2.5], "reference_mismatched": [-5.0, -2.0]}
    found = loss("kto", **POLICY, **REFERENCE, **others, beta=0.3, desirable_weight=1.2, undesirable_weight=0.9)
    assert mean(found) == pytest.approx(0.4551282391679256, rel=1e-14)
