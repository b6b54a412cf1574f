"""A judge that is a list of regular expressions with points, in a TOML file."""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tiltlm.config.judge_words import JudgeWord
from tiltlm.config.suggestions import nearest
from tiltlm.errors import ConfigError
from tiltlm.judges.judge_interface import Advance, Asked

_KEYS = ("pattern", "points", "where", "per_match", "ignore_case", "name")
_PLACES = ("answer", "prompt")


@dataclass(frozen=True, slots=True)
class Rule:
    """A regular expression of Python's `re`, searched for in the answer or in the prompt.

    points: given once where it is found; with `per_match` for each place where it is.
    """

    pattern: re.Pattern[str]
    points: float
    where: str = "answer"
    per_match: bool = False
    name: str | None = None

    def points_for(self, asked: Asked) -> float:
        """The points of an answer by this rule."""
        text = asked.answer if self.where == "answer" else asked.prompt
        if self.per_match:
            return self.points * sum(1 for _ in self.pattern.finditer(text))
        return self.points if self.pattern.search(text) else 0.0


class Rules:
    """`FILE.toml`: the reward of an answer is the sum of the points of all rules."""

    def __init__(self, word: JudgeWord) -> None:
        """Reads the file.

        Raises:
            ConfigError: it cannot be read, or a rule in it is not understood; names file and rule.
        """
        self.name = word.word
        path = Path(word.target).expanduser()
        try:
            source = path.read_bytes()
            table = tomllib.loads(source.decode("utf-8"))
        except OSError as error:
            raise ConfigError(
                f"the rules {path} cannot be read ({error.strerror}); a path is taken from the working directory, "
                f"{Path.cwd()}."
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}.") from error
        self._digest = hashlib.sha256(source).hexdigest()
        self.rules = _rules(table, path)

    def facts(self) -> dict[str, object]:
        """SHA-256 of the file: other rules are another judge."""
        return {"source": self._digest}

    def rewards(self, asked: Sequence[Asked], advance: Advance = lambda done: None) -> list[float]:
        """The points of each answer."""
        found = []
        for one in asked:
            found.append(math.fsum(rule.points_for(one) for rule in self.rules))
            advance(1)
        return found

    def remarks(self) -> list[str]:
        """None."""
        return []


def _rules(table: Mapping[str, object], path: Path) -> tuple[Rule, ...]:
    if other := next((key for key in table if key != "rule"), None):
        raise ConfigError(f"{path}: `{other}` is not known there. It takes tables [[rule]] alone.")
    given = table.get("rule")
    if not isinstance(given, list) or not given:
        raise ConfigError(f"{path} holds no rules: write tables [[rule]] with `pattern` and `points`.")
    return tuple(_rule(one, f"{path}, rule {number}") for number, one in enumerate(given, start=1))


def _rule(given: object, place: str) -> Rule:
    if not isinstance(given, dict):
        raise ConfigError(f"{place} is no table.")
    name = given.get("name")
    if isinstance(name, str):
        place += f" ({name})"
    for key in given:
        if key not in _KEYS:
            meant = nearest(key, _KEYS)
            hint = f"Did you mean `{meant}`?" if meant else f"It takes {', '.join(_KEYS)}."
            raise ConfigError(f"{place}: `{key}` is not known. {hint}")
    pattern, points, where = given.get("pattern"), given.get("points"), given.get("where", "answer")
    if not isinstance(pattern, str):
        raise ConfigError(f"{place}: `pattern` should be a regular expression, as text.")
    if isinstance(points, bool) or not isinstance(points, int | float) or not math.isfinite(points):
        raise ConfigError(f"{place}: `points` should be a finite number, not {points!r}.")
    if where not in _PLACES:
        raise ConfigError(f"{place}: `where` is one of {', '.join(_PLACES)}, not {where!r}.")
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"{place}: `name` should be text, not {name!r}.")
    per_match, ignore_case = (_truth(given, key, place) for key in ("per_match", "ignore_case"))
    try:
        compiled = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise ConfigError(f"{place}: `{pattern}` is no regular expression: {error}.") from error
    if per_match and compiled.search("") is not None:
        raise ConfigError(f"{place}: `{pattern}` matches the empty text, which is everywhere: it cannot be counted.")
    return Rule(compiled, float(points), where, per_match, name)


def _truth(given: Mapping[str, object], key: str, place: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{place}: `{key}` is true or false, not {value!r}.")
    return value
