"""Processes of their own for what is measured: ours by this interpreter, TRL's by one that has it."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tiltlm.bench import trl_peer
from tiltlm.bench.job import Job, Result
from tiltlm.bench.systems import System
from tiltlm.errors import ConfigError, RunError
from tiltlm.pipeline.setup import Setup
from tiltlm.runs.schema import from_json
from tiltlm.text.masking import masked

OF_TRL = "import importlib.metadata; importlib.metadata.version('trl')"
LAST_LINES = 3
"""Of what a process that failed has written, so many are shown."""


class FailedError(RunError):
    """A process ended without a result; the message has the last that it wrote."""


def run_ours(what: str, job: Job) -> Result:
    """Does what `one_training` is told, in a process of its own.

    Raises:
        FailedError: it failed.
    """
    return _run([sys.executable, "-m", "tiltlm.bench.one_training", what], dataclasses.asdict(job))


def run_trl(system: System, job: Job, setup: Setup, python: str) -> Result:
    """Times TRL's trainer.

    Raises:
        FailedError: it failed.
    """
    training, source = setup.config.training, setup.source
    told = TrlJob(
        model=source.location,
        local_files_only=source.local_files_only,
        trust_remote_code=source.trust_remote_code,
        pairs=job.pairs,
        steps=job.steps,
        batch=job.batch,
        device=setup.device.type,
        precision=str(setup.precision).removeprefix("torch."),
        beta=setup.config.loss.beta or 0.0,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        gradient_clip=training.gradient_clip,
        recompute=training.activation_checkpointing,
        precompute=not system.live,
        seed=setup.config.run.seed,
    )
    return _run([python, str(Path(trl_peer.__file__))], dataclasses.asdict(told))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrlJob:
    """What `trl_peer.py` is told; see `Job`."""

    model: str
    local_files_only: bool
    trust_remote_code: bool
    pairs: str
    steps: int
    batch: int
    device: str
    precision: str
    beta: float
    learning_rate: float
    weight_decay: float
    gradient_clip: float
    recompute: bool
    precompute: bool
    seed: int


@functools.cache
def why_no_trl(python: str) -> str | None:
    """Why TRL cannot be measured by this interpreter; None where it can.

    Raises:
        ConfigError: there is no such interpreter.
    """
    try:
        asked = subprocess.run([python, "-c", OF_TRL], capture_output=True, text=True, check=False, env=_environment())
    except OSError as error:
        raise ConfigError(f"--trl-python {python} cannot be run: {error.strerror}.") from error
    if asked.returncode == 0:
        return None
    why = (asked.stderr.strip().splitlines() or ["it failed"])[-1]
    return f"{python} has no TRL that can be used ({masked(why)}); --trl-python names another interpreter"


def _run(command: list[str], job: dict[str, object]) -> Result:
    with tempfile.TemporaryDirectory() as scratch:
        told, result = Path(scratch, "job.json"), Path(scratch, "result.json")
        told.write_text(json.dumps(job), encoding="utf-8")
        ended = subprocess.run(
            [*command, str(told), str(result)],
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if ended.returncode == 0 and result.is_file():
            return from_json(Result, result.read_bytes())
    raise FailedError(_words(ended))


def _words(ended: subprocess.CompletedProcess[str]) -> str:
    if ended.returncode in (-9, 137):
        return "its process was killed, as the system does where memory does not suffice"
    lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
    return masked(" / ".join(lines[-LAST_LINES:])) or f"its process ended with exit code {ended.returncode}"


def _environment() -> dict[str, str]:
    """That of this process, in which the package is found as here, and no library draws bars or asks the network."""
    here = str(Path(__file__).parents[2])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
