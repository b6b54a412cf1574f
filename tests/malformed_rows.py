"""Rows of every format as people have them, and what may be wrong with them. For tests and the fuzzer."""

from __future__ import annotations

import datetime
import decimal
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from tiltlm.config.column_names import COLUMNS

_USER = {"role": "user", "content": "@p"}
_CHOSEN = {"role": "assistant", "content": "@c"}
_REJECTED = {"role": "assistant", "content": "@r"}

# A row of each format of data/formats/table.py. @p, @c and @r: prompt, better and worse answer.
TEMPLATES: dict[str, dict[str, Any]] = {
    "preference": {"prompt": "@p", "chosen": "@c", "rejected": "@r"},
    "several": {"prompt": "@p", "chosen": "@c", "rejected": ["@r", "no @r"]},
    "dialogue": {"chosen": "\n\nHuman: @p\n\nAssistant: @c", "rejected": "\n\nHuman: @p\n\nAssistant: @r"},
    "chat": {"prompt": [_USER], "chosen": [_CHOSEN], "rejected": [_REJECTED]},
    "whole chats": {"chosen": [_USER, _CHOSEN], "rejected": [_USER, _REJECTED]},
    "text-chat": {"system": "Be kind.", "prompt": "@p", "chosen": "@c", "rejected": "@r", "history": [["a", "b"]]},
    "instruction": {"instruction": "@p", "input": "chat", "chosen": "@c", "rejected": "@r"},
    "question": {"system": "Be kind.", "question": "@p", "chosen": "@c", "rejected": "@r"},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "@p"}],
        "chosen": {"from": "gpt", "value": "@c"},
        "rejected": {"from": "gpt", "value": "@r"},
    },
    "messages": {"messages": [_USER], "chosen": "@c", "rejected": "@r", "tools": [{"name": "f", "parameters": {}}]},
    "swift": {"messages": [_USER, _CHOSEN], "rejected_response": "@r"},
    "openai": {
        "input": {"messages": [_USER], "tools": []},
        "preferred_output": [_CHOSEN],
        "non_preferred_output": [_REJECTED],
    },
    "output-list": {"instruction": "@p", "input": "", "output": ["@c", "@r"]},
    "shp": {"history": "@p", "human_ref_A": "@c", "human_ref_B": "@r", "labels": 1},
    "safe-rlhf": {"prompt": "@p", "response_0": "@r", "response_1": "@c", "better_response_id": 1},
    "stack-exchange": {"question": "@p", "response_j": "@c", "response_k": "@r"},
    "helpsteer3": {"context": [_USER], "response1": "@c", "response2": "@r", "overall_preference": -2},
    "helpsteer2": {"prompt": "@p", "response_1": "@c", "response_2": "@r", "preference_strength": -1},
    "arena": {"conversation_a": [_USER, _CHOSEN], "conversation_b": [_USER, _REJECTED], "winner": "model_a"},
    "judged": {"prompt": "@p", "response_a": "@c", "response_b": "@r", "winner": "a"},
    "ranked": {"prompt": "@p", "responses": ["@r", "@c", "maybe"], "scores": [1, 3, 2]},
    "rated within": {"prompt": "@p", "responses": [{"text": "@r", "score": 1}, {"text": "@c", "score": 2}]},
    "best": {"prompt": "@p", "responses": ["@r", "@c"], "best_index": 1},
    "ranked-chat": {"system": "Be kind.", "prompt": "@p", "responses": ["@r", "@c"], "ranks": [2, 1]},
    "calls": {
        "messages": [
            _USER,
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "3"},
        ],
        "chosen": "@c",
        "rejected": "@r",
    },
    "labelled": {"prompt": "@p", "completion": "@c", "label": True},
    "labelled chat": {"messages": [_USER, _CHOSEN], "label": "thumbs_up"},
    "labelled-chat": {"system": "Be kind.", "prompt": "@p", "completion": "@r", "label": False},
}
LABELLED = ("labelled", "labelled chat", "labelled-chat")

