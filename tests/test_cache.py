"""`tiltlm cache` shows what is kept and removes nothing else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tiltlm.cli import main

FINGERPRINT = "0123456789abcdef" * 2
REFERENCE = f"{FINGERPRINT}-bfloat16-cuda-trees-sdpa-r1.sqlite"
OLDER = f"{FINGERPRINT}-float32.sqlite"
MODEL = "smollm2-135m-instruct-b179c9523d0e"


def reference_file(path: Path, values: int) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE token_logps (key BLOB PRIMARY KEY, logps BLOB) WITHOUT ROWID")
        connection.executemany("INSERT INTO token_logps VALUES (?, ?)", [(bytes([n]), b"") for n in range(values)])
    connection.close()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two references, a model, half a model, and things of somebody else."""
    root = tmp_path / "cache"
    (root / "reference").mkdir(parents=True)
    reference_file(root / "reference" / REFERENCE, 7)
    reference_file(root / "reference" / OLDER, 1)
    for name in (MODEL, "unfinished-ab12_cd3"):
        (root / "models" / name).mkdir(parents=True)
        (root / "models" / name / "config.json").write_text("{}")
        (root / "models" / name / "model.safetensors").write_bytes(bytes(2_500_000))
    for name in (TOKENS, "unfinished-0a_b1c2d", "mine"):
        (root / "tokens" / name).mkdir(parents=True)
        (root / "tokens" / name / "train.arrow").write_bytes(bytes(1_000_000))
    (root / "tokens" / TOKENS / "eval.arrow").write_bytes(bytes(200_000))
    (root / "tokens" / TOKENS / "account.json").write_text("{}")
    (root / "thesis.txt").write_text("mine")
    (root / "reference" / "notes.sqlite").write_text("mine")
    (root / "models" / "my-model").mkdir()
    (root / "models" / "my-model" / "model.safetensors").write_text("mine")
    monkeypatch.setenv("TILTLM_CACHE", str(root))
    return root


TOKENS = "89abcdef01234567" * 2


MINE = {"thesis.txt", "tokens/mine/train.arrow", "reference/notes.sqlite", "models/my-model/model.safetensors"}


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_it_shows_place_contents_and_sizes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(root)
    assert main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert str(root) in shown
    assert "model 0123456789ab, bfloat16, cuda, trees, sdpa, r1: 7 values, 8.2 kB" in shown
    assert "model 0123456789ab, float32: 1 value, 8.2 kB" in shown
    assert f"{MODEL}, 2.5 MB" in shown and "cut short" in shown and "7.2 MB in all" in shown
    assert f"data {TOKENS[:12]}, 1.2 MB" in shown and "tokens that are being written or were cut short, 1.0 MB" in shown
    assert "my-model" not in shown and "notes" not in shown
    assert files(root) == before


@pytest.mark.parametrize(
    ("part", "left"),
    [
        ("reference", ("models/", "tokens/")),
        ("models", ("reference/", "tokens/")),
        ("tokens", ("reference/", "models/")),
        ("all", ()),
    ],
)
def test_it_removes_what_is_ours_and_says_so(
    root: Path, part: str, left: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(root)
    assert main(["cache", "--clear", part]) == 0
    shown = capsys.readouterr().out
    assert files(root) == MINE | {name for name in before if name.startswith(left)}
    assert "freed" in shown
    for name, own in ((REFERENCE, "reference"), (MODEL, "models"), (TOKENS, "tokens")):
        assert (name in shown) == (part in (own, "all"))
    assert main(["cache", "--clear", part]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_a_model_folder_with_something_of_a_persons_stays(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "models" / MODEL / "results").mkdir()
    (root / "models" / MODEL / "results" / "table.csv").write_text("mine")
    before = {name for name in files(root) if MODEL in name}
    assert main(["cache", "--clear", "all"]) == 0
    shown = capsys.readouterr().out
    assert f"kept {root / 'models' / MODEL}: tiltlm did not write results" in shown
    assert files(root) == MINE | before


def test_tokens_with_something_of_a_persons_stay(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "tokens" / TOKENS / "notes.txt").write_text("mine")
    assert main(["cache", "--clear", "tokens"]) == 0
    assert f"kept {root / 'tokens' / TOKENS}: tiltlm did not write notes.txt" in capsys.readouterr().out
    assert (root / "tokens" / TOKENS / "train.arrow").is_file()


def test_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (root / "models" / MODEL).rename(elsewhere)
    (root / "models" / MODEL).symlink_to(elsewhere)
    assert main(["cache", "--clear", "all"]) == 0
    assert (elsewhere / "model.safetensors").is_file() and (root / "models" / MODEL).is_symlink()


def test_a_reference_of_another_version_is_not_called_damaged(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "reference" / OLDER).unlink()
    connection = sqlite3.connect(root / "reference" / OLDER)
    with connection:
        connection.execute("CREATE TABLE logps (key BLOB PRIMARY KEY, logp REAL) WITHOUT ROWID")
    connection.close()
    assert main(["cache"]) == 0
    assert "float32: of another version of tiltlm" in capsys.readouterr().out
    assert main(["cache", "--clear", "reference"]) == 0
    assert f"reference/{OLDER}" not in files(root)


def test_a_given_model_with_several_templates_is_removed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = root / "models" / "given-0123456789ab"
    (given / "additional_chat_templates").mkdir(parents=True)
    (given / "additional_chat_templates" / "tool_use.jinja").write_text("")
    (given / "config.json").write_text("{}")
    assert main(["cache", "--clear", "models"]) == 0
    assert not given.exists()


def test_a_damaged_reference_is_shown_and_removed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "reference" / OLDER).write_text("no database" * 100)
    assert main(["cache"]) == 0
    assert "float32: damaged" in capsys.readouterr().out
    assert main(["cache", "--clear", "reference"]) == 0
    assert not (root / "reference" / OLDER).exists()


@pytest.mark.parametrize("words", [[], ["--clear", "all"]])
def test_no_cache_is_nothing_and_makes_none(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "none"))
    assert main(["cache", *words]) == 0
    assert "nothing" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("words", [[], ["--clear", "all"]])
def test_a_cache_that_is_a_file_is_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "file"))
    assert main(["cache", *words]) == 2
    assert "is a file: name a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
