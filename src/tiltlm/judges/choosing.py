"""From the word that names a judge to the judge, with its options; those that it would not read are refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tiltlm.config import HubConfig
from tiltlm.config.judge_words import NONE, JudgeWord, Kind, judge_word
from tiltlm.demo.packages import SENTIMENT, require
from tiltlm.errors import ConfigError
from tiltlm.judges.judge_interface import PointwiseJudge
from tiltlm.judges.labels import Labels
from tiltlm.judges.own_function import OwnFunction
from tiltlm.judges.rules import Rules
from tiltlm.judges.sentiment import Sentiment

if TYPE_CHECKING:
    from tiltlm.judges.language_model import LanguageModel

REQUIRED: dict[Kind, tuple[str, ...]] = {"vader": SENTIMENT}
"""What a kind of judge needs besides tiltlm's own dependencies: asked for before any work, not after it."""


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """What some judges need to be told besides their word. None: nothing was said.

    Of a reward model: label, form, device. The rest is of a language model; see `language_model.Asking`.
    key_variable: the environment variable that holds the key. prices: of a million tokens read, and written.
    tries, timeout: of one request, the latter in seconds.
    """

    hub: HubConfig = field(default_factory=HubConfig)
    label: str | None = None
    form: str | None = None
    device: str | None = None
    model: str | None = None
    key_variable: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    tokens_option: str | None = None
    at_once: int | None = None
    criterion: str | None = None
    prices: tuple[float, float] | None = None
    tries: int | None = None
    timeout: float | None = None


_ASKING = ("model", "temperature", "max_tokens", "tokens_option", "at_once", "criterion")
_READ: dict[Kind, tuple[str, ...]] = {
    "model": ("label", "form", "device"),
    "language-model": (*_ASKING, "key_variable", "prices", "tries", "timeout"),
}
_FORMS = ("auto", "chat", "pair", "joined", "answer")


def pointwise_judge(word: str, hub: HubConfig, options: JudgeOptions | None = None) -> PointwiseJudge:
    """The judge that a word names, which gives one answer a number. A Python file that it names is run.

    Raises:
        ConfigError: it names no such judge, or a file that cannot be used.
        ModelError: the reward model cannot be had.
        PackageError: it needs a package that is not installed.
    """
    named = judge_word(word)
    options = options or JudgeOptions(hub)
    require(REQUIRED.get(named.kind, ()), f"the judge {word}")
    if named.kind == "vader":
        return Sentiment()
    if named.kind == "function":
        return OwnFunction(named)
    if named.kind == "rules":
        return Rules(named)
    if named.kind == "model":
        # Imported late: it brings PyTorch along.
        from tiltlm.judges.reward_model import RewardModel

        form = options.form or "auto"
        if form not in _FORMS:
            raise ConfigError(f"the form of a judge's texts cannot be `{form}`; it is one of {', '.join(_FORMS)}.")
        return RewardModel(named, hub, options.label, form, options.device or "cpu")  # type: ignore[arg-type]
    raise ConfigError(f"the judge `{word}` gives no number to an answer that stands alone.")


def chosen_judge(word: str, options: JudgeOptions) -> PointwiseJudge | LanguageModel | Labels:
    """The judge of any kind that a word names, with its options.

    Raises:
        ConfigError: it names none, lacks an option, or was given one that it does not read.
        TiltlmError: as `pointwise_judge`; the labels cannot be read.
    """
    named = judge_word(word)
    require_read(named, options)
    if named.kind == "labels":
        return Labels(named)
    if named.kind == "language-model":
        return _language_model(named, options)
    return pointwise_judge(word, options.hub, options)


def require_read(word: JudgeWord, options: JudgeOptions) -> None:
    """Refuses options that a kind of judge does not read.

    Raises:
        ConfigError: one was given.
    """
    for one in dataclasses.fields(options):
        if one.name != "hub" and getattr(options, one.name) is not None and one.name not in _READ.get(word.kind, ()):
            flag = one.name.replace("_", "-")
            raise ConfigError(f"--{flag} has no effect on the judge `{word.word}`: leave it out.")


def require_reward(word: str, hub: HubConfig) -> None:
    """Looks before a run's work whether the judge of `comparison.reward` will do; a function is tried out.

    Raises:
        TiltlmError: it will not.
    """
    if word == NONE:
        return
    named = judge_word(word)
    require(REQUIRED.get(named.kind, ()), f"comparison.reward {word}")
    judge = pointwise_judge(word, hub)
    if isinstance(judge, OwnFunction):
        judge.try_out()


def _language_model(word: JudgeWord, options: JudgeOptions) -> LanguageModel:
    from tiltlm.judges.chat_requests import ChatAddress, Patience
    from tiltlm.judges.language_model import Asking, LanguageModel, Prices

    if options.model is None:
        raise ConfigError(f"the judge `{word.word}` needs the name of its model there: --model NAME.")
    given = {name: value for name in _ASKING if (value := getattr(options, name)) is not None}
    patience = {name: value for name in ("tries", "timeout") if (value := getattr(options, name)) is not None}
    if any(value <= 0 for value in patience.values()):
        raise ConfigError("--tries and --timeout of a judge must be above 0.")
    if options.prices is not None and min(options.prices) < 0:
        raise ConfigError("--prices are two numbers from 0 on: of a million tokens read, and of a million written.")
    address = ChatAddress(word.target, options.key_variable, Patience(**patience))
    prices = None if options.prices is None else Prices(*options.prices)
    return LanguageModel(word, Asking(**given), address, prices)
