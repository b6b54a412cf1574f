"""Prompts out of data: each different one once, whatever the data are, and the rest counted and listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiltlm import demo
from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.examples import Message
from tiltlm.data.prompt_rows import FoundPrompts, read_prompts
from tiltlm.errors import DataError

HI = (Message("user", "Hi"),)
CHAT = [{"role": "user", "content": "Hi"}]


def found(folder: Path, rows: list[object], name: str = "rows.jsonl") -> FoundPrompts:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_prompts(str(folder / name), DataConfig(), HubConfig())


@pytest.mark.parametrize(
    ("row", "prompt", "alone"),
    [
        ({"prompt": "Hi"}, "Hi", True),
        ({"prompt": CHAT}, HI, False),
        ({"prompt": "Hi", "system": "Be kind."}, (Message("system", "Be kind."), *HI), False),
        ({"prompt": "Hi", "answers": ["a", "b"]}, "Hi", True),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, "Hi", False),
        ({"prompt": CHAT, "chosen": "a", "rejected": "b"}, HI, False),
        ({"prompt": "Hi", "responses": ["a", "b"], "scores": [1, 2]}, "Hi", False),
        ({"prompt": "Hi", "completion": "a", "label": False}, "Hi", False),
        ({"messages": [*CHAT, {"role": "assistant", "content": "a"}]}, HI, False),
        ({"instruction": "Hi", "output": "a"}, HI, False),
    ],
    ids=[
        "text", "chat", "system beside", "answers without an order", "pair of text", "pair of a chat", "ranked",
        "labelled bad", "demonstration", "alpaca",
    ],
)  # fmt: skip
def test_rows_of_any_kind_give_their_prompt(
    row: dict[str, object], prompt: object, alone: bool, tmp_path: Path
) -> None:
    result = found(tmp_path, [row, row])
    (given,) = result.prompts
    assert (given.prompt, given.alone, result.rows, result.repeated) == (prompt, alone, 2, 1)


def test_a_text_file_has_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("One?\r\n\r\n Zwölf? \nOne?\n[not] {json}\n".encode())
    result = read_prompts(str(path), DataConfig(), HubConfig())
    assert [(one.id, one.prompt) for one in result.prompts] == [
        ("prompts.txt:1", "One?"),
        ("prompts.txt:3", "Zwölf?"),
        ("prompts.txt:5", "[not] {json}"),
    ]
    assert (result.rows, result.repeated) == (5, 1) and result.notes == ["1 blank line of prompts.txt ask nothing."]


def test_ids_of_ones_own_are_kept_and_tools_are_part_of_a_prompt(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    result = found(tmp_path, [{"prompt": CHAT, "id": "a"}, {"prompt": CHAT, "tools": tools, "id": "a", "mood": "odd"}])
    assert [one.id for one in result.prompts] == ["a", "rows.jsonl:2"]
    assert [one.tools for one in result.prompts] == [None, json.dumps(tools)]
    assert result.notes == ["Columns not used: `mood` (1 row)."]


def test_rows_without_a_prompt_are_listed(tmp_path: Path) -> None:
    rows: list[object] = [{"prompt": "Hi"}, {"prompt": 3}, {"prompt": "half \ud83d"}, "text", {"prompt": None}]
    result = found(tmp_path, rows)
    assert [one.prompt for one in result.prompts] == ["Hi"]
    assert [row.id for row in result.dropped] == [f"rows.jsonl:{n}" for n in (2, 3, 4, 5)]
    with pytest.raises(DataError, match=r"no prompt in its 1 rows; 1 dropped; the first is none\.jsonl:1"):
        found(tmp_path, [{"prompt": "half \ud83d"}], "none.jsonl")


def test_what_is_neither_is_refused_as_training_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the rows fit no format"):
        found(tmp_path, [{"text": "Hi"}])
    with pytest.raises(DataError, match="--prompts: there is no file"):
        read_prompts(str(tmp_path / "none.jsonl"), DataConfig(), HubConfig())


def test_the_demos_prompts() -> None:
    result = read_prompts("demo", DataConfig(), HubConfig())
    lines = demo.TRAIN.read_text(encoding="utf-8").splitlines()
    assert len(result.prompts) == len({json.loads(line)["prompt"][0]["content"] for line in lines})
