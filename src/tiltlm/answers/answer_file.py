"""Files of answers: JSON lines, one a prompt, each complete in itself, and read strictly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from tiltlm.answers.answer_rows import AnswerRow, SampledAnswer
from tiltlm.answers.line_parts import (
    answers_of,
    compared_of,
    drawn_of,
    judge_of,
    prompt_of,
    refuse,
    require_known,
    tools_of,
)
from tiltlm.data.examples import Text
from tiltlm.data.files.json_items import DECODER, JSON_ERRORS
from tiltlm.data.files.raw_rows import kind_of
from tiltlm.data.formats.fields import RowError
from tiltlm.errors import DataError

LINE = ("id", "prompt", "tools", "answers", "drawn", "judge", "compared")
"""The keys that a line may have."""
_BOM = b"\xef\xbb\xbf"
_SHOWN_ID = 60


def read_answers(path: Path) -> list[AnswerRow]:
    """All lines of a file of answers; raises as `answers_in`."""
    return list(answers_in(path))


def answers_in(path: Path) -> Iterator[AnswerRow]:
    """The lines of a file of answers, one after another.

    Raises:
        DataError: it cannot be read, is empty, or something in it is not understood: names file, line and id.
    """
    some = False
    try:
        with path.open("rb") as stream:
            for row in rows_in(stream, path):
                some = True
                yield row
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not some:
        raise DataError(f"{path} holds no answers.")


def rows_in(lines: Iterable[bytes], path: Path) -> Iterator[AnswerRow]:
    """The rows of the lines of a file. path: named in messages.

    Raises:
        DataError: a line is not understood.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(_BOM) if number == 1 else line
        if not content.strip():
            continue
        row = _row(content, path, number)
        if row.id in seen:
            raise DataError(f"{path}, line {number}: the id `{row.id}` is that of line {seen[row.id]}, too.")
        seen[row.id] = number
        yield row


def _row(line: bytes, path: Path, number: int) -> AnswerRow:
    place = f"{path}, line {number}"
    try:
        value = DECODER.decode(line.decode("utf-8"))
    except JSON_ERRORS as error:
        cut = (
            ""
            if line.endswith(b"\n")
            else (
                " It is the last line and may be cut short: go on with the command that wrote it, or take the line out."
            )
        )
        raise DataError(f"{place}: not valid JSON in UTF-8: {error}.{cut}") from error
    if not isinstance(value, dict):
        raise DataError(f"{place}: {kind_of(value)}, and a line should be an object with `prompt` and `answers`.")
    id = value.get("id")
    if isinstance(id, str):
        place += f" (id `{id[:_SHOWN_ID]}`)"
    try:
        return _as_row(value, f"{path.name}:{number}")
    except RowError as problem:
        raise DataError(f"{place}: {problem.detail}.") from problem


def _as_row(value: dict[str, object], otherwise: str) -> AnswerRow:
    """The row of a line. otherwise: its id where it has none."""
    require_known(value, LINE, "a line")
    id = value.get("id")
    if id is None:
        id = otherwise
    elif not isinstance(id, str):
        raise refuse(f"`id` is {kind_of(id)}, and should be text")
    elif not id.strip():
        raise refuse("`id` is empty")
    if "answers" not in value or "prompt" not in value:
        raise refuse(f"`{'prompt' if 'prompt' not in value else 'answers'}` is missing")
    answers, prompt, tools = answers_of(value["answers"]), prompt_of(value["prompt"]), tools_of(value.get("tools"))
    if tools is not None and isinstance(prompt, str):
        raise refuse("`tools` are given to a chat template, and `prompt` is text: write it as a list of messages")
    return AnswerRow(
        id=id,
        prompt=prompt,
        tools=tools,
        answers=answers,
        drawn=drawn_of(value.get("drawn")),
        judge=judge_of(value.get("judge")),
        compared=compared_of(value.get("compared"), len(answers)),
    )


def to_line(row: AnswerRow) -> str:
    """The line of a row, without its end. `read_answers` reads the same row from it.

    Raises:
        DataError: a text holds half a character, or a number is not finite.
    """
    line: dict[str, object] = {
        "id": row.id,
        "prompt": prompt_value(row.prompt),
        "tools": None if row.tools is None else json.loads(row.tools),
        "answers": [_answer_value(answer) for answer in row.answers],
    }
    if row.drawn is not None:
        line["drawn"] = {key: item for key, item in asdict(row.drawn).items() if item is not None}
    if row.judge is not None:
        line["judge"] = {"name": row.judge.name, **row.judge.settings}
    if row.compared is not None:
        line["compared"] = [asdict(one) for one in row.compared]
    return json_line(line, row.id)


def json_line(line: object, id: str) -> str:
    """JSON text without line breaks, which UTF-8 can write.

    Raises:
        DataError: it cannot, or a number is not finite.
    """
    try:
        text = json.dumps(line, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{id!r}: its texts hold half a character ({error.reason}), which no file can.") from error
    except ValueError as error:
        raise DataError(f"{id}: {error}.") from error
    return text


def prompt_value(prompt: Text) -> object:
    """A prompt as a value of JSON: text, or a list of messages."""
    if isinstance(prompt, str):
        return prompt
    return [
        {"role": message.role, "content": message.content, **{key: json.loads(text) for key, text in message.further}}
        for message in prompt
    ]


def _answer_value(answer: SampledAnswer) -> dict[str, object]:
    value = {key: item for key, item in asdict(answer).items() if item is not None}
    if answer.why is not None:
        value["reward"] = answer.reward
    return value
