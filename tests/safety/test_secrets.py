"""What the environment and the command line hold in secret stands in nothing that is written or said."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import write_model, write_pairs

from tiltlm import train as train_from_python
from tiltlm.cli import main
from tiltlm.text.masking import MASK, masked

SECRETS = {
    "HF_TOKEN": "plain-words-hub",
    "HUGGING_FACE_HUB_TOKEN": "hf_" + "Ab3" * 10,
    "OPENAI_API_KEY": "sk-proj-" + "0aB" * 12,
    "ANTHROPIC_API_KEY": "open-sesame-anthropic",
    "WANDB_API_KEY": "0123456789abcdef" * 2,
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "GITHUB_TOKEN": "ghp_" + "0123456789abcdef" * 2,
    "DB_PASSWORD": "correct horse battery",
    "MYSQL_PWD": "staple-of-mysql",
    "PGPASSWORD": "staple-of-postgres",
    "SERVICE_CREDENTIALS": '{"private": "key-of-a-service"}',
    "MY_SECRET": "0pen.(sesame)*",
}
ADDRESSES = {
    "HTTPS_PROXY": "http://me:pass-of-the-proxy@127.0.0.1:9",
    "DATABASE_URL": "postgresql://me:pass-of-the-database@127.0.0.1/x",
}
FLAGS = "flag-of-a-token"
VALUES = [*SECRETS.values(), "pass-of-the-proxy", "pass-of-the-database", FLAGS]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in {**SECRETS, **ADDRESSES}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_model(Path("tiny"))
    write_pairs(Path("pairs.jsonl"))
    return tmp_path


def texts(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file in its bytes, and the names of all; a database whole."""
    for path in sorted(folder.rglob("*")):
        yield path, str(path.relative_to(folder)).encode()
        if path.is_file():
            yield path, path.read_bytes()
        if path.suffix == ".sqlite":
            yield path, "\n".join(sqlite3.connect(path).iterdump()).encode("utf-8", "replace")


def leaks(content: bytes) -> list[str]:
    """The secrets that stand in it, as they are or as JSON or Python write them."""
    forms = {value: (value, json.dumps(value)[1:-1], repr(value)[1:-1]) for value in VALUES}
    return [value for value, written in forms.items() if any(form.encode() in content for form in written)]


SMALL = ["--training.max-steps", "1", "--comparison.prompts", "1", "--comparison.max-new-tokens", "2"]


def test_a_run_keeps_no_secret(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a run, its comparison, its report, and mistakes on the way write and say."""
    options = ["--model.path", "tiny", "--data.train", "pairs.jsonl", *SMALL]
    codes = [main(["train", *options, "--run.name", "good"])]
    # A model's folder that is named by a secret: the name is in settings, command, card and page, as ***.
    write_model(Path(SECRETS["HF_TOKEN"]))
    named = ["--model.path", SECRETS["HF_TOKEN"], "--data.train", "pairs.jsonl"]
    codes.append(main(["train", *named, *SMALL, "--run.name", "named"]))
    codes.append(main(["train", *options, "--run.name", "bad", "--training.learning-rate", "1e30"]))
    codes.append(main(["train", *options, "--hub.token", FLAGS]))
    codes.append(main(["train", *options, f"--api-key={FLAGS}"]))
    codes.append(main(["train", *options, "--data.train", f"https://me:{SECRETS['HF_TOKEN']}@host/x?token={FLAGS}"]))
    codes.append(main(["train", "--model.path", f"me/{SECRETS['ANTHROPIC_API_KEY']}", "--data.train", "pairs.jsonl"]))
    codes.append(main(["inspect", f"me/{SECRETS['WANDB_API_KEY']}", "--model.path", "tiny"]))
    codes.append(main(["compare", "runs/good"]))
    codes.append(main(["compare", "runs/good", "--prompt", "Is 1 a number?"]))
    codes.append(main(["report", "runs/named"]))
    codes.append(main([SECRETS["MY_SECRET"]]))
    assert codes[:2] == [0, 0] and codes[8:11] == [0, 0, 0] and 0 not in codes[3:8]
    captured = capsys.readouterr()
    assert leaks(captured.out.encode() + captured.err.encode()) == []
    assert MASK in captured.err
    # Of what was written, the folder that the secret names is the test's own.
    found = {str(path): leaks(content) for root in ("runs", "cache") for path, content in texts(here / root)}
    assert {path: values for path, values in found.items() if values} == {}
    assert MASK in (here / "runs" / "named" / "config.json").read_text()


def test_a_run_from_python_logs_no_secret(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_model(Path(SECRETS["HF_TOKEN"]))
    with caplog.at_level("INFO", logger="tiltlm"):
        run = train_from_python(
            {"run": {"name": "one"}, "training": {"max_steps": 1}, "comparison": {"prompts": 0}},
            model=SECRETS["HF_TOKEN"],
            train="pairs.jsonl",
        )
    assert caplog.text
    assert leaks(caplog.text.encode()) == []
    assert [path for path, content in texts(run.folder) if leaks(content)] == []


@pytest.mark.parametrize("name", [*SECRETS, "my_service_token", "X_PASSPHRASE", "DJANGO_SECRET_KEY"])
def test_what_a_variable_of_a_secrets_name_holds_is_masked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "correct.horse")
    assert masked("a correct.horse, and correct-horse") == f"a {MASK}, and correct-horse"


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "TOKENIZERS_PARALLELISM", "KEYBOARD", "SSH_AUTH_SOCK"])
def test_what_other_variables_hold_is_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "correct.horse")
    assert masked("a correct.horse") == "a correct.horse"


def test_words_and_places_are_no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSH_KEY", str(tmp_path))
    monkeypatch.setenv("USE_TOKEN", "true")
    assert masked(f"true: {tmp_path}/x") == f"true: {tmp_path}/x"


def test_of_two_secrets_the_longer_is_masked_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "correct-horse")
    monkeypatch.setenv("B_TOKEN", "correct-horse-battery")
    assert masked("correct-horse-battery correct-horse") == f"{MASK} {MASK}"
