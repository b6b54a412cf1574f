"""Rewards that are known in advance, and so can say whether answers really got better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tiltlm.demo.packages import SENTIMENT, require

Reward = Callable[[Sequence[str]], list[float]]


def vader(texts: Sequence[str]) -> list[float]:
    """Sentiment from -1 (negative) to 1 (positive): VADER's compound score.

    Source: C. J. Hutto, E. Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
    Text, ICWSM 2014. A small stand-in for the sentiment classifier of the DPO paper's controlled experiment.

    Raises:
        PackageError: the package vaderSentiment is not installed.
    """
    require(PACKAGES["vader"], "the reward vader")
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return [float(analyzer.polarity_scores(text)["compound"]) for text in texts]


REWARDS: dict[str, Reward] = {"vader": vader}
"""Every known reward by its name in the configuration."""

PACKAGES: dict[str, tuple[str, ...]] = {"vader": SENTIMENT}
"""What a reward needs besides tiltlm's own dependencies: asked for before a run's work, not after it."""
