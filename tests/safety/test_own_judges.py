"""A Python file that judges answers is run where it was named, and never because a run's folder names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import write_model, write_pairs

import tiltlm
from tiltlm.cli import main
from tiltlm.errors import ConfigError

REWARD = "own.py:judge"
OWN = """
from pathlib import Path
with Path("ran").open("a") as file:
    file.write("x")

def judge(prompt, answer):
    return len(prompt) + 1000 * len(answer)
"""
SMALL = ["--model.path", "tiny", "--data.train", "pairs.jsonl", "--training.max-steps", "1"]
SMALL += ["--comparison.prompts", "1", "--comparison.max-new-tokens", "4", "--comparison.samples", "1"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_model(Path("tiny"))
    write_pairs(Path("pairs.jsonl"))
    Path("own.py").write_text(f"{OWN}# of {tmp_path}\n")  # one source is run once in a process
    return tmp_path


def ran() -> bool:
    """Whether the file was run since this was last asked. Another source is run anew."""
    mark = Path("ran")
    found = mark.exists()
    mark.unlink(missing_ok=True)
    with Path("own.py").open("a") as file:
        file.write("#\n")
    return found


def test_only_who_names_it_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--run.name", "one", "--comparison.reward", REWARD]) == 0
    assert ran(), "it was named"
    record = json.loads(Path("runs/one/comparison.json").read_text())
    assert record["settings"]["reward"] == REWARD
    prompt = record["prompts"][0]
    for side in ("before", "after"):
        for answer in (prompt[side]["greedy"], *prompt[side]["samples"]):
            assert answer["reward"] == len(prompt["prompt"]) + 1000 * len(answer["text"])
    assert "own.py:judge" in Path("runs/one/report.html").read_text()

    assert main(["report", "runs/one"]) == 0 and not ran()
    assert main(["compare", "runs/one"]) == 0 and not ran()
    capsys.readouterr()
    asked = ["compare", "runs/one", "--prompt", "Is 1 a number?"]
    assert main(asked) == 0 and not ran()
    assert "own.py:judge, which is not run because the run's folder names it" in capsys.readouterr().out
    assert main([*asked, "--trust-remote-code"]) == 0 and ran()

    capsys.readouterr()
    assert main(["train", "--resume", "runs/one"]) == 2 and not ran()
    assert f"say --comparison.reward {REWARD} if you trust it" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="whose code is run only where it is named"):
        tiltlm.train(resume="runs/one")
    assert not ran()
    assert main(["train", "--resume", "runs/one", "--comparison.reward", REWARD]) == 0


def test_nor_does_the_judge_of_kept_rounds_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--run.name", "one"]) == 0
    settings = Path("runs/one/config.json")
    content = json.loads(settings.read_text())
    content["rounds"] = {"judge": REWARD}
    settings.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["train", "--resume", "runs/one"]) == 2 and not ran()
    assert f"say --rounds.judge {REWARD} if you trust it" in capsys.readouterr().err


def test_a_stage_of_a_kept_recipe_runs_none(capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.toml").write_text(
        "[model]\npath = 'tiny'\n[data]\ntrain = 'pairs.jsonl'\n[training]\nmax_steps = 1\n[run]\nname = 'two'\n"
        "[comparison]\nprompts = 1\nmax_new_tokens = 2\nsamples = 0\n[[stage]]\nname = 'a'\n"
        f"[stage.comparison]\nreward = '{REWARD}'\n[[stage]]\nname = 'b'\n"
    )
    assert main(["train", "recipe.toml"]) == 0 and ran()
    capsys.readouterr()
    for words in ([], ["--comparison.reward", "none"]):
        assert main(["train", "--resume", "runs/two", *words]) == 2 and not ran()
    assert "with your file of the stages" in capsys.readouterr().err


def test_a_sweep_runs_none(capsys: pytest.CaptureFixture[str]) -> None:
    swept = [*SMALL, "--loss.beta", "0.1,0.2", "--run.name", "s"]
    assert main(["sweep", *swept, "--comparison.reward", REWARD]) == 2 and not ran()
    assert "a Python file, and a sweep runs none" in capsys.readouterr().err
    assert main(["sweep", *swept, "--comparison.reward", "none"]) == 0
    record = Path("runs/s/sweep.json")
    content = json.loads(record.read_text())
    content["settings"]["comparison"]["reward"] = REWARD
    for member in content["members"]:
        member["status"] = "waiting"
    record.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["sweep", "--resume", "runs/s"]) != 0 and not ran()
    assert "a sweep runs none" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ("none.py:judge", "none.py cannot be read"),
        ("own.py:other", "no function `other`"),
        ("own.py:text", "returned str 'good'"),
        ("rules.toml", "`(` is no regular expression"),
        ("model:tiny", "which gives no rewards"),
        ("model:none/of/these", "there is no model folder"),
        ("https://host/v1", "gives no number to an answer that stands alone"),
    ],
)
def test_what_will_not_do_is_said_before_any_work(reward: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.py").write_text("def text(answer):\n    return 'good'\n")
    Path("rules.toml").write_text('[[rule]]\npattern = "("\npoints = 1\n')
    assert main(["train", *SMALL, "--comparison.reward", reward]) in (1, 2)
    shown = capsys.readouterr()
    assert said in shown.err and not Path("runs").exists()
