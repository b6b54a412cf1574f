"""Files of pairs: training reads them as they are; what is left out is counted and listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiltlm.answers.answer_file import to_line
from tiltlm.answers.answer_rows import AnswerRow, SampledAnswer
from tiltlm.answers.pair_choice import EMPTY, EQUAL, FAILED, Choosing
from tiltlm.answers.pair_file import REPORT, write_pairs
from tiltlm.cli.commands import main
from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.conversion import load_examples
from tiltlm.data.examples import Message
from tiltlm.errors import ConfigError, DataError

CHAT = (Message("system", "Be kind."), Message("user", "Hi"))


def answers(*said: tuple[str, float | None, bool | None]) -> tuple[SampledAnswer, ...]:
    return tuple(
        SampledAnswer(text, 5, ended, reward=reward, why="down" if reward is None else None)
        for text, reward, ended in said
    )


ROWS = [
    AnswerRow("p:1", CHAT, None, answers(("Hello.", 1.0, True), ("Go aw", -1.0, False))),
    AnswerRow("p:2", (Message("user", "Bye"),), '[{"type": "function", "function": {"name": "f"}}]',
              answers(("Stay.", 0.5, True), ("Bye.", 0.25, True))),
    AnswerRow("p:3", CHAT, None, answers(("a", 1.0, True), ("b", 1.0, True))),
    AnswerRow("p:4", CHAT, None, answers(("a", 1.0, True), ("b", None, True))),
    AnswerRow("p:5", CHAT, None, answers((" ", 1.0, True), ("b", 0.0, True))),
]  # fmt: skip
TEXTS = [AnswerRow(f"t:{n}", f"{n} + 1 =", None, answers((" 2", 1.0, None), (" 3", 0.0, None))) for n in range(2)]


def test_pairs_are_read_as_training_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    account = write_pairs(ROWS, Choosing(), path, "judged.jsonl")
    loaded = load_examples(str(path), DataConfig(), HubConfig(), "train", "pair", "value")
    assert loaded.source.format == "chat" and not loaded.dropped
    first, second = loaded.examples
    assert first.prompt == CHAT and first.ended == (True, False) and first.scores == (1.0, -1.0)
    assert first.completions == ((Message("assistant", "Hello."),), (Message("assistant", "Go aw"),))
    assert second.tools == ROWS[1].tools and second.ended is None
    assert account.pairs == account.with_pairs == 2 and account.unended == {"chosen": 0, "rejected": 1}
    record = json.loads(path.with_name(path.name + REPORT).read_text())
    assert record["prompts_without"] == {EQUAL: ["p:3"], FAILED: ["p:4"], EMPTY: ["p:5"]}
    assert record["answers_left_out"] == {FAILED: 1, EMPTY: 1} and record["left_out"] == {EQUAL: 1}
    assert record["choosing"]["choose"] == "all" and record["mean_gap"] == 1.125


def test_texts_are_joined_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_pairs(TEXTS, Choosing(), path, "judged.jsonl")
    loaded = load_examples(str(path), DataConfig(), HubConfig(), "train")
    assert loaded.source.format == "preference"
    assert [(one.prompt, *one.completions) for one in loaded.examples] == [(f"{n} + 1 =", " 2", " 3") for n in range(2)]


def test_the_same_pairs_again_are_left_and_others_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_pairs(ROWS, Choosing(), path, "j")
    before = path.read_bytes()
    write_pairs(ROWS, Choosing(), path, "j")
    with pytest.raises(ConfigError, match="--overwrite"):
        write_pairs(TEXTS, Choosing(), path, "j")
    assert path.read_bytes() == before
    write_pairs(TEXTS, Choosing(), path, "j", overwrite=True)
    assert path.read_bytes() != before


def test_answers_that_nobody_judged_are_refused(tmp_path: Path) -> None:
    row = AnswerRow("p:9", "Q", None, (SampledAnswer("a", reward=1.0), SampledAnswer("b")))
    with pytest.raises(DataError, match="answer 1 of `p:9` has no `reward`"):
        write_pairs([row], Choosing(), tmp_path / "pairs.jsonl", "j")
    with pytest.raises(DataError, match=r"no pair in its 1 prompts \(equal rewards: 1\)"):
        write_pairs([ROWS[2]], Choosing(), tmp_path / "pairs.jsonl", "j")
    assert not (tmp_path / "pairs.jsonl").exists()


def test_the_command_says_what_became_of_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged, output = tmp_path / "judged.jsonl", tmp_path / "pairs.jsonl"
    judged.write_text("".join(to_line(row) + "\n" for row in ROWS), encoding="utf-8")
    assert main(["pair", str(judged), "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "5 prompts with 10 answers: 2 pairs (all) of 2 prompts" in said
    assert "2 answers left out: " in said and "1 combinations left out: equal rewards 1" in said
    assert "3 prompts without a pair" in said and "equal rewards: p:3" in said
    assert "0 chosen and 1 rejected answers were cut" in said
    assert main(["pair", str(judged)]) == main(["pair", str(judged), "--output", str(judged)]) == 2
    assert main(["pair", str(judged), "--output", str(output), "--choose", "worst"]) == 2
    assert "one of all, best-worst, gap" in capsys.readouterr().err
