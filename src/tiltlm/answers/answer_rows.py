"""A prompt with the answers that were drawn to it, and what a judge said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tiltlm.data.examples import Text


@dataclass(frozen=True, slots=True)
class Drawn:
    """How a line's answers came about.

    model: as it was named. weights: a digest of all that decides its answers. temperature: of the softmax.
    max_new_tokens: of an answer. precision: the arithmetic, such as `float32`; None where the file does not say.
    tiltlm: the version that drew.
    """

    model: str
    weights: str
    temperature: float
    max_new_tokens: int
    seed: int
    tiltlm: str
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """One answer. What its file does not say is None.

    tokens: how many, an end-of-sequence token included. ended: whether the model ended by itself; False where the
        answer was cut at the most tokens there may be. logp: log pi(y|x) at the temperature of the draw, nats.
    ids: its tokens, that end included.
    reward: what a judge gave; None where none has judged it, or the judge failed: then `why` says so.
    """

    text: str
    tokens: int | None = None
    ended: bool | None = None
    logp: float | None = None
    ids: tuple[int, ...] | None = None
    reward: float | None = None
    why: str | None = None

    @property
    def judged(self) -> bool:
        """Whether a judge has seen it, even one that failed."""
        return self.reward is not None or self.why is not None


@dataclass(frozen=True, slots=True)
class Compared:
    """Two answers of a line, by their places in it, and how often the first one won: 1, 0, or 0.5 a tie."""

    first: int
    second: int
    wins: float


@dataclass(frozen=True, slots=True)
class JudgeFacts:
    """Who judged, and with what settings, which are values of JSON."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One line of a file of answers.

    id: names the line in messages, and is its own in the file. prompt: text as it stands, or a chat.
    tools: JSON text of the list of tools that the chat template is given; None where there are none.
    """

    id: str
    prompt: Text
    tools: str | None
    answers: tuple[SampledAnswer, ...]
    drawn: Drawn | None = None
    judge: JudgeFacts | None = None
    compared: tuple[Compared, ...] | None = None
