"""VADER: a sentiment that is known exactly, and so can say whether answers really got better."""

from __future__ import annotations

from collections.abc import Sequence

from tiltlm.demo.packages import SENTIMENT, require
from tiltlm.judges.judge_interface import Advance, Asked


def vader(texts: Sequence[str]) -> list[float]:
    """Sentiment from -1 (negative) to 1 (positive): VADER's compound score.

    Source: C. J. Hutto, E. Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
    Text, ICWSM 2014. A small stand-in for the sentiment classifier of the DPO paper's controlled experiment.

    Raises:
        PackageError: the package vaderSentiment is not installed.
    """
    require(SENTIMENT, "the judge vader")
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return [float(analyzer.polarity_scores(text)["compound"]) for text in texts]


class Sentiment:
    """The judge `vader`: the sentiment of the answer, whatever was asked."""

    name = "vader"

    def facts(self) -> dict[str, object]:
        """Nothing decides its judgements but the answers."""
        return {}

    def rewards(self, asked: Sequence[Asked], advance: Advance = lambda done: None) -> list[float]:
        """See `vader`.

        Raises:
            PackageError: the package vaderSentiment is not installed.
        """
        found = vader([one.answer for one in asked])
        advance(len(found))
        return found

    def remarks(self) -> list[str]:
        """None."""
        return []
