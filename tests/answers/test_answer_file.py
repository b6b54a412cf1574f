"""Files of answers: what is written is read again, what is not understood is refused, a crash loses a line at most."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltlm.answers.answer_file import read_answers, to_line
from tiltlm.answers.answer_rows import AnswerRow, Compared, Drawn, JudgeFacts, SampledAnswer
from tiltlm.answers.growing_file import AnswerAppender
from tiltlm.data.examples import Message
from tiltlm.errors import DataError

DRAWN = Drawn("embedded", "ab12", 1.0, 128, 0, "0.4.0", "float32")
ROW = AnswerRow("p:1", "Say hello.", None, (SampledAnswer("Hello."), SampledAnswer("Hi.")))

_WHOLE = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
_FINITE = st.floats(allow_nan=False, allow_infinity=False)
_ANSWERS = st.builds(
    SampledAnswer,
    text=_WHOLE,
    tokens=st.none() | st.integers(0, 10**6),
    ended=st.none() | st.booleans(),
    logp=st.none() | _FINITE,
    ids=st.none() | st.lists(st.integers(0, 10**6), max_size=3).map(tuple),
    reward=_FINITE,
) | st.builds(SampledAnswer, text=_WHOLE, why=st.none() | _WHOLE.filter(bool))
_MESSAGES = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), _WHOLE)
_CHATS = st.lists(_MESSAGES, min_size=1, max_size=3).map(tuple)
_TOOLS = '[{"type": "function", "function": {"name": "f"}}]'
_PROMPTS = st.tuples(_WHOLE, st.none()) | st.tuples(_CHATS, st.none() | st.just(_TOOLS))
_ROWS = st.builds(
    lambda asked, **parts: AnswerRow(prompt=asked[0], tools=asked[1], **parts),
    _PROMPTS,
    id=_WHOLE.filter(lambda text: bool(text.strip())),
    answers=st.lists(_ANSWERS, min_size=2, max_size=4).map(tuple),
    drawn=st.none() | st.just(DRAWN),
    judge=st.none() | st.just(JudgeFacts("vader", {"threshold": 0.5})),
    compared=st.none() | st.just((Compared(0, 1, 0.5),)),
)


@given(rows=st.lists(_ROWS, min_size=1, max_size=4, unique_by=lambda row: row.id))
def test_rows_are_read_as_they_were_written(rows: list[AnswerRow], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    with AnswerAppender(path) as file:
        for row in rows:
            file.append(row)
    assert read_answers(path) == rows
    with AnswerAppender(path) as file:
        assert file.rows == rows


def test_a_line_of_ones_own_needs_a_prompt_and_answers_alone(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "Q", "answers": ["a", {"text": "b"}]}', encoding="utf-8-sig")
    (row,) = read_answers(path)
    assert row == AnswerRow("own.jsonl:1", "Q", None, (SampledAnswer("a"), SampledAnswer("b")))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answers": []}, "`answers` is empty"),
        ({"answers": "a"}, "`answers` is text"),
        ({"answers": [{"txt": "a"}]}, "did you mean `text`?"),
        ({"answers": [{"text": 3}]}, "`text` of answer 0 is a number"),
        ({"answers": [{"text": "a", "ended": 1}]}, "true or false"),
        ({"answers": [{"text": "a", "reward": True}]}, "should be a number"),
        ({"answers": [{"text": "a", "reward": float("nan")}]}, "not finite"),
        ({"answers": [{"text": "a", "why": "it failed"}]}, "no `reward`"),
        ({"answers": ["half \ud83d"]}, "half a character"),
        ({"prompt": "half \ud83d"}, "half a character"),
        ({"prompt": [{"role": "user", "content": "\udc00"}]}, "half a character"),
        ({"prompt": []}, "`prompt` is a list"),
        ({"prompt": [{"role": "user", "content": "a", "mood": "sad"}]}, "message key `mood`"),
        ({"promt": "x"}, "did you mean `prompt`?"),
        ({"compared": [{"first": 0, "second": 2, "wins": 1}]}, "answers 0 and 2"),
        ({"compared": [{"first": 0, "second": 1, "wins": 2}]}, "from 0 to 1"),
        ({"drawn": {"model": "m"}}, "`weights` of `drawn`"),
        ({"id": 3}, "`id` is a number"),
        ({"tools": [{"name": "f"}]}, "`prompt` is text"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_not_understood_is_refused_with_its_place(change: dict[str, object], says: str, tmp_path: Path) -> None:
    line = {"id": "one", "prompt": "Q", "answers": ["a", "b"], **change}
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError) as error:
        read_answers(path)
    assert says in str(error.value)
    assert f"{path}, line 1" in str(error.value)
    assert "id" in change or "(id `one`)" in str(error.value)


def test_two_lines_of_one_id_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(to_line(ROW) + "\n" + to_line(ROW) + "\n")
    with pytest.raises(DataError, match="line 2: the id `p:1` is that of line 1"):
        read_answers(path)


@pytest.mark.parametrize(
    "left", ["", "{", '{"id": "p:2", "prompt": "h\u00e9', "\0\0\0"], ids=["nothing", "brace", "half", "zeros"]
)
def test_a_line_cut_short_is_dropped_when_the_file_is_gone_on_with(left: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    whole = (to_line(ROW) + "\n").encode()
    path.write_bytes(whole + left.encode()[: -1 if left.endswith("\u00e9") else None])
    with AnswerAppender(path) as file:
        assert file.rows == [ROW]
    assert path.read_bytes() == whole


FOREIGN = {
    "array": b'[\n{"prompt": "Q", "chosen": "a"},\n{"prompt": "R", "chosen": "b"}]',
    "array of one line": b'[{"id": "p:1", "prompt": "Q"}]',
    "pairs without a last end": b'{"prompt": "Q", "chosen": "a"}\n{"prompt": "R", "chosen": "b"}',
    "one pair without an end": b'{"prompt": "Q", "chosen": "a"}',
    "prompt with an id": b'{"id": "p:1", "prompt": "Q"}',
    "text": b"my notes",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_anything_else_is_refused_and_stays_as_it_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(FOREIGN[name])
    with pytest.raises(DataError), AnswerAppender(path) as file:
        file.append(ROW)
    assert path.read_bytes() == FOREIGN[name]


def test_a_cut_line_stays_where_the_caller_refuses_the_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    content = (to_line(ROW) + "\n" + to_line(ROW)[:-9]).encode()
    path.write_bytes(content)
    with pytest.raises(RuntimeError), AnswerAppender(path) as file:
        assert file.rows == [ROW]
        raise RuntimeError
    assert path.read_bytes() == content


@pytest.mark.parametrize("kept", range(0, len(to_line(ROW)), 7))
def test_of_a_cut_first_line_only_a_whole_one_is_kept(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    line = to_line(ROW).encode()
    other = AnswerRow("p:2", "Q", None, ROW.answers)
    for left, rows in ((line[:kept], [other]), (line, [ROW, other])):
        path.write_bytes(left)
        with AnswerAppender(path) as file:
            file.append(other)
        assert read_answers(path) == rows


def test_a_line_cut_short_is_named_when_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(to_line(ROW) + "\n" + to_line(ROW)[:-9])
    with pytest.raises(DataError, match=r"line 2: not valid JSON .* may be cut short"):
        read_answers(path)


def test_what_no_file_can_hold_is_refused_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerAppender(path) as file:
        with pytest.raises(DataError, match="half a character"):
            file.append(AnswerRow("x", "half \ud83d", None, ROW.answers))
        with pytest.raises(DataError, match=r"not JSON compliant|Out of range"):
            file.append(AnswerRow("x", "Q", None, (SampledAnswer("a", logp=float("inf")),)))
    assert path.read_bytes() == b""


def test_one_process_at_a_time_writes(tmp_path: Path) -> None:
    with AnswerAppender(tmp_path / "answers.jsonl"), pytest.raises(DataError, match="another process"):
        AnswerAppender(tmp_path / "answers.jsonl")
