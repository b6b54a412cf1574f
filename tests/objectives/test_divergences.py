"""f-DPO: the divergences by hand, and what happens far away."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, ell, loss_of, rewards_of

from tiltlm.config.loss_config import LossConfig
from tiltlm.errors import ConfigError
from tiltlm.objectives.divergences import FAR, reward_per_beta
from tiltlm.objectives.dpo import SIGMOID
from tiltlm.objectives.hinges import HINGE
from tiltlm.objectives.interface import Objective
from tiltlm.objectives.noise import ROBUST

READERS = [SIGMOID, ROBUST, HINGE]
KINDS = ["reverse_kl", "forward_kl", "js", "alpha"]


def g(kind: str, q: float, a: float = 0.5) -> float:
    """As in arXiv 2309.16240, Table 1: f'(u) at u = exp(q), moved so that it is 0 at u = 1."""
    u = math.exp(q)
    if kind == "forward_kl":
        return 1 - 1 / u
    if kind == "js":
        return math.log(2 * u / (1 + u))
    if kind == "alpha":
        return float(1 - u ** (-a)) / a
    return q


@pytest.mark.parametrize(
    ("kind", "rewards"),
    [
        ("forward_kl", [0.0864665, -14.7413159]),
        ("js", [0.0566219, -0.4313568]),
        ("alpha", [0.1264241, -2.2364988]),
    ],
)
def test_worked_by_hand(kind: str, rewards: list[float]) -> None:
    """Log-ratios 2 and -5, beta 0.1. forward_kl: 1 - e^-2 = 0.864665 and 1 - e^5 = -147.413159. js: ln 2 +
    ln(1/(1+e^-2)) = 0.566219 and ln 2 + ln(1/(1+e^5)) = -4.313568. alpha 0.5: 2 (1 - e^-1) = 1.264241 and 2 (1 - e^2.5)
    = -22.364988."""
    assert rewards_of(SIGMOID, BY_HAND, beta=0.1, divergence=kind) == pytest.approx(rewards, abs=1e-6)
    loss = math.log1p(math.exp(rewards[1] - rewards[0]))
    assert loss_of(SIGMOID, BY_HAND, beta=0.1, divergence=kind) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_reference_rewards_are_0(kind: str) -> None:
    for objective in READERS:
        assert rewards_of(objective, AT_REFERENCE, divergence=kind) == pytest.approx([0, 0], abs=1e-15)
    assert loss_of(SIGMOID, AT_REFERENCE, divergence=kind) == pytest.approx(math.log(2))


@given(any_pair, st.sampled_from(KINDS), st.floats(0.01, 0.99), st.floats(0.01, 2))
@settings(deadline=None)
def test_as_plain_python_has_it(pair: Pair, kind: str, a: float, beta: float) -> None:
    """Within what exp(20) reaches: log-ratios are cut to it here."""
    near = [max(-FAR, min(FAR, q)) for q in (pair.up, pair.down)]
    cut = Pair(near[0], near[1], 0.0, 0.0)
    own = {"divergence_alpha": a} if kind == "alpha" else {}
    margin = g(kind, near[0], a) - g(kind, near[1], a)
    assert loss_of(SIGMOID, cut, beta=beta, divergence=kind, **own) == pytest.approx(ell(beta * margin), rel=1e-7)
    assert loss_of(HINGE, cut, beta=beta, divergence=kind, **own) == pytest.approx(
        max(0, 1 - beta * margin), rel=1e-7, abs=1e-7
    )
    robust = (0.8 * ell(beta * margin) - 0.2 * ell(-beta * margin)) / 0.6
    found = loss_of(ROBUST, cut, beta=beta, label_smoothing=0.2, divergence=kind, **own)
    assert found == pytest.approx(robust, rel=1e-7, abs=1e-7 * (1 + beta * abs(margin)))


@given(st.floats(-19, 19))
def test_the_alpha_divergence_lies_between_both_kls(q: float) -> None:
    """(1 - exp(-a q)) / a tends to q as a tends to 0, and to 1 - exp(-q) as a tends to 1."""
    ratio = torch.tensor([q], dtype=torch.float64)
    for a, kind in ((1e-9, "reverse_kl"), (1 - 1e-12, "forward_kl")):
        wanted = reward_per_beta(ratio, kind, 0.5)
        torch.testing.assert_close(reward_per_beta(ratio, "alpha", a), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["forward_kl", "alpha"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_below_an_exponent_of_20_exp_goes_on_as_its_tangent(kind: str, dtype: torch.dtype) -> None:
    """At q = -100: 1 - e^20 - e^20 * 80 for the forward KL, where e^100 has no float32; and the slope stays e^20, so
    that an answer that fell far is still drawn up."""
    ratios = torch.tensor([-100.0, -1e4, -FAR], dtype=dtype, requires_grad=True)
    scale = 1.0 if kind == "forward_kl" else 0.5
    rewards = reward_per_beta(ratios, kind, 0.5)
    rewards.sum().backward()
    wanted = [(1 - math.exp(20) * (1 + max(0.0, scale * q - 20))) / scale for q in (100.0, 1e4, FAR)]
    wanted[2] = (1 - math.exp(scale * FAR)) / scale
    assert rewards.tolist() == pytest.approx(wanted, rel=1e-6)
    assert ratios.grad is not None
    assert ratios.grad[:2].tolist() == pytest.approx([math.exp(20)] * 2, rel=1e-6)


@pytest.mark.parametrize("objective", READERS, ids=lambda objective: objective.name)
def test_a_coefficient_that_nothing_reads_is_refused(objective: Objective) -> None:
    with pytest.raises(ConfigError, match=r"\[loss\] divergence_alpha has no effect on the divergence `js`"):
        LossConfig(objective.name, divergence="js", divergence_alpha=0.3)
    assert LossConfig(objective.name, divergence="alpha", divergence_alpha=0.3).settings.divergence_alpha == 0.3


def test_the_papers_coefficient_is_not_trls() -> None:
    """The paper's alpha 0.2 is TRL's f_alpha_divergence_coef 0.8: (exp((c - 1) q)) / (c - 1), c = 1 - alpha."""
    trl = [math.exp((0.8 - 1) * q) / (0.8 - 1) for q in (BY_HAND.up, BY_HAND.down)]
    found = loss_of(SIGMOID, BY_HAND, divergence="alpha", divergence_alpha=0.2)
    assert found == pytest.approx(ell(0.1 * (trl[0] - trl[1])))
