"""The README's commands, as they stand, in the order they stand, on tiny models under the names it uses."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import write_model

from tiltlm.cli import main
from tiltlm.cli.command_line import parse_config
from tiltlm.model.embedded import embedded_model

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.ru.md"]
NEEDS_CHECKOUT = re.compile(r"^(make|pip|uv|docker|python -m src)|configs/|examples/", re.MULTILINE)


def blocks(page: Path) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def statements(block: str) -> list[str]:
    """The commands of a block; one with a document below it (`<<'END'`) holds that too."""
    found, lines = [], iter(block.splitlines())
    for line in lines:
        statement = line
        if ending := re.search(r"<<'?(\w+)'?$", line):
            for more in lines:
                statement += f"\n{more}"
                if more == ending[1]:
                    break
        found.append(statement)
    return found


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's models and data are found under their names, and that is no checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_model(folder / "Qwen" / "Qwen2.5-0.5B-Instruct", chat=True)
    rows = [
        {"chosen": f"\n\nHuman: Is {n} odd?\n\nAssistant: yes", "rejected": f"\n\nHuman: Is {n} odd?\n\nAssistant: no"}
        for n in range(60)
    ]
    (folder / "Anthropic" / "hh-rlhf").mkdir(parents=True)
    data = folder / "Anthropic" / "hh-rlhf" / "train.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    return folder


@pytest.fixture
def tiny_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, in which a tiny model stands where the embedded one is kept."""
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as unconverted:
        unconverted.setattr("tiltlm.model.embedded._convert", lambda gguf, folder: write_model(folder, chat=True))
        unconverted.setattr("tiltlm.model.embedded._installed_gguf", lambda: Path(__file__))
        unconverted.setattr("tiltlm.model.embedded._check", lambda gguf: None)
        embedded_model()


def test_own_data_as_the_readme_says(
    names: Path, tiny_embedded: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command for any folder does what it should there; the last run's answers are to both prompts."""
    monkeypatch.chdir(names)
    done = []
    for block in blocks(READMES[0]):
        if NEEDS_CHECKOUT.search(block):
            continue
        for statement in statements(block):
            if statement.startswith("tiltlm "):
                assert main(shlex.split(statement)[1:]) == 0, f"{statement}\n{capsys.readouterr().err}"
                done.append(statement.split()[1])
                if "compare" in statement:
                    shown = capsys.readouterr().out
                    assert all(prompt in shown for prompt in re.findall(r'--prompt "(.*?)"', statement))
            elif not statement.startswith("vllm "):
                subprocess.run(["sh", "-ec", statement], check=True)
    assert done == ["inspect", "train", "compare", "report", "train", "train", "merge"]
    assert {path.name for path in (names / "runs").iterdir()} == {"mine", "qwen", "qlora"}
    assert (names / "runs" / "mine" / "model" / "model.safetensors").is_file()
    assert (names / "merged" / "model.safetensors").is_file()


def test_the_program_of_the_readme(
    names: Path,
    tiny_embedded: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In Python, as it stands, and the same in both languages; what it prints begins with the held-out margin."""
    english, russian = (re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL) for page in READMES)
    assert english == russian and len(english) == 1
    monkeypatch.chdir(tmp_path)
    (cat,) = (s for block in blocks(READMES[0]) for s in statements(block) if s.startswith("cat > pairs.jsonl"))
    subprocess.run(["sh", "-ec", cat], check=True)
    exec(compile(english[0], "README.md", "exec"), {})
    shown = capsys.readouterr().out.splitlines()
    float(shown[0].split()[0])
    assert any("My bus is late." in line for line in shown)
    assert (tmp_path / "runs" / "notebook" / "model").is_dir()


def test_the_checkouts_commands_as_the_readme_says(
    names: Path, tiny_embedded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that train on the embedded model are run; GPT-2's, which take 150 steps to warm up, are only read."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "configs", checkout / "configs")
    (checkout / "Anthropic").symlink_to(names / "Anthropic")
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(sys, "argv", ["tiltlm"])
    ran = 0
    for block in blocks(READMES[0]):
        for statement in statements(block):
            words = shlex.split(statement)
            if words[:3] == ["python", "-m", "src.inference"]:
                assert main(["compare", *words[3:]]) == 0
            elif "configs/gpt2-hh.toml" in words:
                assert parse_config(words[2:]).model.path == "gpt2"
            elif words[:2] == ["tiltlm", "train"] and "configs/" in statement:
                assert main(words[1:]) == 0
                ran += 1
            elif words[:3] == ["python", "-m", "src.main"]:
                small = ["--data.max-train-pairs", "32", "--comparison.prompts", "2"]
                assert main(["train", *words[3:], *small]) == 0
                ran += 1
    assert ran == 3
    assert {path.name for path in Path("runs").iterdir()} == {"demo", "hh-ipo", "sft-then-dpo"}


def test_the_command_is_on_the_path_once_installed(tmp_path: Path) -> None:
    """Beside the interpreter of the environment it was installed into, as the README says of `.venv/bin`."""
    command = Path(sys.executable).parent / "tiltlm"
    if not command.is_file():
        pytest.skip("tiltlm is not installed in this environment")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    shown = subprocess.run([command, "--help"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
    assert "tiltlm train" in shown.stdout


def test_the_first_screen_says_how_to_get_the_command() -> None:
    for page in READMES:
        first = page.read_text(encoding="utf-8").split("\n## ")[1]
        ways = ('pip install ".[demo]"', "`pip install .`", 'uv tool install ".[demo]"', ".venv/bin/tiltlm")
        assert all(way in first for way in ways)
        text = page.read_text(encoding="utf-8")
        assert text.index("pairs.jsonl") < text.index("docs/images/demo.png")


def test_a_model_of_the_readme_is_the_embedded_one_first() -> None:
    trainings = [line for block in blocks(READMES[0]) for line in block.splitlines() if line.startswith("tiltlm train")]
    assert "--model.path" not in trainings[0]