_MARK = re.compile(r"mk(\d{4})z")
DEEP = re.compile(r'"@deep(\d+)([\[{])@"')
"""Stands in a row for a value that is nested so deep that no library writes it."""


def row(kind: str, number: int) -> dict[str, Any]:
    """The row of this number: its texts hold a mark that tells it from the others."""
    texts = {"@p": f"ask mk{number:04d}z", "@c": f"good mk{number:04d}z", "@r": f"bad mk{number:04d}z"}

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub("@[pcr]", lambda found: texts[found[0]], value)
        if isinstance(value, list):
            return [filled(item) for item in value]
        return {key: filled(item) for key, item in value.items()} if isinstance(value, dict) else value

    made: dict[str, Any] = filled(TEMPLATES[kind])
    return made


def marks(text: str) -> set[int]:
    """The numbers of the rows whose marks a text holds."""
    return {int(number) for number in _MARK.findall(text)}


def as_json(text: str) -> str:
    """JSON text with the nesting that stands-in stand for."""
    shut = {"[": "]", "{": "}"}

    def nested(found: re.Match[str]) -> str:
        depth, opening = int(found[1]), found[2]
        return ('{"a":' if opening == "{" else "[") * depth + "1" + shut[opening] * depth

    return DEEP.sub(nested, text)


def _long(rng: random.Random) -> int:
    return int(10 ** rng.uniform(0, 5))


