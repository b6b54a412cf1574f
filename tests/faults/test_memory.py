"""Memory that does not suffice: in every stage one message that says which, and what lowers the need."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from broken_machine import require_whole
from broken_runs import OPTIONS, RUN, Ended, Place
from tiny_runs import write_model, write_pairs

from tiltlm.cli import commands, main
from tiltlm.errors import OutOfMemoryError
from tiltlm.model.finding import ModelSource
from tiltlm.model.saving import save_model
from tiltlm.model.scorer import Scorer
from tiltlm.model.weights import load_model
from tiltlm.runs.run_files import read_run
from tiltlm.storage.library_errors import is_out_of_memory, memory_asked_for

SOURCES = Path(__file__).parents[2] / "src"
OF_CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.21 GiB is "
    "free. Process 1 has 77.90 GiB memory in use."
)


def on_the_cpu() -> None:
    torch.empty(1 << 50)


def in_numpy() -> None:
    np.empty(1 << 50)


def in_python() -> None:
    bytearray(1 << 60)


def on_the_gpu() -> None:
    raise torch.OutOfMemoryError(OF_CUDA)


def in_cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def in_the_system() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


KINDS: list[tuple[Callable[[], None], str | None]] = [
    (on_the_cpu, "4194304.00 GiB"),
    (in_numpy, "8.00 PiB"),
    (in_python, None),
    (on_the_gpu, "2.00 GiB"),
    (in_cublas, None),
    (in_the_system, None),
]


@pytest.mark.parametrize(("runs_out", "asked"), KINDS)
def test_it_is_known_however_it_is_said(runs_out: Callable[[], None], asked: str | None) -> None:
    with pytest.raises((RuntimeError, MemoryError, OSError)) as error:
        runs_out()
    assert is_out_of_memory(error.value)
    assert memory_asked_for(error.value) == asked


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), OSError(errno.ENOENT, "No such file"), ValueError()])
def test_other_errors_are_not_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def stage_now() -> tuple[str | None, int]:
    """The stage that a run has come to, and how many steps are recorded."""
    if not (RUN / "outcome.json").exists():
        return None, 0
    metrics = RUN / "metrics.jsonl"
    steps = metrics.read_text().count('"train"') if metrics.exists() else 0
    return json.loads((RUN / "outcome.json").read_text())["stage"], steps


MENDS = {
    "data": ["data.max_train_pairs"],
    "reference": ["training.micro_batch_tokens (it is 4096"],
    "training": ["training.micro_batch_tokens", "training.activation_checkpointing", "data.max_length (it is 512)"],
    "evaluation": ["training.micro_batch_tokens"],
    "comparison": ["comparison.samples (it is 1)", "comparison.max_new_tokens (it is 2)", "--comparison.prompts 0"],
}


@pytest.mark.parametrize("stage", ["data", "reference", "training", "evaluation", "comparison"])
@pytest.mark.parametrize("runs_out", [on_the_cpu, on_the_gpu])
def test_each_stage_says_what_lowers_its_need(
    runs_out: Callable[[], None], stage: str, place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training at the second step: what the first achieved is saved."""
    real = Scorer.forward

    def forward(self: Scorer, *arguments: Any) -> Any:
        now, steps = stage_now()
        if now == stage and (stage != "training" or steps):
            runs_out()
        return real(self, *arguments)

    monkeypatch.setattr(Scorer, "forward", forward)
    if stage == "comparison":
        monkeypatch.setattr("tiltlm.evaluation.comparison.generate_answers", lambda *given: runs_out())
    if stage == "data":
        monkeypatch.setattr("tiltlm.data.preparation.select", lambda *arguments: runs_out())
    said = place.train().sentence()
    device = "GPU" if runs_out is on_the_gpu else "machine"
    assert f"the {device}'s memory did not suffice in the stage `{stage}` when" in said
    assert all(mend in said for mend in MENDS[stage]), said
    if stage == "data":
        assert not RUN.exists()
        return
    require_whole(RUN)
    outcome = read_run(RUN).outcome
    assert outcome is not None
    assert (outcome.status, outcome.stage) == ("failed", stage)
    assert (outcome.message or "") in said
    assert (RUN / "model").is_dir() == (stage not in ("reference", "model"))
    assert (RUN / "evaluation.json").exists() == (stage == "comparison")
    assert place.report() == Ended(0, "")
    assert "memory did not suffice" in (RUN / "report.html").read_text()


def test_what_a_step_held_that_did_not_fit_is_let_go_of_before_the_weights_are_saved(
    place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else saving would run out of memory too, and what training achieved would be lost."""
    held: list[bool] = []

    class Activations:
        def __del__(self) -> None:
            held.append(False)

    def fails(*arguments: object, **named: object) -> None:
        activations = Activations()
        assert activations
        if stage_now()[1]:
            on_the_cpu()

    monkeypatch.setattr("tiltlm.training.loop.torch.nn.utils.get_total_norm", clipping(fails))
    seen: list[int] = []

    def saving(*arguments: Any) -> None:
        seen.append(len(held))
        save_model(*arguments)

    monkeypatch.setattr("tiltlm.pipeline.keeping.save_model", saving)
    place.train().sentence()
    assert seen == [2]


def clipping(first: Callable[[], None]) -> Callable[..., Any]:
    real = torch.nn.utils.get_total_norm

    def clip(*arguments: Any, **named: Any) -> Any:
        first()
        return real(*arguments, **named)

    return clip


def test_a_model_that_does_not_fit_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "tiny")
    monkeypatch.setattr(
        "tiltlm.model.weights.AutoModelForCausalLM.from_pretrained", lambda *given, **named: on_the_cpu()
    )
    with pytest.raises(RuntimeError, match="allocate"):
        load_model(ModelSource(str(tmp_path / "tiny"), True, False), torch.device("cpu"))


@pytest.mark.parametrize("runs_out", [kind for kind, _ in KINDS])
@pytest.mark.parametrize("command", ["compare", "inspect"])
def test_other_commands_say_it_too(
    command: str, runs_out: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(commands.COMMANDS, command, lambda words: runs_out())
    assert main([command]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tiltlm: memory did not suffice") and error.count("\n") == 1


def test_from_python_it_is_an_error_of_tiltlm(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiltlm

    monkeypatch.setattr("tiltlm.data.preparation.select", lambda *arguments: in_numpy())
    settings = {"model": {"path": "tiny"}, "data": {"train": "pairs.jsonl"}}
    with pytest.raises(OutOfMemoryError, match="in the stage `data`"):
        tiltlm.train(settings)


def test_a_process_may_be_given_little_memory(tmp_path: Path) -> None:
    """The system's own limit (ulimit -v), set once the libraries are loaded, is met wherever it is met."""
    write_model(tmp_path / "tiny")
    write_pairs(tmp_path / "pairs.jsonl")
    program = (
        "import resource, sys; from tiltlm.cli import main; import tiltlm.pipeline.run; "
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
        "resource.setrlimit(resource.RLIMIT_AS, (size + (24 << 20), -1)); "
        f"sys.exit(main(['train', *{OPTIONS!r}, '--training.batch-pairs', '8']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(SOURCES), "TILTLM_CACHE": "cache", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    )
    assert done.returncode == 1, (done.returncode, done.stderr[-2000:])
    assert "Traceback" not in done.stderr and "memory did not suffice" in done.stderr, done.stderr
