"""However a run ends, what training achieved is kept, `summary.json` says what happened, report and compare work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_tokenizers import byte_level
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tiltlm.cli import main
from tiltlm.pipeline import keeping
from tiltlm.runs.outcomes import Summary
from tiltlm.runs.run_files import read_run
from tiltlm.training import losses

ROOT = Path(__file__).parents[1]
OPTIONS = [
    *("--data.train", "pairs.jsonl", "--model.path", "tiny", "--data.max-length", "100", "--run.name", "one"),
    *("--training.batch-pairs", "8", "--training.learning-rate", "1e-4"),
    *("--comparison.max-new-tokens", "4", "--comparison.prompts", "2", "--comparison.samples", "1"),
]
RUN = Path("runs/one")


@pytest.fixture(autouse=True)
def a_model_and_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    tokenizer = byte_level()
    tokenizer.save_pretrained("tiny")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 128, "initializer_range": 0.3}
    config = GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, **sizes)
    GPT2LMHeadModel(config).save_pretrained("tiny")
    rows = [{"prompt": f"Is {n} a number? Answer:", "chosen": " yes", "rejected": " no"} for n in range(40)]
    Path("pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def summary() -> Summary:
    found = read_run(RUN).summary
    assert found is not None
    return found


def still_works(capsys: pytest.CaptureFixture[str]) -> None:
    """The commands for a run, on whatever it left; and the summary can be had again from the other files."""
    before = json.loads((RUN / "summary.json").read_text())
    (RUN / "summary.json").unlink()
    assert main(["report", str(RUN)]) == 0
    assert json.loads((RUN / "summary.json").read_text()) == before
    if (RUN / "model").is_dir():
        assert AutoModelForCausalLM.from_pretrained(RUN / "model").dtype is torch.float32
        assert main(["compare", str(RUN), "--prompt", "Is 3 a number? Answer:"]) == 0
    capsys.readouterr()


def interrupting(real: Callable[..., object], calls: int = 1) -> Callable[..., object]:
    """The function, but interrupted as if by a signal at its `calls`-th call."""
    left = [calls]

    def interrupted(*arguments: object, **named: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    return interrupted


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_to_the_end(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *OPTIONS, "--model.precision", precision]) == 0
    assert (summary().status, summary().completed, summary().message) == ("completed", True, None)
    run = read_run(RUN)
    assert run.outcome is not None and run.evaluation is not None
    assert summary().eval_margin == run.evaluation.figures.margin
    assert summary().training_margin == pytest.approx(summary().eval_margin, abs=0.01)
    assert run.outcome.stage == "comparison"
    still_works(capsys)


def test_a_loss_that_is_not_finite_leaves_the_weights_of_the_last_good_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *OPTIONS, "--training.learning-rate", "1e30", "--training.gradient-clip", "0"]) == 1
    assert "not finite" in capsys.readouterr().err
    assert summary().status == "failed"
    assert "is not finite" in (summary().message or "")
    assert summary().steps == 1
    assert summary().eval_margin is None, "not measured, rather than that of another step"
    assert (RUN / "model" / "model.safetensors").is_file()
    assert main(["report", str(RUN)]) == 0
    assert "is not finite" in (RUN / "report.html").read_text()


@pytest.mark.parametrize(
    ("function", "stage", "trained", "evaluated"),
    [
        ("referencing.fill_cache", "reference", False, False),
        ("optimize.run_checks", "training", False, False),
        ("run.evaluate", "evaluation", True, False),
        ("run.compare_answers", "comparison", True, True),
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_every_stage_may_end_it(
    function: str,
    stage: str,
    trained: bool,
    evaluated: bool,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ending(*arguments: object, **named: object) -> None:
        raise error("out of luck")

    monkeypatch.setattr(f"tiltlm.pipeline.{function}", ending)
    if error is KeyboardInterrupt:
        assert main(["train", *OPTIONS]) == 130
    else:
        with pytest.raises(RuntimeError, match="out of luck"):
            main(["train", *OPTIONS])
    outcome = read_run(RUN).outcome
    assert outcome is not None
    assert outcome.stage == stage
    assert summary().status == ("interrupted" if error is KeyboardInterrupt else "failed")
    assert summary().message == (None if error is KeyboardInterrupt else "out of luck")
    assert (RUN / "model" / "model.safetensors").is_file() == trained
    assert (summary().eval_margin is not None) == evaluated
    assert summary().kl is None


def test_a_second_interruption_leaves_the_weights_of_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiltlm.training.loop.backward", interrupting(losses.backward, calls=3))
    assert main(["train", *OPTIONS]) == 130
    assert summary().status == "interrupted"
    assert summary().steps in (1, 2)
    assert summary().eval_margin is None
    trained = AutoModelForCausalLM.from_pretrained(RUN / "model").state_dict()
    before = AutoModelForCausalLM.from_pretrained("tiny").state_dict()
    assert any(not torch.equal(trained[key], before[key]) for key in before)


@pytest.mark.parametrize(("function", "saved_as"), [("remove_dither", "float32"), ("exact_values", "bfloat16")])
def test_an_interruption_of_the_saving_loses_no_model(
    function: str, saved_as: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal, once the last step is done: what is saved are the weights without what was added for bfloat16."""
    real: Callable[..., object] = getattr(keeping, function)

    def signalled(*arguments: object, **named: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **named)

    monkeypatch.setattr(keeping, function, signalled)
    options = ["--model.precision", "bfloat16", "--training.learning-rate", "1e-30", "--model.save-dtype", saved_as]
    assert main(["train", *OPTIONS, *options]) == 130
    assert (summary().status, summary().steps) == ("interrupted", 5)
    trained = AutoModelForCausalLM.from_pretrained(RUN / "model", dtype=torch.float32).state_dict()
    before = AutoModelForCausalLM.from_pretrained("tiny").state_dict()
    for key, weights in before.items():
        unit = torch.exp2(torch.floor(torch.log2(weights.abs().clamp(min=1e-30))) - 7)
        # What rounding adds, and what steps of 1e-30 add to zeros.
        assert ((trained[key] - weights).abs() <= unit * (saved_as == "bfloat16") + 1e-28).all()


def started(*more: str) -> subprocess.Popen[str]:
    """A long training in a process of its own, some steps in."""
    command = [sys.executable, "-m", "tiltlm", "train", *OPTIONS, "--training.max-steps", "100000", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    metrics, deadline = RUN / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 3) and run.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_step(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    with started("--training.eval-every", "0") as run:
        run.send_signal(number)
        output, _ = run.communicate(timeout=120)
    assert run.returncode == 130, output
    assert "Traceback" not in output
    assert not summary().completed
    assert 0 < (summary().steps or 0) < 100000
    evaluation = read_run(RUN).evaluation
    assert evaluation is not None, "the saved model's figures, not those of step 0"
    assert summary().eval_margin == evaluation.figures.margin != 0
    still_works(capsys)


def test_a_killed_run_can_be_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with started() as run:
        run.send_signal(signal.SIGKILL)
        run.communicate(timeout=60)
    assert not (RUN / "summary.json").exists()
    assert main(["report", str(RUN)]) == 0
    assert (summary().status, summary().completed) == ("killed", False)
    assert (summary().steps or 0) > 0
    assert "killed" in (RUN / "report.html").read_text()
    capsys.readouterr()