# What may stand where something else should.
_VALUES: tuple[Callable[[random.Random], Any], ...] = (
    lambda rng: rng.choice([None, True, False, 0, 1, -1, 2.5, "", " ", "\n\t", [], {}, [[]], [None], {"": 1}, [{}]]),
    lambda rng: rng.choice([float("nan"), float("inf"), -float("inf"), 1e308, 10**30, 10**400, -(10**30), 1e-320]),
    lambda rng: rng.choice(
        ["nan", "NaN", "1e999", "-0", "0x10", "1_000", "٣", "²", "true", "null", "None", "[]", "{}"]
    ),
    lambda rng: rng.choice(["\ud800", "a\udfffb", "\udcff", "\ud83d\ude00", "\x00", "\x1b[31m", "\u202e", "\ufeff"]),
    lambda rng: rng.choice(["a\u2028b", "\x85", "\x0b", "a\rb", "é" * 9, "e\u0301", "\U0010ffff", "\ue000probe\ue000"]),
    lambda rng: rng.choice([[1, 2], ["a", 1], [["a"]], [["a", "b"], ["c"]], ["a", None], ["", ""], [[["a"]]]]),
    lambda rng: rng.choice([{"role": "user"}, {"role": 1, "content": "a"}, {"role": "wizard", "content": "a"}]),
    lambda rng: rng.choice([{"content": "a"}, {"from": "human"}, {"from": None, "value": "a"}, {"role": None}]),
    lambda rng: (
        [{"role": rng.choice(["user", "assistant", "system", "tool", "", "x"]), "content": "a"}] * rng.randint(0, 4)
    ),
    lambda rng: {"role": ["user", "assistant"], "content": ["a"] * rng.randint(1, 3)},
    lambda rng: [
        {"role": "assistant", "content": rng.choice([[], [1], [{"type": "image"}], [{"type": "text"}], {}, 1])}
    ],
    lambda rng: [{"role": "assistant", "content": None, "tool_calls": rng.choice([1, "x", [1], {}, "[1", "[[[]]]"])}],
    lambda rng: {"messages": rng.choice([None, [], "x", [1], {"messages": []}, [{"role": "user", "content": "a"}]])},
    lambda rng: rng.choice(["<eos>", "<bos>", "<think>", "</think>", "a</think>", "\n\nAssistant:", "\n\nHuman: a"]),
    lambda rng: rng.choice(["['a' 'b']", "array(['a'], dtype=object)", "['\\d']", "{'role': 'user', 'content': 'a'}"]),
    lambda rng: rng.choice(
        ["[{'role': 'user'", '[{"role": "user", "content": "a"', "{'a': 1,", "(1, 2)", "['a', ...]"]
    ),
    lambda rng: "[" + rng.choice(["-", "(", "[", "{1:", "1+", "not ", "'a'"]) * _long(rng) + "1]",
    lambda rng: f"[0x{'f' * _long(rng)}]",
    lambda rng: f"[{'9' * _long(rng)}]",
    lambda rng: '["a"' + rng.choice([" ", "\n", ",", '"', "\t "]) * _long(rng) + rng.choice(["", "]", "x"]),
    lambda rng: (
        rng.choice(["a", " ", "\n", "\n\n", "é", "\n\nHuman: ", "\n\nA: ", "<", "&amp;", "{", "</think>"]) * _long(rng)
    ),
    lambda rng: ["a"] * rng.randint(1, 30),
    lambda rng: f"@deep{rng.choice([3, 50, 400, 900, 990, 1000, 1200, 40_000])}{rng.choice('[{')}@",
    lambda rng: {"name": "f", "parameters": f"@deep{rng.choice([50, 900, 980, 1000])}{rng.choice('[{')}@"},
    lambda rng: [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * rng.randint(1, 40),
)

# What only rows in memory can hold.
_OBJECTS: tuple[Callable[[], Any], ...] = (
    lambda: b"bytes",
    lambda: object(),
    lambda: {1, 2},
    lambda: ("a", "b"),
    lambda: decimal.Decimal("NaN"),
    lambda: decimal.Decimal("sNaN"),
    lambda: datetime.datetime(2020, 1, 1),
    lambda: np.array([object()]),
    lambda: np.array(["a", "b"]),
    lambda: np.array([]),
    lambda: np.float32(1),
    lambda: np.str_("a"),
    lambda: np.datetime64("NaT"),
    lambda: {1: "a"},
    lambda: {None: "a", ("x",): "b"},
    lambda: range(3),
    lambda: _missing("NA"),
    lambda: _missing("NaT"),
)


def _missing(name: str) -> Any:
    import pandas

    return getattr(pandas, name)


def value(rng: random.Random, in_memory: bool = False) -> Any:
    """A value that nobody expects."""
    if in_memory and rng.random() < 0.3:
        return rng.choice(_OBJECTS)()
    return rng.choice(_VALUES)(rng)


def _places(held: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    return [place for key, item in items for place in ((*path, key), *_places(item, (*path, key)))]


def damaged(held: dict[str, Any], rng: random.Random, in_memory: bool = False) -> Any:
    """The row with something wrong: a value replaced, left out, added, renamed or wrapped; changed in place."""
    if rng.random() < 0.05:
        return value(rng, in_memory)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        places = _places(held)
        if not places:
            return held
        *way, last = rng.choice(places)
        parent: Any = held
        for step in way:
            parent = parent[step]
        change = rng.choice(["replace", "replace", "replace", "drop", "wrap", "rename", "add", "text"])
        if change == "replace":
            parent[last] = value(rng, in_memory)
        elif change == "drop":
            del parent[last]
        elif change == "wrap":
            parent[last] = rng.choice([[parent[last]], {"content": parent[last]}, [parent[last], parent[last]]])
        elif change == "rename" and isinstance(parent, dict):
            name = rng.choice(
                [f"{last}s", str(last).upper(), f" {last} ", "", "\ud800", "prompt", "messages", "scores"]
            )
            parent[name] = parent.pop(last)
        elif change == "add" and isinstance(parent, dict):
            parent[rng.choice([*_NAMES, f"x{rng.randint(0, 9)}"])] = value(rng, in_memory)
        elif change == "text":
            parent[last] = str(parent[last])
    return held


_NAMES = (*COLUMNS, "chosen_score", "rejected_score", "role", "content", "tool_calls", "reasoning_content")
