"""The tests' own data are what they are said to be, and come from this repository alone."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from own_data import DIALOGUES, FIXTURES, GPT2_LIKE, dialogues, gpt2_tokenizer, polite_and_rude

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def test_the_tokenizer_is_what_its_script_makes(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "scripts" / "make_test_tokenizer.py"))["make"](tmp_path)
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / name).read_bytes() == (GPT2_LIKE / name).read_bytes(), (
            "run `python scripts/make_test_tokenizer.py`"
        )


@pytest.mark.parametrize("text", ["\n\nHuman: Ça va?\n\nAssistant: 100 % 🙂", "  a\tb", "<|endoftext|>", ""])
def test_every_text_is_encoded_and_decoded_to_itself(text: str) -> None:
    tokenizer = gpt2_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == len(tokenizer) - 1


def test_the_dialogues_are_as_described() -> None:
    rows = dialogues()
    assert len(rows) == 39 and len({row["chosen"] for row in rows}) == 39
    assert all(side.startswith("\n\nHuman: ") for row in rows for side in row.values())
    prompts = [row["chosen"].rpartition("\n\nAssistant:")[0] for row in rows]
    lengths = [len(gpt2_tokenizer()(prompt)["input_ids"]) for prompt in prompts]
    assert sum(length > 256 for length in lengths) == 1


def test_polite_and_rude_answers_differ_in_their_tone_alone() -> None:
    rows = polite_and_rude(50)
    assert rows == polite_and_rude(50) != polite_and_rude(50, seed=1)
    assert len({row["instruction"] for row in rows}) == 50
    assert all(row["chosen"] != row["rejected"] for row in rows)


def test_nothing_outside_the_repository_is_read_but_by_marked_tests() -> None:
    """The folder of others' data is named in one place; a test that uses it is marked."""
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "test_fixtures.py" and re.search(r"\bSHARED\b", text):
            assert "shared_data" in text, path
    beside = re.compile(r"parents?\[\d\]\.parent\b|\.parent\.parent\.parent")
    named = {path.name for path in TESTS.rglob("*.py") if beside.search(path.read_text(encoding="utf-8"))}
    assert named <= {"own_data.py", "test_fixtures.py"}
    assert FIXTURES in DIALOGUES.parents
