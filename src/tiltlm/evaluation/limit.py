"""The most reward that any policy can have at a price in KL, estimated from answers that the reference gave.

By Corollary 2 (frontier) of theory.pdf nothing lies above the reference tilted by the reward,

    pi_lambda(y|x) proportional to pi_ref(y|x) exp(lambda r(x, y)),

with one lambda = 1 / beta for all prompts where what is limited is their mean KL. Its reward and its KL are averages
under the reference with weights exp(lambda r), so answers drawn from the reference tell both: self-normalised
importance sampling (A. B. Owen, Monte Carlo theory, methods and examples (2013), chapter 9).

Shape suffixes: P prompts, N answers of the reference to each, L values of lambda, B resamples of prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FEWEST_EFFECTIVE = 5.0
"""Least effective number of answers a prompt, in the harmonic mean, on which a limit is told. The bias is then at most
a tenth of beta; with fewer its own estimate, the first term of a series in 1 / effective number, can be far off."""
LARGEST_LAMBDA = 1e6
"""Of rewards whose spread is 1. The tilt is then all on the best answers there are."""
_GRID = 600
"""Values of lambda at which resamples look for theirs."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The tilted reference at one price.

    reward: its mean reward, with what the estimate is too low by on average added. kl: in nats. beta: 1 / lambda, the
        reward that a nat more would buy; 0 where the price buys the best answer that was drawn, and more.
    effective: the effective number of answers a prompt, 1 / sum of squared weights, in the harmonic mean over the
        prompts whose rewards vary; all N where none do.
    bias: what was added.
    """

    reward: float
    kl: float
    beta: float
    effective: float
    bias: float

    @property
    def thin(self) -> bool:
        """Whether it rests on too few answers to be told, or its price lies beyond all that were drawn: what was not
        drawn may be better."""
        return self.effective < FEWEST_EFFECTIVE or self.beta == 0


class RewardLimit:
    """The limit for prompts with given answers of the reference.

    The mean reward at the price k is the least value over lambda of

        (k + mean over prompts of psi(lambda)) / lambda,    psi(lambda) = log mean over answers of exp(lambda r),

    and a logarithm of a mean lies below, on average, that of the expectation (Jensen): the estimate is too low, never
    too high, on average. To first order psi is too low by half of 1 / effective number - 1 / N, which is made good.
    """

    def __init__(self, rewards_PN: np.ndarray) -> None:
        """rewards_PN: of independent answers that the reference gave to each prompt, finite.

        Raises:
            ValueError: there are none.
        """
        if rewards_PN.ndim != 2 or not rewards_PN.size:
            raise ValueError("the limit takes rewards of answers to prompts, shape (P, N)")
        self._rewards_PN = rewards_PN.astype(np.float64)
        spread_P = self._rewards_PN.max(1) - self._rewards_PN.min(1)
        # A prompt whose answers are all alike has all of them at every tilt, whatever those not drawn are worth. So it
        # tells nothing of how many the others rest on.
        self._varies_P, spread = spread_P > 0, float(spread_P.max())
        self._largest = LARGEST_LAMBDA / spread if spread > 0 else 0.0

    @property
    def reference(self) -> float:
        """Mean reward of the reference."""
        return float(self._rewards_PN.mean())

    def tilted(self, lam: float) -> Limit:
        """The reference tilted by lambda."""
        reward_P, kl_P, effective_P = _tilted(self._rewards_PN, lam)
        bias = _correction(effective_P, self._rewards_PN.shape[1], lam)
        varies_P = self._varies_P if self._largest else slice(None)
        effective = 1 / float((1 / effective_P[varies_P]).mean())
        return Limit(float(reward_P.mean()) + bias, float(kl_P.mean()), 1 / lam if lam else math.inf, effective, bias)

    def at(self, kl: float) -> Limit:
        """The limit at a price, in nats; that of the best answers drawn where it buys more."""
        if kl <= 0 or not self._largest:
            return self.tilted(0.0)
        dearest = self.tilted(self._largest)
        if dearest.kl <= kl:
            return Limit(dearest.reward, kl, 0.0, dearest.effective, dearest.bias)
        low, high = 0.0, self._largest
        for _ in range(200):
            middle = (low + high) / 2 if low == 0 else math.sqrt(low * high)
            low, high = (middle, high) if float(_tilted(self._rewards_PN, middle)[1].mean()) < kl else (low, middle)
            if low > 0 and high / low < 1 + 1e-12:
                break
        return self.tilted(high)

    def curve(self, points: int, up_to: float) -> list[Limit]:
        """Limits at prices from 0 to `up_to` nats, or to the last price that is not thin.

        The prices are evenly spaced in their square root, of which the reward is nearly linear at first, so that the
        chord between two points hardly cuts into what can be reached.
        """
        last = self._last_told(up_to)
        found = [self.at(last * share**2) for share in np.linspace(0.0, 1.0, points)]
        return [limit for limit in found if not limit.thin]

    def _last_told(self, up_to: float) -> float:
        """The highest price up to `up_to` nats that is not thin; every effective number falls as lambda rises."""
        if not self.at(up_to).thin:
            return up_to
        told, thin = 0.0, up_to
        for _ in range(40):
            middle = (told + thin) / 2
            told, thin = (told, middle) if self.at(middle).thin else (middle, thin)
        return told

    def resampled(self, shares_BP: np.ndarray, kl_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of resamples of the prompts: the reference's mean reward, and the limit at a price; shape (B,) both.

        Args:
            shares_BP: the share of each prompt in each resample. kl_B: its price, in nats.
        """
        means_B = shares_BP @ self._rewards_PN.mean(1)
        if not self._largest:
            return means_B, means_B
        lambda_L = np.geomspace(self._largest * 1e-10, self._largest, _GRID)
        psi_PL, missed_PL = self._along(lambda_L)
        dual_BL = (kl_B[:, None] + shares_BP @ psi_PL) / lambda_L
        best_B = dual_BL.argmin(1)
        missed_B = (shares_BP * missed_PL[:, best_B].T).sum(1)
        limit_B = np.where(kl_B > 0, np.maximum(dual_BL.min(1), means_B) + missed_B, means_B)
        return means_B, limit_B

    def _along(self, lambda_L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """psi of each prompt, and what is added to its reward, at each lambda; shape (P, L) both."""
        psi, missed = [], []
        best_P, answers = self._rewards_PN.max(1), self._rewards_PN.shape[1]
        for lam in lambda_L:
            shifted_PN = np.exp(lam * (self._rewards_PN - best_P[:, None]))
            psi.append(lam * best_P + np.log(shifted_PN.mean(1)))
            effective_P = shifted_PN.sum(1) ** 2 / (shifted_PN**2).sum(1)
            missed.append((1 / effective_P - 1 / answers) / (2 * lam))
        return np.stack(psi, 1), np.stack(missed, 1)


def _tilted(rewards_PN: np.ndarray, lam: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean reward, KL in nats and effective number of answers of each prompt's tilt; shape (P,) each."""
    log_weights_PN = lam * (rewards_PN - rewards_PN.max(1, keepdims=True))
    weights_PN = np.exp(log_weights_PN)
    total_P = weights_PN.sum(1)
    weights_PN /= total_P[:, None]
    kl_P = (weights_PN * (log_weights_PN - np.log(total_P)[:, None])).sum(1) + math.log(rewards_PN.shape[1])
    return (weights_PN * rewards_PN).sum(1), kl_P, 1 / (weights_PN**2).sum(1)


def _correction(effective_P: np.ndarray, answers: int, lam: float) -> float:
    return float((1 / effective_P - 1 / answers).mean()) / (2 * lam) if lam else 0.0


def best_of(rewards_PN: np.ndarray, n: int) -> np.ndarray:
    """Expected reward of the best of n answers to each prompt, shape (P,), without bias.

    The mean of the maximum over all ways to take n of the N answers, by order statistics.

    Raises:
        ValueError: there are fewer than n answers.
    """
    answers = rewards_PN.shape[1]
    if not 1 <= n <= answers:
        raise ValueError(f"the best of {n} of {answers} answers is not defined")
    # C(k, n - 1) / C(N, n) of the answer with k worse ones.
    log_ways = np.array([_log_choose(worse, n - 1) for worse in range(answers)]) - _log_choose(answers, n)
    found: np.ndarray = np.sort(rewards_PN, axis=1) @ np.exp(log_ways)
    return found


def best_of_kl(n: int) -> float:
    """KL of the best of n from the reference, in nats: log n - (n - 1) / n, less where answers have equal rewards.

    Source: A. Beirami et al., arXiv 2401.01879, which proves that it is a bound.
    """
    return math.log(n) - (n - 1) / n


def _log_choose(n: int, k: int) -> float:
    if k > n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
