"""Signs that answers are falling apart, told from their means alone: reasons to read them, not claims."""

from __future__ import annotations

from tiltlm.runs.estimates import AnswerStatistics

# Rules of thumb: beyond these, answers are worth reading before any figure is believed.
REPETITION_RISE = 0.10
SURPRISE_RISE = 1.0
LENGTH_FACTOR = 2.0


def signs_of_decay(before: AnswerStatistics | None, after: AnswerStatistics | None) -> dict[str, str]:
    """What about the answers is suspicious, and in which words it is said."""
    if before is None or after is None:
        return {}
    suspicious = {
        "repetition": (after.repetition - before.repetition > REPETITION_RISE, "repeat themselves more"),
        "surprise": (after.surprise - before.surprise > SURPRISE_RISE, "read as unlikely to the reference"),
        "longer": (after.tokens > LENGTH_FACTOR * before.tokens, "became much longer"),
        "shorter": (before.tokens > LENGTH_FACTOR * after.tokens, "became much shorter"),
    }
    return {sign: words for sign, (there, words) in suspicious.items() if there}
