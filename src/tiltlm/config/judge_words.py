"""The word that names a judge of answers: which kinds there are, and what a word has to look like."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tiltlm.config.suggestions import nearest
from tiltlm.errors import ConfigError

Kind = Literal["vader", "function", "rules", "model", "language-model", "labels"]

NONE = "none"
_FUNCTION = re.compile(r"(?P<file>.+\.py):(?P<name>\w+)")
LABELS = "labels:"
"""What the word begins with that names a file of what people said."""
_PREFIXES = ("model:", LABELS)
_POINTWISE: frozenset[Kind] = frozenset({"vader", "function", "rules", "model"})
"""Judges that give one answer a number. The others compare answers, or know some answers alone."""
_FORMS = {
    "vader": "vader (sentiment)",
    "function": "FILE.py:FUNCTION (a Python function)",
    "rules": "FILE.toml (regular expressions with points)",
    "model": "model:NAME (a transformers sequence classifier, a folder or a hub id)",
    "language-model": "http://HOST/v1 or https://HOST/v1 (an OpenAI-compatible address)",
    "labels": "labels:FILE.jsonl (what people said)",
}


@dataclass(frozen=True, slots=True)
class JudgeWord:
    """A judge's word, taken apart.

    target: what stands behind the kind: a file, a model or an address; the word itself for `vader`.
    function: the name of the function of a Python file; empty for other kinds.
    """

    kind: Kind
    word: str
    target: str
    function: str = ""

    @property
    def pointwise(self) -> bool:
        """Whether the judge gives one answer a number."""
        return self.kind in _POINTWISE


def judge_word(word: str) -> JudgeWord:
    """Takes a judge's word apart; nothing that it names is opened.

    Raises:
        ConfigError: it names no kind of judge, or a kind without what belongs to it.
    """
    if word == "vader":
        return JudgeWord("vader", word, word)
    if (named := _FUNCTION.fullmatch(word)) is not None and not word.startswith(_PREFIXES):
        return JudgeWord("function", word, named["file"], named["name"])
    kind, _, target = word.partition(":")
    if kind in ("model", "labels") and target.strip():
        return JudgeWord("model" if kind == "model" else "labels", word, target)
    if word.lower().startswith(("http://", "https://")):
        return JudgeWord("language-model", word, word)
    if word.endswith(".toml") and len(word) > len(".toml") and "://" not in word:
        return JudgeWord("rules", word, word)
    raise ConfigError(f"`{word}` names no judge. {_hint(word)}It is one of: {'; '.join(_FORMS.values())}.")


def _hint(word: str) -> str:
    if word.endswith(".py"):
        return f"A Python file needs the name of a function in it: {word}:FUNCTION. "
    if "://" in word:
        return "An address begins with http:// or https://. "
    near = nearest(word, [NONE, "vader"])
    return f"Did you mean `{near}`? " if near else ""


def reward_word(word: str) -> str:
    """The word of `comparison.reward` itself: `none`, or that of a judge that gives one answer a number.

    Raises:
        ValueError: it is neither; the message goes on behind the option's name.
    """
    if word == NONE:
        return word
    try:
        named = judge_word(word)
    except ConfigError as error:
        possible = "; ".join(_FORMS[kind] for kind in _FORMS if kind in _POINTWISE)
        raise ValueError(f"cannot be `{word}`. {_hint(word)}It is none, or one of: {possible}.") from error
    if not named.pointwise:
        raise ValueError(
            f"cannot be `{word}`: it gives no number to an answer that stands alone. "
            "Compare answers with it by tiltlm judge."
        )
    return word


def is_own_code(word: str) -> bool:
    """Whether judging by it runs a Python file of a user's own, which no run's recorded settings may bring about."""
    return word != NONE and judge_word(word).kind == "function"


def require_no_own_code(rewards: Iterable[str]) -> None:
    """Refuses Python files that judge answers, for a sweep: its kept plan names them, and may be somebody else's.

    rewards: of `comparison.reward`.

    Raises:
        ConfigError: one is such a file.
    """
    if own := next((reward for reward in rewards if is_own_code(reward)), None):
        raise ConfigError(
            f"comparison.reward is `{own}`, a Python file, and a sweep runs none: take another judge, or train it once "
            "for each setting (tiltlm train)."
        )
