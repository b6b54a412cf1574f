"""A judge that is a Python function of a user's own. Its code is run because it was named."""

from __future__ import annotations

import hashlib
import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from pathlib import Path

from tiltlm.config.judge_words import JudgeWord
from tiltlm.errors import ConfigError, JudgeError
from tiltlm.judges.judge_interface import Advance, Asked
from tiltlm.objectives.own_file import executed, raised_in

_SHOWN = 80
_TRIED = (Asked("What is 2 + 2?", None, "It is 4."), Asked("What is 2 + 2?", None, ""))
"""Answers that a function is tried on before the work: an empty one is as good as any that a model gives."""


class OwnFunction:
    """`FILE.py:FUNCTION`: a function of the answer, or of the prompt and the answer, that returns a number.

    Parameters called `prompt` and `answer` get what they are called, in any order, and beside one of these the other
    one gets the other text; otherwise a single one is the answer, and the first of two is the prompt. Those with
    defaults keep them.
    """

    def __init__(self, word: JudgeWord) -> None:
        """Runs the file.

        Raises:
            ConfigError: there is no such file, it fails, or it holds no such function.
        """
        self.name = word.word
        path = Path(word.target).expanduser()
        try:
            source = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"the judge `{self.name}` cannot be had: {path} cannot be read ({error.strerror}); a path is taken "
                f"from the working directory, {Path.cwd()}."
            ) from error
        module = executed(path, source, "the judge's file")
        found = vars(module).get(word.function)
        if not callable(found):
            there = [name for name, value in vars(module).items() if inspect.isfunction(value)]
            listed = f"It has: {', '.join(there)}." if there else "It has no function."
            raise ConfigError(
                f"the judge `{self.name}` cannot be had: there is no function `{word.function}` in {path}. {listed}"
            )
        self._path, self._digest = str(module.__file__), hashlib.sha256(source).hexdigest()
        self._call = _called(found, self.name)

    def facts(self) -> dict[str, object]:
        """SHA-256 of the file: another source is another judge."""
        return {"source": self._digest}

    def try_out(self) -> None:
        """Judges two answers of no importance, one of them empty: a mistake is found before the work.

        Raises:
            JudgeError: as `rewards`.
        """
        self.rewards(_TRIED)

    def rewards(self, asked: Sequence[Asked], advance: Advance = lambda done: None) -> list[float]:
        """What the function returns of each.

        Raises:
            JudgeError: it fails, or returns something else than a finite number; names the answer.
        """
        found = []
        for number, one in enumerate(asked, start=1):
            try:
                value = self._call(one.prompt, one.answer)
            except (Exception, SystemExit) as error:  # whatever a stranger's code raises
                raise JudgeError(
                    f"the judge `{self.name}` fails at answer {number} ({_shown(one)}): {raised_in(self._path, error)}."
                ) from error
            number_found = _finite(value)
            if number_found is None:
                what = f"{type(value).__name__} {_in_short(value)}"
                raise JudgeError(
                    f"the judge `{self.name}` returned {what} for answer {number} ({_shown(one)}); a finite number is "
                    "needed."
                )
            found.append(number_found)
            advance(1)
        return found

    def remarks(self) -> list[str]:
        """None."""
        return []


def _called(function: Callable[..., object], name: str) -> Callable[[str, str], object]:
    """The function as one of prompt and answer."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the judge `{name}` does not say which parameters it has: {error}.") from error
    needed = [
        one for one in parameters if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    names = [one.name for one in needed]
    if set(names) == {"prompt", "answer"} and all(one.kind is not one.POSITIONAL_ONLY for one in needed):
        return lambda prompt, answer: function(prompt=prompt, answer=answer)
    if any(one.kind is one.KEYWORD_ONLY for one in needed) or len(names) not in (1, 2) or names in (["prompt"],):
        took = f"it takes ({', '.join(names)})" if names else "it takes none"
        raise ConfigError(f"the judge `{name}` should be a function of (answer) or of (prompt, answer); {took}.")
    if len(names) == 1:
        return lambda prompt, answer: function(answer)
    # One of two that is called by its name says what the other one is.
    if names[0] == "answer" or names[1] == "prompt":
        return lambda prompt, answer: function(answer, prompt)
    return lambda prompt, answer: function(prompt, answer)


def _finite(value: object) -> float | None:
    """A value as a number; None where it is none, or no finite one."""
    try:
        found = float(value) if isinstance(value, numbers.Real) else math.inf
    except OverflowError:  # a whole number beyond all floating-point ones
        return None
    return found if math.isfinite(found) else None


def _in_short(value: object) -> str:
    try:
        return f"{value!r:.60}"
    except ValueError:  # more digits than Python writes out
        return "of too many digits"


def _shown(asked: Asked) -> str:
    text = " ".join(asked.answer.split())
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
