"""`tiltlm inspect` on a tiny model: what is shown is what the model sees."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_templates
from rich.console import Console
from tiny_models import SHAREABLE
from tiny_runs import write_model
from tiny_tokenizers import EOS, byte_level

from tiltlm.cli.console import ConsoleReporter
from tiltlm.cli.data_findings import show_parts
from tiltlm.cli.inspect_command import inspect_data
from tiltlm.cli.safe_console import SafeConsole
from tiltlm.config import ComparisonConfig, Config, DataConfig, LossConfig, ModelConfig
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import ConfigError, DataError
from tiltlm.pipeline.prepare import prepare
from tiltlm.pipeline.setup import set_up
from tiltlm.runs.data_account import Quality


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder without weights: none are needed."""
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    SHAREABLE["llama"]().save_pretrained(tmp_path)
    return tmp_path


def shown(
    model: Path,
    rows: Sequence[object],
    template: str | dict[str, str] | None = None,
    terminal: bool = False,
    choice: str | None = None,
    loss: str = "sigmoid",
    **data: Any,
) -> str:
    byte_level(chat_template=template).save_pretrained(model)
    path = model / "pairs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    out = io.StringIO()
    console = SafeConsole(file=out, highlight=False, soft_wrap=True, force_terminal=terminal, width=200)
    config = Config(
        model=ModelConfig(path=str(model), device="cpu", chat_template=choice),
        data=DataConfig(train=str(path), **{"max_length": 32, **data}),
        comparison=ComparisonConfig(max_new_tokens=8),
        loss=LossConfig(name=loss),
    )
    try:
        inspect_data(config, None, ConsoleReporter(console))
    except DataError as error:
        out.write(f"DataError: {error}")
    return out.getvalue()


def row(prompt: str, chosen: str = " yes", rejected: str = " no") -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_without_a_terminal_what_is_scored_is_in_brackets(model: Path) -> None:
    text = shown(model, [row("Q:"), row("R:")])
    assert "in [[double brackets]] is scored." in text and "\\x1b" not in text
    assert f"chosen: Q:[[ yes{EOS}]]\n" in text or f"chosen: R:[[ yes{EOS}]]\n" in text


def test_on_a_terminal_it_stands_reversed(model: Path) -> None:
    text = shown(model, [row("Q:"), row("R:")], terminal=True)
    assert "[[" not in text and f"\x1b[7m yes{EOS}\x1b[0m" in text and "stands reversed" in text


def test_data_that_looks_like_markup_is_shown_as_it_is(model: Path) -> None:
    text = shown(model, [row("Q[bold]:", " [/reverse]x", " [[y]]")])
    assert f"Q[bold]:[[ [/reverse]x{EOS}]]" in text and f"[[ [[y]]{EOS}]]" in text


def test_the_prompt_is_shown_as_it_is_cut(model: Path) -> None:
    text = shown(model, [row(" no" * 80 + " is:")])
    assert "Its prompt lost 53 tokens to fit" in text or "tokens to fit data.max_length" in text
    (line,) = [line for line in text.splitlines() if line.startswith("chosen: ")]
    prompt, _, _ = line.removeprefix("chosen: ").partition("[[")
    assert len(byte_level().tokenize(prompt)) == 30 and prompt.endswith(" is:")


def test_a_cut_completion_is_marked(model: Path) -> None:
    text = shown(model, [row("Q:", " yes" * 60)], long_completions="truncate")
    (line,) = [line for line in text.splitlines() if line.startswith("chosen: ")]
    assert line.endswith(" yes]] ... 31 tokens cut") and EOS not in line


def test_one_pair_is_shown_with_the_reason_why_it_is_not_enough(model: Path) -> None:
    text = shown(model, [row("Q:")])
    assert "chosen: Q:[[" in text and "This is not enough to train on: nothing can be held out" in text


def test_what_cannot_be_used_is_listed_before_the_error(model: Path) -> None:
    chats = [
        {
            "prompt": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}],
            "chosen": "a",
            "rejected": "b",
        }
    ]
    text = shown(model, chats, tiny_templates.NO_SYSTEM)
    listed, _, error = text.partition("DataError: ")
    for part in (listed, error):
        assert "pairs.jsonl:1: refused by the chat template" in part and "System role not supported" in part


def test_a_choice_of_templates_is_asked_for(model: Path) -> None:
    chats = [{"prompt": [{"role": "user", "content": "y"}], "chosen": "a", "rejected": "b"}]
    templates = {"first": tiny_templates.PLAIN, "second": tiny_templates.NOTHING}
    with pytest.raises(ConfigError, match=r"first, second.*model\.chat_template"):
        shown(model, chats, templates)
    text = shown(model, chats, templates, choice="first")
    assert f"chosen: <user>y{EOS}\n<assistant>[[a{EOS}]]" in text
    with pytest.raises(ConfigError, match="it has: first, second"):
        shown(model, chats, templates, choice="third")


