"""Data too large for memory is prepared as if it were not, and goes on where it was cut short."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_token_cache import ROWS, same
from tiny_tokenizers import byte_level

from tiltlm.config import Config, DataConfig
from tiltlm.data import stored_examples
from tiltlm.data.preparation import PreparedData, prepare_data, read_data
from tiltlm.data.tokens import tokenization
from tiltlm.data.tokens.token_parts import TokenParts
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.storage import scratch

MANY: list[dict[str, Any]] = [
    *({**row, "prompt": f"{row['prompt']} {n // 7}"} for n in range(6) for row in ROWS),
    {"prompt": "Q:", "chosen": " yes", "rejected": " no" * 90},
    *ROWS[:3],
    {**ROWS[4], "chosen": ROWS[4]["rejected"], "rejected": ROWS[4]["chosen"]},
]
CHATS: list[dict[str, Any]] = [
    {
        "prompt": [{"role": "user", "content": f"Question {n}", "name": "x" if n % 3 else ""}],
        "chosen": [{"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "assistant", "content": "no"}],
    }
    for n in range(60)
]
SETTINGS: dict[str, dict[str, Any]] = {
    "split": {"max_eval_pairs": None},
    "limited": {"max_train_pairs": 40, "max_eval_pairs": 9},
}


def prepared(
    cache: Path | None, rows: list[dict[str, Any]], held_out: list[dict[str, Any]] | None = None, **settings: Any
) -> tuple[PreparedData, list[int]]:
    """The data, and how many examples were really tokenized at a time."""
    data = DataConfig(max_length=60, **settings)
    tokenizer, made = ExampleTokenizer(byte_level(), data), []
    own = tokenizer._part

    def counting(examples: Any, numbers: np.ndarray, advance: Any) -> Any:
        made.append(len(numbers))
        return own(examples, numbers, advance)

    tokenizer._part = counting  # type: ignore[method-assign]
    told: list[int] = []
    read = read_data(Config(data=data), train=rows, eval=held_out)
    result = prepare_data(read, tokenizer, told.append, cache)
    return result, made


@pytest.mark.parametrize("rows", [MANY, CHATS], ids=["texts", "chats"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
@pytest.mark.parametrize("given", [False, True], ids=["split off", "held out"])
def test_it_comes_to_the_same(
    tmp_path: Path, rows: list[dict[str, Any]], settings: dict[str, Any], given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = None
    if given:  # other prompts, but two
        held_out = [*({**row, "prompt": asked_anew(row["prompt"])} for row in rows[-20:]), *rows[:2]]
    whole, _ = prepared(None, rows, held_out, **settings)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path))
    monkeypatch.setattr(stored_examples, "IN_MEMORY", 20)
    monkeypatch.setattr(scratch, "IN_MEMORY", 8)
    monkeypatch.setattr(tokenization, "EXAMPLES_IN_PART", 16)
    large, made = prepared(tmp_path / "tokens", rows, held_out, **settings)
    assert len(made) > 2
    assert same(large.train, whole.train) and same(large.eval, whole.eval)
    assert large.report == whole.report
    assert [one.prompt for one in large.eval_rendered] == [one.prompt for one in whole.eval_rendered]
    (kept,) = (tmp_path / "tokens").iterdir()
    assert not kept.name.startswith("unfinished-") and [path.name for path in tmp_path.iterdir()] == ["tokens"]


def asked_anew(prompt: Any) -> Any:
    return f"Anew: {prompt}" if isinstance(prompt, str) else [{"role": "system", "content": "Anew"}, *prompt]


class CutError(Exception):
    pass


@pytest.mark.parametrize("damage", [None, "arrow", "json"])
@pytest.mark.parametrize("rows", [MANY, CHATS], ids=["texts", "chats"])
def test_it_goes_on_where_it_was_cut_short(
    tmp_path: Path, rows: list[dict[str, Any]], damage: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = prepared(None, rows, max_eval_pairs=None)
    monkeypatch.setattr(tokenization, "EXAMPLES_IN_PART", 16)
    put = TokenParts.put
    kept: list[Any] = []

    def cut(self: TokenParts, *arguments: Any) -> Any:
        if len(kept) == 3:
            raise CutError
        kept.append(put(self, *arguments))
        return kept[-1]

    monkeypatch.setattr(TokenParts, "put", cut)
    with pytest.raises(CutError):
        prepared(tmp_path, rows, max_eval_pairs=None)
    monkeypatch.setattr(TokenParts, "put", put)
    (unfinished,) = tmp_path.iterdir()
    if damage is not None:
        file = sorted(unfinished.glob(f"*.{damage}"))[0]
        file.write_bytes(file.read_bytes()[:-3] + b"xyz")
    again, made = prepared(tmp_path, rows, max_eval_pairs=None)
    assert sum(made) == len(rows) - 16 * (2 if damage else 3)
    assert same(again.train, whole.train) and same(again.eval, whole.eval)
    assert dataclasses.replace(again.report, dropped=whole.report.dropped) == whole.report
    assert sorted(again.report.dropped.list, key=str) == sorted(whole.report.dropped.list, key=str)
    assert not unfinished.exists()


def test_parts_of_other_settings_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenization, "EXAMPLES_IN_PART", 16)
    monkeypatch.setattr(TokenParts, "clear", lambda self: None)
    prepared(tmp_path, MANY, max_eval_pairs=None)
    _, made = prepared(tmp_path, MANY, max_eval_pairs=None, eos="as-is")
    assert sum(made) == len(MANY)


def test_a_large_array_lies_in_a_file_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path))
    monkeypatch.setattr(scratch, "IN_MEMORY", 100)
    small, large = scratch.scratch_array(25, np.int32), scratch.scratch_array(26, np.int32)
    assert small.flags.owndata and not large.flags.owndata and large.dtype == np.int32 and len(large) == 26
    large[:] = np.arange(26)
    assert large.sum() == 325 and list(tmp_path.iterdir()) == []


def test_where_the_disk_is_full_it_lies_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path))
    monkeypatch.setattr(scratch, "IN_MEMORY", 1)
    monkeypatch.setattr("os.posix_fallocate", full)
    assert scratch.scratch_array(10, np.int64).flags.owndata
