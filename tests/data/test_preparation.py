"""From files to tokenized pairs, with an account in which every row appears once."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_tokenizers import CHAT_TEMPLATE, EOS, byte_level

from tiltlm.config import Config, DataConfig, HubConfig, RunConfig
from tiltlm.data.examples import Example
from tiltlm.data.preparation import PreparedData, examine_data, prepare_data, read_data
from tiltlm.data.selection import ReadData
from tiltlm.data.splitting import prompt_key
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DataReport

Row = dict[str, object]
LONG = " yes" * 600


def row(prompt: object, chosen: object = " yes", rejected: object = " no") -> Row:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def written(folder: Path, name: str, rows: list[Row]) -> str:
    path = folder / name
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return str(path)


def config_of(seed: int = 0, **data: Any) -> Config:
    return Config(run=RunConfig(seed=seed), hub=HubConfig(), data=DataConfig(**data))


def prepared(config: Config, chat_template: str | None = None) -> tuple[ReadData, PreparedData, int]:
    read = read_data(config)
    advanced: list[int] = []
    tokenizer = ExampleTokenizer(byte_level(chat_template=chat_template), config.data)
    data = prepare_data(read, tokenizer, advanced.append)
    return read, data, sum(advanced)


def prompts_of(pairs: Sequence[Example]) -> set[str]:
    return {prompt_key(pair.prompt) for pair in pairs}


def names(data: PreparedData) -> tuple[list[str], list[str]]:
    return [pair.id for pair in data.train], [pair.id for pair in data.eval]


def left_out(report: DataReport) -> int:
    counts = [re.match(r"(\d+) further pairs are left out by data\.max", note) for note in report.notes]
    return sum(int(count[1]) for count in counts if count)


# Twelve prompts, two rows each; then rows of all the kinds that cannot be used.
GOOD = [row(f"Question {n % 12}:", f" yes {n}") for n in range(24)]
BAD = [row("Q:", ""), row("Q:", " no"), row(" "), {"prompt": 3, "chosen": "a", "rejected": "b"}]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("max_train", [None, 1, 7, 1000])
@pytest.mark.parametrize("max_eval", [None, 1, 3])
def test_every_row_is_used_dropped_or_left_out(
    tmp_path: Path, seed: int, max_train: int | None, max_eval: int | None
) -> None:
    rows = [*GOOD, *BAD]
    path = written(tmp_path, "p.jsonl", rows)
    config = config_of(seed, train=path, eval_fraction=0.25, max_train_pairs=max_train, max_eval_pairs=max_eval)
    read, data, advanced = prepared(config)
    report = data.report
    assert report.train is not None and report.eval is not None
    assert (report.train.pairs, report.eval.pairs) == (len(data.train), len(data.eval))
    assert report.dropped.count == len(report.dropped.list) == sum(report.dropped.by_reason.values()) == len(BAD)
    assert len(data.train) + len(data.eval) + report.dropped.count + left_out(report) == len(rows)
    assert advanced == len(read.train) + len(read.held_out)
    assert len(data.train) == min(18, max_train or 18) and len(data.eval) == min(6, max_eval or 6)
    asked = {pair.id: prompt_key(pair.prompt) for pair in read.train}
    assert not {asked[pair.id] for pair in data.train} & {asked[pair.id] for pair in data.eval}


def test_pairs_lost_in_tokenization_are_in_the_account(tmp_path: Path) -> None:
    rows = [*GOOD, *(row(f"Question {n}:", LONG) for n in range(12)), row("Question 1:", " yes", f" yes{EOS}")]
    read, data, _ = prepared(config_of(train=written(tmp_path, "p.jsonl", rows), eval_fraction=0.25))
    assert len(read.train) + len(read.held_out) == len(rows)
    assert data.report.dropped.by_reason == {"completion too long": 12, "identical completions": 1}
    assert len(data.train) + len(data.eval) == len(GOOD)
    assert {drop.id for drop in data.report.dropped.list} == {f"p.jsonl:{line}" for line in range(25, 38)}


def test_held_out_pairs_given_in_a_file(tmp_path: Path) -> None:
    held_out = [row("Question 3:\n"), row("Question 4:"), row("Another:"), row("Another:", "")]
    config = config_of(train=written(tmp_path, "p.jsonl", GOOD), eval=written(tmp_path, "e.jsonl", held_out))
    read, data, _ = prepared(config)
    assert [pair.id for pair in data.eval] == ["e.jsonl:1", "e.jsonl:2", "e.jsonl:3"]
    assert not prompts_of(read.train) & prompts_of(read.held_out)
    report = data.report
    sources = [(source.role, source.rows, source.pairs) for source in report.sources]
    assert sources == [("train", 24, 24), ("eval", 4, 3)]
    # Two training rows of each of the two prompts, and the unusable row.
    assert report.dropped.by_reason == {"prompt is held out": 4, "empty completion": 1}
    assert len(data.train) == 20 and left_out(report) == 0
    assert not any("held-out pairs are those of" in note for note in report.notes)


@pytest.mark.parametrize("max_eval", [1, 2])
def test_a_held_out_prompt_is_not_trained_on_even_where_a_limit_leaves_it_out(tmp_path: Path, max_eval: int) -> None:
    held_out = [row("Question 3:"), row("Question 4:"), row("Question 5:")]
    config = config_of(
        train=written(tmp_path, "p.jsonl", GOOD),
        eval=written(tmp_path, "e.jsonl", held_out),
        max_train_pairs=10,
        max_eval_pairs=max_eval,
    )
    read, data, _ = prepared(config)
    assert not prompts_of(read.train) & {prompt_key(f"Question {n}:") for n in (3, 4, 5)}
    assert len(data.train) + len(data.eval) + data.report.dropped.count + left_out(data.report) == 27


def test_the_same_settings_give_the_same_pairs(tmp_path: Path) -> None:
    path = written(tmp_path, "p.jsonl", GOOD)
    first, again, other = (names(prepared(config_of(seed, train=path, max_train_pairs=6))[1]) for seed in (0, 0, 1))
    assert first == again != other


def test_texts_and_tokens_of_held_out_pairs_belong_together(tmp_path: Path) -> None:
    rows = [*GOOD, *(row(f"Question {n}:", LONG) for n in range(12))]
    _, data, _ = prepared(config_of(train=written(tmp_path, "p.jsonl", rows), eval_fraction=0.5))
    assert [pair.id for pair in data.eval] == [text.id for text in data.eval_rendered]
    assert len(data.eval) == 12


def test_notes_say_what_was_decided(tmp_path: Path) -> None:
    _, data, _ = prepared(config_of(train=written(tmp_path, "p.jsonl", GOOD), eval_fraction=0.25, eos="as-is"))
    assert data.report.notes == (
        "The held-out pairs are those of 3 prompts of the training data, drawn by the seed.",
        "No end-of-sequence token is added.",
    )
    assert not data.report.chat


def test_chats_without_a_template_are_noted(tmp_path: Path) -> None:
    rows = [row([{"role": "user", "content": f"Question {n}"}], "yes", "no") for n in range(4)]
    path = written(tmp_path, "p.jsonl", rows)
    _, plain, _ = prepared(config_of(train=path))
    assert plain.report.chat and any("The model has no chat template" in note for note in plain.report.notes)
    assert plain.report.examples[0].prompt.endswith("\n\nAssistant:")
    _, templated, _ = prepared(config_of(train=path), CHAT_TEMPLATE)
    assert templated.report.chat and not any("no chat template" in note for note in templated.report.notes)
    assert templated.report.examples[0].prompt.endswith("<assistant>")


def test_lengths_in_the_report(tmp_path: Path) -> None:
    prompts = [" no" * n for n in range(1, 6)]
    rows = [row(prompt, " yes" * (n + 1), " no") for n, prompt in enumerate(prompts)]
    train, held_out = written(tmp_path, "p.jsonl", rows), written(tmp_path, "e.jsonl", [row("Q:")])
    _, data, _ = prepared(config_of(train=train, eval=held_out, max_length=9))
    split = data.report.train
    assert split is not None and split.prompts == split.pairs == 5
    # A token a word and one for the end: 1+2, 2+3, 3+4, 4+5, and 5+6 of which the prompt loses two.
    assert split.prompt_tokens is not None and split.chosen_tokens is not None and split.rejected_tokens is not None
    assert (split.prompt_tokens.mean, split.prompt_tokens.median, split.prompt_tokens.max) == (2.6, 3.0, 4)
    assert (split.chosen_tokens.mean, split.chosen_tokens.max) == (4.0, 6)
    assert split.rejected_tokens.max == 2 and split.chosen_longer == 0.8 and split.prompts_cut == 1
    assert split.tokens_without_sharing == sum(len(p.chosen.ids) + len(p.rejected.ids) - 2 for p in data.train)
    shared = [{tuple(s.ids[:end]) for s in p.sequences for end in range(1, len(s.ids))} for p in data.train]
    assert split.tokens_laid_out == sum(map(len, shared))
    assert len(data.report.examples) == 3


def test_nothing_left_after_tokenization_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    train = written(tmp_path, "p.jsonl", [row("A:", LONG), row("B:", LONG)])
    config = config_of(train=train, eval=written(tmp_path, "e.jsonl", [row("C:")]))
    with pytest.raises(DataError, match=r"no pair is left for training .* of 2 dropped is p\.jsonl:1: completion too"):
        prepared(config)
    config = config_of(train=written(tmp_path, "q.jsonl", [row("C:")]), eval=train)
    with pytest.raises(DataError, match="no pair is left for evaluation"):
        prepared(config)


# Twelve prompts of which every third fits, and one more that is longer than the others.
SOME_FIT = [row(f"Question {n}:", " yes" if n % 3 == 0 else LONG) for n in range(12)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("fraction", "held_out"), [(0.1, 1), (0.5, 2), (0.9, 3)])
def test_the_held_out_split_is_drawn_from_what_fits(tmp_path: Path, seed: int, fraction: float, held_out: int) -> None:
    path = written(tmp_path, "p.jsonl", SOME_FIT)
    _, data, _ = prepared(config_of(seed, train=path, eval_fraction=fraction))
    assert (len(data.train), len(data.eval)) == (4 - held_out, held_out)
    # As if the data held nothing else.
    fitting = [one for one in SOME_FIT if one["chosen"] != LONG]
    _, alone, _ = prepared(config_of(seed, train=written(tmp_path, "q.jsonl", fitting), eval_fraction=fraction))
    prompts = [[pair.chosen.ids.tolist() for pair in part.eval] for part in (data, alone)]
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize("limit", [1, 3, 4, 9])
def test_limits_draw_from_what_fits(tmp_path: Path, limit: int) -> None:
    train, held_out = written(tmp_path, "p.jsonl", SOME_FIT), written(tmp_path, "e.jsonl", SOME_FIT[::-1])
    other = written(tmp_path, "o.jsonl", [row("Another:")])
    _, data, tokenized = prepared(config_of(train=train, eval=other, max_train_pairs=limit))
    assert len(data.train) == min(limit, 4) and names(data)[0] == sorted(names(data)[0], key=lambda n: int(n[8:]))
    report = data.report
    assert len(data.train) + report.dropped.count + left_out(report) == len(SOME_FIT)
    assert tokenized < len(SOME_FIT) + 1 or limit >= 4
    _, data, _ = prepared(config_of(train=other, eval=held_out, max_eval_pairs=limit))
    assert len(data.eval) == min(limit, 4) == len(data.eval_rendered)


def test_one_prompt_is_enough_to_look_at(tmp_path: Path) -> None:
    read = read_data(config_of(train=written(tmp_path, "p.jsonl", [row("Q:"), row("Q:", " maybe")])))
    tokenizer = ExampleTokenizer(byte_level(), read.data)
    data, problem = examine_data(read, tokenizer, lambda done: None)
    assert problem is not None and "1 different prompts" in problem
    assert data.report.train is not None and data.report.train.pairs == 2 and data.report.eval is None
    assert len(data.report.examples) == 2
    with pytest.raises(DataError, match="1 different prompts"):
        prepare_data(read, tokenizer, lambda done: None)


def test_a_template_that_refuses_all_is_an_error_in_its_words(tmp_path: Path) -> None:
    rows = [row([{"role": "user", "content": f"Question {n}"}], "yes", "no") for n in range(4)]
    template = "{{ raise_exception('Only on Sundays') }}"
    with pytest.raises(DataError, match=r"first of 4 dropped is p\.jsonl:1: refused by the chat .*Only on Sundays"):
        prepared(config_of(train=written(tmp_path, "p.jsonl", rows)), template)


@pytest.mark.parametrize("max_length", [100, 9])
@pytest.mark.parametrize("long_completions", ["drop", "truncate"])
def test_examples_are_the_tokens_themselves(tmp_path: Path, max_length: int, long_completions: str) -> None:
    rows = [row(" no" * n + f" é{n}:", " yes" * n, " no" * 9) for n in range(1, 9)]
    held_out = written(tmp_path, "e.jsonl", [row("Q:")])
    path = written(tmp_path, "p.jsonl", rows)
    config = config_of(train=path, eval=held_out, max_length=max_length, long_completions=long_completions)
    if max_length == 9 and long_completions == "drop":
        with pytest.raises(DataError, match="completion too long"):
            prepared(config)
        return
    _, data, _ = prepared(config)
    decode = byte_level().decode
    for example, pair in zip(data.report.examples, data.train, strict=False):
        assert example.id == pair.id
        assert example.chosen is not None and example.rejected is not None
        assert example.prompt + example.chosen == decode(pair.chosen.ids.tolist())
        rejected_prompt = example.prompt if example.rejected_prompt is None else example.rejected_prompt
        assert rejected_prompt + str(example.rejected) == decode(pair.rejected.ids.tolist())
        assert example.prompt_tokens_cut == pair.prompt_tokens_cut
        assert (example.chosen_tokens_cut, example.rejected_tokens_cut) == (
            pair.chosen.tokens_cut,
            pair.rejected.tokens_cut,
        )
    split = data.report.train
    assert split is not None
    assert split.completions_cut == sum(s.tokens_cut > 0 for p in data.train for s in (p.chosen, p.rejected))
    assert bool(split.completions_cut) == (max_length == 9)


@pytest.mark.parametrize("turned", [False, True])
def test_held_out_data_of_another_form_is_noted(tmp_path: Path, turned: bool) -> None:
    """A prompt that is a chat in one and text in the other is not found to be the same."""
    texts = written(tmp_path, "texts.jsonl", [row(f"Question {n}:") for n in range(3)])
    chats = written(tmp_path, "chats.jsonl", [row([{"role": "user", "content": f"Question {n}:"}]) for n in range(3)])
    train, held_out = (chats, texts) if turned else (texts, chats)
    note = "text as it stands and the held-out data chats"
    other = "chats and the held-out data text as it stands"
    notes = " ".join(prepared(config_of(train=train, eval=held_out))[1].report.notes)
    assert (note in notes) is not turned and (other in notes) is turned
    assert "another form" not in " ".join(prepared(config_of(train=train))[1].report.notes)
