"""Pairs from one's own model: sampled, judged by a function of the test, paired and trained on; and gone on with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_templates
import torch
from tiny_runs import write_model, write_pairs
from tiny_tokenizers import byte_level, pair_tokenizer

from tiltlm.answers.answer_file import read_answers, to_line
from tiltlm.answers.answer_rows import AnswerRow
from tiltlm.answers.pair_choice import Choosing
from tiltlm.answers.pair_file import REPORT
from tiltlm.answers.pair_file import write_pairs as write_chosen
from tiltlm.cli import main
from tiltlm.config import Config
from tiltlm.data.examples import Message
from tiltlm.data.prompt_rows import GivenPrompt
from tiltlm.data.tokens.token_columns import TokenizedSequence
from tiltlm.errors import ConfigError
from tiltlm.evaluation.generation import generate_answers
from tiltlm.model.scoring import score_sequences
from tiltlm.pipeline.own_answers import sampling
from tiltlm.pipeline.own_answers.asked_prompts import asked
from tiltlm.pipeline.own_answers.sampled_model import open_sampled
from tiltlm.pipeline.own_answers.sampling import SamplingSettings, sample_answers
from tiltlm.pipeline.reporter import LogReporter
from tiltlm.runs.run_files import read_run

SHORT = ["--answers", "4", "--max-new-tokens", "6", "--precision", "float32"]
SAMPLE = ["sample", "model", "--prompts", "prompts.txt", *SHORT, "--output"]
TRAIN = ["train", "--data.train", "pairs.jsonl", "--model.path", "model", "--model.precision", "float32"]
FEW = ["--training.max-steps", "2", "--training.batch-pairs", "4", "--comparison.prompts", "0"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    """A working folder with a tiny model that writes chats, and prompts; two prompts a chunk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sampling, "ANSWERS_IN_CHUNK", 8)
    write_model(Path("model"), chat=True)
    Path("prompts.txt").write_text("".join(f"Is {n} a number?\n" for n in range(9)))
    return tmp_path


def judged(rows: list[AnswerRow]) -> list[AnswerRow]:
    """Each answer rewarded by how many letters it has."""
    return [
        replace(row, answers=tuple(replace(a, reward=float(sum(map(str.isalpha, a.text)))) for a in row.answers))
        for row in rows
    ]


