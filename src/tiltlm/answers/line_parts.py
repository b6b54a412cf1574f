"""The parts of a line, out of JSON: a part that is not understood is refused."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping

from tiltlm.answers.answer_rows import Compared, Drawn, JudgeFacts, SampledAnswer
from tiltlm.data.examples import Message, Text
from tiltlm.data.files.raw_rows import kind_of
from tiltlm.data.formats.fields import Fields, RowError, require_characters
from tiltlm.data.formats.messages import as_chat, as_tools

_WRONG = "not as documented"
_DRAWN = ("model", "weights", "temperature", "max_new_tokens", "seed", "tiltlm", "precision")
_ANSWER = ("text", "tokens", "ended", "logp", "ids", "reward", "why")
_NO_REASON = "no reason is given"


def refuse(detail: str) -> RowError:
    """The error of a part that is not understood."""
    return RowError(_WRONG, detail)


def require_known(table: Mapping[str, object], known: Collection[str], where: str) -> None:
    """Raises a RowError for a key that is none of those known."""
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}"
            raise refuse(f"`{key}` is no key of {where}: {hint}")


def prompt_of(value: object) -> Text:
    """Text as it stands, or the messages of a chat."""
    if isinstance(value, str):
        require_characters(value, "`prompt`")
        return value
    if not isinstance(value, list) or not value:
        raise refuse(f"`prompt` is {kind_of(value)}, and should be text or a list of messages")
    fields = Fields({})
    chat = as_chat(value, "`prompt`", fields)
    if fields.ignored:
        raise refuse(f"`prompt` holds what chat templates know nothing of: {', '.join(sorted(fields.ignored))}")
    for message in chat:
        _require_whole(message)
    return chat


def tools_of(value: object) -> str | None:
    """JSON text of the list of tools; None for null."""
    tools = None if value is None else as_tools(value, "`tools`")
    if tools is not None:
        require_characters(tools, "`tools`")
    return tools


def answers_of(value: object) -> tuple[SampledAnswer, ...]:
    """The answers of a list of texts or objects; there is at least one."""
    if not isinstance(value, list):
        raise refuse(f"`answers` is {kind_of(value)}, and should be a list")
    if not value:
        raise refuse("`answers` is empty")
    return tuple(_answer(item, f"answer {number}") for number, item in enumerate(value))


def _answer(value: object, where: str) -> SampledAnswer:
    if isinstance(value, str):
        value = {"text": value}
    table = _table(value, where)
    require_known(table, _ANSWER, where)
    why = None if table.get("why") is None else _text(table["why"], f"`why` of {where}")
    reward = _optional_number(table, "reward", where)
    if reward is None and "reward" in table:
        why = why or _NO_REASON
    elif reward is None and why is not None:
        raise refuse(f"{where} has a `why` and no `reward`: of a judge that failed `reward` is null")
    return SampledAnswer(
        text=_text(table.get("text"), f"`text` of {where}"),
        tokens=_optional_count(table, "tokens", where),
        ended=_optional_truth(table, "ended", where),
        logp=_optional_number(table, "logp", where),
        ids=_ids(table.get("ids"), where),
        reward=reward,
        why=why,
    )


def drawn_of(value: object) -> Drawn | None:
    """How the answers came about; None for null."""
    if value is None:
        return None
    table = _table(value, "`drawn`")
    require_known(table, _DRAWN, "`drawn`")
    return Drawn(
        model=_text(table.get("model"), "`model` of `drawn`"),
        weights=_text(table.get("weights"), "`weights` of `drawn`"),
        temperature=_number(table.get("temperature"), "`temperature` of `drawn`"),
        max_new_tokens=_count(table.get("max_new_tokens"), "`max_new_tokens` of `drawn`"),
        seed=_whole(table.get("seed"), "`seed` of `drawn`"),
        tiltlm=_text(table.get("tiltlm"), "`tiltlm` of `drawn`"),
        precision=None if table.get("precision") is None else _text(table["precision"], "`precision` of `drawn`"),
    )


def judge_of(value: object) -> JudgeFacts | None:
    """Who judged; None for null."""
    if value is None:
        return None
    table = _table(value, "`judge`")
    name = _text(table.get("name"), "`name` of `judge`")
    return JudgeFacts(name, {key: item for key, item in table.items() if key != "name"})


def compared_of(value: object, answers: int) -> tuple[Compared, ...] | None:
    """The comparisons of a line that has so many answers; None for null."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise refuse(f"`compared` is {kind_of(value)}, and should be a list")
    return tuple(_compared(item, f"comparison {number}", answers) for number, item in enumerate(value))


def _compared(value: object, where: str, answers: int) -> Compared:
    table = _table(value, where)
    require_known(table, ("first", "second", "wins"), where)
    first, second = (_count(table.get(side), f"`{side}` of {where}") for side in ("first", "second"))
    if first == second or max(first, second) >= answers:
        raise refuse(f"{where} is of the answers {first} and {second}, and there are answers 0 to {answers - 1}")
    wins = _number(table.get("wins"), f"`wins` of {where}")
    if not 0 <= wins <= 1:
        raise refuse(f"`wins` of {where} is {wins:g}, and should be from 0 to 1")
    return Compared(first, second, wins)


def _require_whole(message: Message) -> None:
    for text in (message.role, message.content, *(text for pair in message.further for text in pair)):
        require_characters(text, "`prompt`")


def _table(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise refuse(f"{where} is {kind_of(value)}, and should be an object")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise refuse(f"{where} is {kind_of(value)}, and should be text")
    require_characters(value, where)
    return value


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse(f"{where} is {kind_of(value)}, and should be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise refuse(f"{where} is not finite")
    return number


def _whole(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(f"{where} is {kind_of(value)}, and should be a whole number")
    return value


def _count(value: object, where: str) -> int:
    number = _whole(value, where)
    if number < 0:
        raise refuse(f"{where} is {number}, and should not be below 0")
    return number


def _optional_number(table: Mapping[str, object], key: str, where: str) -> float | None:
    return None if table.get(key) is None else _number(table[key], f"`{key}` of {where}")


def _optional_count(table: Mapping[str, object], key: str, where: str) -> int | None:
    return None if table.get(key) is None else _count(table[key], f"`{key}` of {where}")


def _optional_truth(table: Mapping[str, object], key: str, where: str) -> bool | None:
    value = table.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise refuse(f"`{key}` of {where} is {kind_of(value)}, and should be true or false")


def _ids(value: object, where: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise refuse(f"`ids` of {where} is {kind_of(value)}, and should be a list")
    return tuple(_count(item, f"a token of {where}") for item in value)
