"""docs/own-pairs.md says what the code does: its lines are read, its defaults and reasons are those of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

from tiltlm.answers import pair_choice
from tiltlm.answers.answer_file import read_answers
from tiltlm.answers.pair_choice import Choosing
from tiltlm.cli.pair_arguments import Pair
from tiltlm.cli.sample_arguments import Sample
from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.conversion import load_examples
from tiltlm.pipeline.own_answers.sampling import ANSWERS_IN_CHUNK, SamplingSettings

PAGE = (Path(__file__).parents[2] / "docs" / "own-pairs.md").read_text(encoding="utf-8")
LINES = [" ".join(block.split("\n")) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def test_the_documented_lines_are_read(tmp_path: Path) -> None:
    answers, pairs = LINES
    (tmp_path / "answers.jsonl").write_text(answers, encoding="utf-8")
    (row,) = read_answers(tmp_path / "answers.jsonl")
    assert row.drawn is not None and row.answers[0].ended is False
    assert row.answers[0].ids is not None and row.answers[0].tokens == len(row.answers[0].ids)
    (tmp_path / "pairs.jsonl").write_text(pairs, encoding="utf-8")
    loaded = load_examples(str(tmp_path / "pairs.jsonl"), DataConfig(), HubConfig(), "train", scores="value")
    (pair,) = loaded.examples
    assert pair.ended == (True, False) and pair.scores is not None
    assert json.loads(pairs).keys() >= {"id", "prompt", "chosen", "rejected"}


def test_the_documented_defaults_are_the_codes() -> None:
    sampling = SamplingSettings()
    for name in ("answers", "temperature", "max_new_tokens", "seed"):
        assert getattr(Sample, name) == getattr(sampling, name)
    for name in ("choose", "least_gap", "most_pairs", "longest_ratio"):
        assert getattr(Pair, name) == getattr(Choosing(), name)
    assert f"`--temperature {sampling.temperature:g}`" in PAGE and "Eight answers a prompt" in PAGE
    assert sampling.answers == 8 and f"`--least-gap {Choosing().least_gap:g}`" in PAGE
    assert "`all` (default)" in PAGE and all(f"`{name}`" in PAGE for name in get_args(pair_choice.Choose))
    assert f"by {ANSWERS_IN_CHUNK} answers at a time" in PAGE


def test_every_reason_is_named() -> None:
    reasons = [pair_choice.ONE_ANSWER, pair_choice.FAILED, pair_choice.EMPTY, *pair_choice._ORDER]
    page = " ".join(PAGE.split())
    assert ", ".join(reasons) in page