def test_the_chain_from_a_model_to_a_model_that_learnt_from_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SAMPLE, "answers.jsonl"]) == 0
    assert "9 of 9 prompts are asked: 9 as chats, written by the chat template" in capsys.readouterr().out
    rows = read_answers(Path("answers.jsonl"))
    assert [row.prompt for row in rows] == [(Message("user", f"Is {n} a number?"),) for n in range(9)]
    assert all(len(row.answers) == 4 and row.drawn == rows[0].drawn for row in rows)
    Path("judged.jsonl").write_text("".join(to_line(row) + "\n" for row in judged(rows)), encoding="utf-8")
    assert main(["pair", "judged.jsonl", "--output", "pairs.jsonl"]) == 0
    pairs = [json.loads(line) for line in Path("pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(pair["chosen_score"] > pair["rejected_score"] for pair in pairs)
    cut = sum(not pair[f"{side}_ended"] for pair in pairs for side in ("chosen", "rejected"))
    assert cut > 0
    assert main([*TRAIN, *FEW, "--run.name", "run"]) == 0
    files = read_run(Path("runs/run"))
    assert files.outcome is not None
    (eos,) = (check for check in files.outcome.checks if check.name == "EOS")
    assert eos.passed and "were cut" in eos.detail
    assert any("were cut before they ended" in note for note in files.data.notes)
    assert main(["sample", "runs/run", "--prompts", "pairs.jsonl", *SHORT, "--output", "second.jsonl"]) == 0
    second = read_answers(Path("second.jsonl"))
    assert {row.prompt for row in second} <= {row.prompt for row in rows}
    assert second[0].drawn is not None and rows[0].drawn is not None
    assert second[0].drawn.weights != rows[0].drawn.weights


def interrupted_after(chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling is stopped, as by a key, when so many chunks are written."""
    left = chunks

    def until(*arguments: Any) -> Any:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return generate_answers(*arguments)

    monkeypatch.setattr(sampling, "generate_answers", until)


@pytest.mark.parametrize("lines", [0, 1, 3, 4], ids=["none", "within a chunk", "in another", "whole chunks"])
def test_what_was_stopped_goes_on_to_the_same_bytes(lines: int, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*SAMPLE, "whole.jsonl"]) == 0
    with monkeypatch.context() as patch:
        interrupted_after(2, patch)
        assert main([*SAMPLE, "broken.jsonl"]) == 130
    there = Path("broken.jsonl").read_bytes().splitlines(keepends=True)
    assert len(there) == 4
    # As a crash may leave it: fewer lines, the last one cut in the middle.
    Path("broken.jsonl").write_bytes(b"".join(there[:lines]) + there[0][:40])
    assert main([*SAMPLE, "broken.jsonl"]) == 0
    assert Path("broken.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert main([*SAMPLE, "broken.jsonl"]) == 0
    assert Path("broken.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_what_was_killed_goes_on_to_the_same_bytes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(here)
    Path("prompts.txt").write_text("".join(f"Is {n} a number?\n" for n in range(200)))
    words = ["sample", "model", "--prompts", "prompts.txt", "--precision", "float32", "--max-new-tokens", "32"]
    words += ["--answers", "8", "--output"]
    paths = f"{Path(__file__).parents[1] / 'src'}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tiltlm", *words, "broken.jsonl"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
    )
    broken, end = Path("broken.jsonl"), time.monotonic() + 60
    while time.monotonic() < end and not (broken.exists() and broken.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(broken.read_bytes().splitlines()) < 200
    assert main([*words, "broken.jsonl"]) == main([*words, "whole.jsonl"]) == 0
    assert broken.read_bytes() == Path("whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seed", "1"], r"seed was 0, and is 1 \(--seed\)"),
        (["--temperature", "0.5"], r"temperature was 1\.0, and is 0\.5"),
        (["--max-new-tokens", "7"], "max_new_tokens was 6, and is 7"),
        (["--answers", "3"], "4 answers, and 3 are wanted"),
        (["--precision", "bfloat16"], "precision was float32, and is bfloat16"),
        (["--limit", "5"], "one too many, as 5 prompts"),
        (["--form", "text"], "another prompt than"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_another_way_of_drawing_does_not_go_on(
    words: list[str], says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SAMPLE, "answers.jsonl"]) == 0
    before = Path("answers.jsonl").read_bytes()
    flags = [word for word in SAMPLE[4:-1] if word]
    kept = [pair for pair in zip(flags[::2], flags[1::2], strict=True) if pair[0] != words[0]]
    rest = [word for pair in kept for word in pair]
    assert main([*SAMPLE[:4], *rest, *words, "--output", "answers.jsonl"]) == 2
    assert re.search(says, capsys.readouterr().err)
    assert Path("answers.jsonl").read_bytes() == before


def test_another_model_does_not_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SAMPLE, "answers.jsonl"]) == 0
    write_model(Path("model"), seed=1, chat=True)
    assert main([*SAMPLE, "answers.jsonl"]) == 2
    assert "another model, or another tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize("chat", [True, False], ids=["chats", "texts"])
def test_answers_are_the_models_own(chat: bool, here: Path) -> None:
    """Log-probabilities are those of the scorer, marks of the end are right, and a text goes on as the model wrote."""
    model = open_sampled("model", Config(), 12, LogReporter())
    model = replace(model, precision=torch.float32)
    given = [GivenPrompt(f"p:{n}", f"Is {n} prime? Answer:", alone=chat) for n in range(3)]
    ready = asked(given, model.tokenizer, None)
    assert ready.chats == 3 * chat
    settings = SamplingSettings(answers=64, max_new_tokens=12)
    sample_answers(model, ready.prompts, settings, Path("answers.jsonl"), LogReporter())
    ended = set()
    for prompt, row in zip(ready.prompts, read_answers(Path("answers.jsonl")), strict=True):
        sequences = [
            TokenizedSequence(np.array([*prompt.ids, *(answer.ids or ())], dtype=np.int32), len(prompt.ids))
            for answer in row.answers
        ]
        scored = score_sequences(model.scorer, sequences, torch.float32, 512)
        for answer, values in zip(row.answers, scored, strict=True):
            assert answer.ids is not None and answer.tokens == len(answer.ids)
            assert answer.ended == (answer.ids[-1] in model.tokenizer.terminators)
            assert answer.ended or answer.tokens == 12
            assert answer.logp == pytest.approx(float(values.sum()), abs=1e-3)
            ended.add(answer.ended)
            said = str(model.tokenizer.tokenizer.decode(list(answer.ids), skip_special_tokens=True))
            assert answer.text == (said if answer.ended else said.rstrip("\ufffd")) if not chat else answer.text in said
        assert len({answer.ids for answer in row.answers}) > 1
    assert ended == {True, False}


def test_prompts_that_cannot_be_asked_are_counted_and_listed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[object] = [
        {"prompt": "Is it?", "id": "short"},
        {"prompt": "Is it?", "id": "again"},
        {"prompt": "no " * 1200, "id": "long"},
        {"prompt": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], "id": "answered"},
        {"prompt": "", "id": "empty"},
    ]
    Path("some.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert main(["sample", "model", "--prompts", "some.jsonl", *SHORT, "--output", "answers.jsonl"]) == 0
    said = capsys.readouterr().out
    assert "5 rows, read as prompts alone: 2 different prompts, 1 times one that was there before" in said
    assert [row.id for row in read_answers(Path("answers.jsonl"))] == ["short"]
    record = json.loads(Path(f"answers.jsonl{REPORT}").read_text())
    assert {one["id"]: one["reason"] for one in record["left_out"]} == {
        "long": "prompt too long",
        "some.jsonl:4": "nothing is asked",
        "some.jsonl:5": "empty prompt",
    }
    assert all(reason in said for reason in ("prompt too long", "nothing is asked", "empty prompt"))


def test_a_template_that_refuses_or_leaves_out_is_named() -> None:
    chat = (Message("system", "Be kind."), Message("user", "Hi"))
    given = [GivenPrompt("a", chat), GivenPrompt("b", chat[1:])]
    refused = asked(given, pair_tokenizer(byte_level(chat_template=tiny_templates.NO_SYSTEM)), None)
    assert [one.id for one in refused.prompts] == ["b"] and "System role" in str(refused.left_out[0].detail)
    lost = asked(given, pair_tokenizer(byte_level(chat_template=tiny_templates.TWO_ROLES)), None)
    assert len(lost.prompts) == 2 and lost.notes == [
        "The chat template leaves out the text of system messages of 1 prompts."
    ]


def test_what_a_text_becomes_is_as_asked_for() -> None:
    alone, within = GivenPrompt("a", "Hi", alone=True), GivenPrompt("b", "Hi")
    chats, texts = pair_tokenizer(byte_level(chat_template=tiny_templates.PLAIN)), pair_tokenizer(byte_level())
    assert [isinstance(one.prompt, str) for one in asked([alone, within], chats, None).prompts] == [False, True]
    assert [isinstance(one.prompt, str) for one in asked([alone, within], texts, None).prompts] == [True, True]
    assert [isinstance(one.prompt, str) for one in asked([alone, within], chats, None, "chat").prompts] == [False] * 2
    assert [isinstance(one.prompt, str) for one in asked([alone, within], chats, None, "text").prompts] == [True] * 2
    with pytest.raises(ConfigError, match="--form text"):
        asked([GivenPrompt("c", (Message("user", "Hi"),))], chats, None, "text")


def test_numbers_that_cannot_be_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["--answers", "0"], "--answers must be at least 1"),
        (["--temperature", "0"], "--temperature must be"),
        (["--limit", "0"], "--limit must be"),
        (["--max-new-tokens", "1024"], "the model knows 1024 positions"),
    ):
        assert main(["sample", "model", "--prompts", "prompts.txt", "--output", "a.jsonl", *words]) == 2
        assert says in capsys.readouterr().err
    assert main(["sample", "model", "--output", "a.jsonl"]) == main(["sample"]) == 2
    assert main(["sample", "model", "--prompt", "prompts.txt", "--output", "a.jsonl"]) == 2
    assert "Did you mean `--prompts`?" in capsys.readouterr().err
    assert main(["sample", "model", "--prompts", "prompts.txt", "--output", "model"]) == 2
    assert "is a folder" in capsys.readouterr().err
    prompts = Path("prompts.txt").read_bytes()
    assert main(["sample", "model", "--prompts", "prompts.txt", "--output", "./prompts.txt"]) == 2
    assert "the file of the prompts itself" in capsys.readouterr().err and Path("prompts.txt").read_bytes() == prompts


def test_the_embedded_model_answers_and_its_pairs_are_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILTLM_CACHE")
    words = ["--prompts", "demo", "--limit", "2", "--answers", "3", "--max-new-tokens", "8", "--precision", "float32"]
    assert main(["sample", "embedded", *words, "--output", "answers.jsonl"]) == 0
    rows = read_answers(Path("answers.jsonl"))
    assert len(rows) == 2 and all(answer.text for row in rows for answer in row.answers)
    write_chosen(judged(rows), Choosing(), Path("pairs.jsonl"), "answers.jsonl")
    write_pairs(Path("eval.jsonl"), 2)
    assert main(["inspect", "pairs.jsonl", "--data.eval", "eval.jsonl", "--report", "report.json"]) == 0
    report = json.loads(Path("report.json").read_text(encoding="utf-8"))
    assert not report["dropped"]["count"] and report["sources"][0]["format"] == "chat"
    for shown in report["examples"]:
        for side in ("chosen", "rejected"):
            assert not shown[side].rstrip("\n").endswith("<|im_end|>")
