"""The program of a process of its own: does one thing that a job says, and writes what came of it.

    python -m tiltlm.bench.one_training SYSTEM JOB.json RESULT.json

Warm caches, memory and threads of one system can then not serve, or burden, another.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

from tiltlm.bench.ablations import COMPOSITIONS
from tiltlm.bench.job import Job, Result
from tiltlm.bench.matrix_peak import matrix_peak
from tiltlm.bench.naive_training import naive_training
from tiltlm.bench.own_training import fill_reference, own_training
from tiltlm.bench.systems import SYSTEMS
from tiltlm.errors import TiltlmError
from tiltlm.model.loading import choose_device, choose_precision
from tiltlm.runs.schema import from_json

PEAK, REFERENCE = "peak", "reference"
"""What is done besides the training of systems: the peak of matrix products, and the reference's values."""


def done(what: str, job: Job) -> Result:
    """What came of it."""
    if what in BESIDES:
        return Result(peak=BESIDES[what](job))
    system = SYSTEMS[what]
    if system.maker == "naive":
        return Result(naive_training(job))
    return Result(own_training(job, COMPOSITIONS[what], system.live))


def _peak(job: Job) -> float:
    model = job.config.model
    device = choose_device(model.device)
    dtype, _ = choose_precision(model.precision, device)
    return matrix_peak(device, dtype)


BESIDES: dict[str, Callable[[Job], float | None]] = {PEAK: _peak, REFERENCE: fill_reference}


def main(what: str, job_file: str, result_file: str) -> int:
    """Does it; a mistake of the user's ends with its message alone."""
    job = from_json(Job, Path(job_file).read_bytes())
    try:
        result = done(what, job)
    except TiltlmError as error:
        print(error, file=sys.stderr)
        return 1
    Path(result_file).write_text(json.dumps(dataclasses.asdict(result)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