def test_labelled_answers_are_shown_for_an_objective_that_takes_them(model: Path) -> None:
    rows: list[object] = [{"prompt": f"Q{n}:", "completion": " no", "label": n == 3} for n in range(4)]
    text = shown(model, rows, loss="kto")
    assert (
        "This is not enough to train on: the objective also scores answers to other prompts, and all 1 held-out" in text
    )
    text = shown(model, rows, loss="kto", eval_fraction=0.5)
    assert "not enough" not in text
    assert "4 rows, 4 examples" in text and "read as `labelled`: recognised in 4 of the first 4 rows" in text
    shown_as = "chosen" if f"chosen: Q3:[[ no{EOS}]]" in text else "rejected"
    assert f"{shown_as}: Q" in text and f"{'rejected' if shown_as == 'chosen' else 'chosen'}: Q" not in text
    refused = shown(model, rows)
    assert "Single labelled answers (as for KTO) are no pairs" in refused and "--loss.name bco" in refused


def test_what_was_inspected_is_not_tokenized_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_tokens(*arguments: object) -> None:
        raise AssertionError("tokenized although it is in the cache")

    rows: list[object] = [row("Q:"), row("R:")]
    text = shown(model, rows)
    monkeypatch.setattr(ExampleTokenizer, "tokenize", no_tokens)
    assert shown(model, rows) == text


def test_what_is_found_is_said_in_words_then_shown_then_listed(model: Path) -> None:
    rows: list[object] = [row(f"{chr(97 + n) * 3}{n}:") for n in range(20)]
    rows += [row("Q:"), row("Q:"), row("Q:", " no", " yes"), row("a\0b:"), row("long" + " no" * 60)]
    text = shown(model, rows)
    order = (
        *("look at: duplicate pairs: 1 of 25 pairs (4%) repeats", "Each counts as often as it is there."),
        *("look at: contradictory pairs: 3 of 25 pairs (12%) contradict another", "look at: encoding damage: 1 of 25"),
        *("found: truncation: 1 of 25 prompts (4%) loses", "not found: ", "special tokens in text"),
        *("scripts (prompts and completions mostly in it): Latin 25 and 50", "different prompts", "training tokens"),
        *("\nduplicate pairs:\n  pairs.jsonl:22 ~ pairs.jsonl:21: repeats the second\n", "\ncontradictory pairs:\n"),
        *("pairs.jsonl:24: NUL in prompt: a\u2400b:", "\ndropped: 0", "The first example"),
    )
    place = 0
    for words in order:
        assert words in text[place:], (words, text)
        place = text.index(words, place)


def test_only_the_first_rows_are_listed_with_how_many_there_are(model: Path) -> None:
    text = shown(model, [row("Q:")] * 9 + [row("R:")])
    listed = text[text.index("\nduplicate pairs:\n") :].splitlines()
    assert listed[5] == "  ... and 5 more (--report FILE.json lists them)" and "8 of 10 pairs (80%) repeat" in text


def test_text_in_listed_rows_is_shown_on_one_line_and_inert(model: Path) -> None:
    hostile = "\x1b[2J[bold]x[/bold]\n\r\x9b31m\u202e"
    for terminal in (False, True):
        text = shown(model, [row("Q:", " " + hostile), row("R:")], terminal=terminal, max_length=64)
        (line,) = [line for line in text.splitlines() if "control characters in chosen" in line]
        assert "\u241b[2J[bold]x[/bold" in line and "\x1b[2J" not in text
        for character in ("\x9b", "\u202e"):
            assert character not in text


def test_a_console_without_blocks_draws_in_ascii(model: Path) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict", write_through=True)
    quality = examined(model, [row("Q:"), row("R:", " yes" * 9), *[row(f"S{n}:") for n in range(9)]])
    show_parts(quality, ConsoleReporter(Console(file=out, highlight=False, width=120)))
    out.seek(0)
    (line,) = [line for line in out if "chosen" in line]
    assert "@" in line and "." in line


def examined(model: Path, rows: Sequence[object]) -> Quality:
    byte_level().save_pretrained(model)
    path = model / "pairs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    config = Config(model=ModelConfig(path=str(model), device="cpu"), data=DataConfig(train=str(path), max_length=32))
    console = Console(file=io.StringIO())
    found = inspect_data(
        dataclasses.replace(config, comparison=ComparisonConfig(max_new_tokens=8)), None, ConsoleReporter(console)
    ).quality
    assert found is not None
    return found


def test_what_should_be_looked_at_is_said_before_training(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [row("Q:"), row("Q:"), row("R:"), row("S:", " \0")]))
    out = io.StringIO()
    config = Config(
        model=ModelConfig(path=str(model), device="cpu"),
        data=DataConfig(train=str(path), max_length=32),
        comparison=ComparisonConfig(max_new_tokens=8),
    )
    data = prepare(set_up(config), ConsoleReporter(SafeConsole(file=out, highlight=False, soft_wrap=True)))
    assert data.report.quality is not None
    for finding in data.report.quality.findings:
        assert (f"  look at: {finding.topic}: {finding.sentence}" in out.getvalue()) == finding.look
    assert out.getvalue().count("look at") == 2
