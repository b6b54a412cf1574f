"""Hidden characters are shown, long texts shortened, secrets masked; all else stays as it is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.table import Table

from tiltlm.cli.console import ConsoleReporter
from tiltlm.cli.safe_console import SafeConsole
from tiltlm.text.masking import MASK, masked, masked_command, masked_values
from tiltlm.text.visible import shortened, visible, visible_line

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ANY = st.text(st.characters(codec=None), max_size=40)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\r\x7f\x00", "␍␡␀"),
        ("half \ud83d", "half \\ud83d"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("tab\tand\nline", "tab\tand\nline"),
    ],
)
def test_hidden_characters_are_named(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["naïve ß", "日本語", "👩‍👩‍👧", "می‌خواهم", "a\u00a0b", "e\u0301", "←→␛"])
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) == text == visible_line(text)


@given(ANY)
@example("\r\n" + BIDI + "\u2028")
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    for shown, kept in ((visible(text), "\n\t"), (visible_line(text), "")):
        assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in kept]
        assert not set(shown) & set(BIDI)
        assert visible(shown, kept) == shown


@given(st.text(max_size=60), st.integers(2, 40))
def test_a_long_text_is_shortened_and_says_by_how_much(text: str, limit: int) -> None:
    shown = shortened(text, "x.json", limit)
    if len(text) <= limit:
        assert shown == text
    else:
        left_out = len(text) - 2 * (limit // 2)
        assert shown == (
            f"{text[: limit // 2]}\n[... {left_out} characters left out; the whole is in x.json ...]\n"
            f"{text[-(limit // 2) :]}"
        )


def test_the_console_obeys_nothing_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ConsoleReporter(SafeConsole(highlight=False, emoji=False, soft_wrap=True))
    attack = "\x1b]0;x\x07\x9b\u202e"
    reporter.say(attack)
    reporter.console.print(attack)
    table = Table(attack)
    table.add_row(attack)
    reporter.console.print(table)
    with reporter.stage("data", attack):
        pass
    shown = capsys.readouterr().out
    assert not set(shown) & set(attack) - set("[]0;x")
    assert shown.count("␛]0;x␇\\x9b\\u202e") == 5


def test_a_line_is_said_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    ConsoleReporter().say("a [bold]b[/bold] :smile: [/c")
    assert capsys.readouterr().out == "a [bold]b[/bold] :smile: [/c\n"


# Secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pa55@host/x", f"https://{MASK}@host/x"),
        ("s3://key@bucket/x", f"s3://{MASK}@bucket/x"),
        ("https://h/x?a=1&token=abc&b=2", f"https://h/x?a=1&token={MASK}&b=2"),
        ("https://h/x?X-Amz-Signature=abc#d", f"https://h/x?X-Amz-Signature={MASK}#d"),
        ("https://h/?access_token=abc", f"https://h/?access_token={MASK}"),
        ("no hf_abcdefghijklmnop here", f"no {MASK} here"),
        ("ghp_0123456789abcdef", MASK),
        ("sk-proj-0123456789abcdef", MASK),
        ("hf_Abcdef12", MASK),
        ("Authorization: Bearer abcdef.ghijkl", f"Authorization: Bearer {MASK}"),
        ("there is no option --hub.token=abc.", f"there is no option --hub.token={MASK}"),
        ("run --api-key abc again", f"run --api-key {MASK} again"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Anthropic/hh-rlhf, at most 48 tokens",
        "https://huggingface.co/gpt2?download=true",
        "mail a@b.org, see --comparison.max-new-tokens 8",
        "hf_hub is a name; a key: value",
        "hf_datasets/pairs.jsonl, hf_internal_testing, ghp_models",
        "sk-learn-like-preferences, risk-averse-answers-of-people",
        "https://host/@user/x and https://host/a?page=2&keys=3&tokens=4",
        "training.micro_batch_tokens=4096",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text


def test_a_command_is_recorded_without_its_secrets() -> None:
    words = [
        "tiltlm",
        "train",
        "--hub.token",
        "abc",
        "--x.api-key=abc",
        "--data.train",
        "https://u:abc@h/",
        "--password",
    ]
    assert masked_command(words) == (
        "tiltlm",
        "train",
        "--hub.token",
        MASK,
        f"--x.api-key={MASK}",
        "--data.train",
        f"https://{MASK}@h/",
        "--password",
    )
    plain = ("tiltlm", "train", "--comparison.max-new-tokens", "8", "--loss.beta", "0.1")
    assert masked_command(plain) == plain


def test_values_are_masked_wherever_they_stand() -> None:
    value = {"a": ["https://u:p@h", 1, None], "b": {"c": "hf_abcdefghijklmnop"}}
    assert masked_values(value) == {"a": [f"https://{MASK}@h", 1, None], "b": {"c": MASK}}
