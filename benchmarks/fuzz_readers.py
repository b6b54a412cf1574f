"""Reads many malformed inputs as a run does, and records how each ended: nothing may be lost, and nothing may break.

    PYTHONPATH=tests python benchmarks/fuzz_readers.py --output benchmarks/results/fuzz/readers.json

The inputs are those of `tests/malformed_files.py`: rows of every format with something wrong in them, in files of
every kind with bytes damaged, in folders and in memory. Each is read, tokenized, and must end as used data, as data of
which too little is left, or refused with a message that names it; `tests/reading_checks.py` says what is looked at.
Anything else is a fault and is recorded: another exception, a warning or other output, a row that is neither used nor
listed, an example that comes from no row, a crash of the process, more than a minute for one input.

The same seed makes the same inputs. Inputs are read in processes of their own, some thousand each.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow
import tyro
from malformed_files import make_case
from reading_checks import Fault, Outcome, read

from machine import Circumstances, circumstances, write_record
from tiltlm.runs.environment import peak_memory_gib

PORTION = 1000
LIMIT = 60
"""Seconds that an input may take."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """How much to read."""

    output: Path | None = None
    """Where the record goes, as JSON. Unset: it is printed."""
    inputs: int = 20_000
    seed: int = 0
    first: Annotated[int, tyro.conf.arg(help="Used by the script itself: the first input of a portion.")] = 0
    results: Annotated[Path | None, tyro.conf.arg(help="Used by the script itself: where a portion's go.")] = None


@dataclass(frozen=True, slots=True)
class Result:
    """How one input ended. fault: what went wrong, where something did."""

    number: int
    kind: str
    damage: str
    outcome: Outcome
    seconds: float
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """All inputs. rows, used, dropped, left_out: of all inputs that were not refused as a whole.

    by_kind, by_damage: inputs by how they ended; one may have several damages.
    slowest: the five that took longest. peak_gib: the largest resident memory of a process.
    """

    circumstances: Circumstances
    pyarrow: str
    seed: int
    inputs: int
    faults: tuple[Result, ...]
    ended: dict[str, int]
    rows: int
    used: int
    dropped: int
    left_out: int
    by_kind: dict[str, dict[str, int]]
    by_damage: dict[str, dict[str, int]]
    slowest: tuple[Result, ...]
    peak_gib: float


def read_one(number: int, seed: int) -> Result:
    """Makes an input, reads it, and says how that ended."""
    rng = random.Random(f"{seed}-{number}")
    case = make_case(rng)
    outcome, fault, start = Outcome("fault"), None, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcome = read(case, Path(folder), rng)
        except Fault as error:
            fault = str(error)
        except Exception as error:  # whatever comes through is what is looked for
            at = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"{type(error).__name__} in {Path(at.filename).name}:{at.lineno}: {error!s:.200}"
    return Result(number, case.kind, case.damage, outcome, round(time.perf_counter() - start, 3), fault)


def read_portion(arguments: Arguments, results: Path) -> None:
    """Reads some inputs, and writes a line for each as soon as it has ended. What is printed meanwhile is a fault."""
    with results.open("a", encoding="utf-8") as file, tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        for number in range(arguments.first, arguments.first + arguments.inputs):
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            result = read_one(number, arguments.seed)
            if printed.tell():
                printed.seek(0)
                words = printed.read(300).decode("utf-8", "replace")
                result = dataclasses.replace(result, fault=result.fault or f"it printed: {words}")
                printed.truncate(0)
            peak = {"peak_gib": peak_memory_gib()}
            file.write(json.dumps(dataclasses.asdict(result) | peak, ensure_ascii=True) + "\n")
            file.flush()


def read_all(arguments: Arguments) -> tuple[list[Result], float]:
    """Every input's result, and the largest resident memory of a process. One that ends a process is a fault."""
    results: list[Result] = []
    peak = 0.0
    while len(results) < arguments.inputs:
        count = min(PORTION, arguments.inputs - len(results))
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(folder, "results.jsonl")
            words = ["--first", str(len(results)), "--inputs", str(count), "--seed", str(arguments.seed)]
            done = subprocess.run([sys.executable, __file__, *words, "--results", str(lines)], check=False)
            rows = (
                [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()] if lines.exists() else []
            )
        for row in rows:
            peak = max(peak, row.pop("peak_gib") or 0.0)
            results.append(Result(**{**row, "outcome": Outcome(**row["outcome"])}))
        if len(rows) < count:
            number = len(results)
            fault = f"the process ended with {done.returncode}"
            results.append(Result(number, "?", "?", Outcome("fault"), 0.0, fault))
        print(f"{len(results)} inputs, {sum(result.fault is not None for result in results)} faults", flush=True)
    return results, peak


def _ended(results: Iterable[Result]) -> dict[str, int]:
    return dict(Counter(result.outcome.ended for result in results).most_common())


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.results is not None:
        read_portion(arguments, arguments.results)
        return
    around = circumstances("float32")
    results, peak = read_all(arguments)
    ended = Counter("fault" if result.fault else result.outcome.ended for result in results)
    kinds = sorted({result.kind for result in results})
    damages = sorted({damage for result in results for damage in result.damage.split(", ")})
    record = Record(
        circumstances=around,
        pyarrow=pyarrow.__version__,
        seed=arguments.seed,
        inputs=len(results),
        faults=tuple(result for result in results if result.fault),
        ended=dict(ended.most_common()),
        rows=sum(result.outcome.rows for result in results),
        used=sum(result.outcome.used for result in results),
        dropped=sum(result.outcome.dropped for result in results),
        left_out=sum(result.outcome.left_out for result in results),
        by_kind={kind: _ended(result for result in results if result.kind == kind) for kind in kinds},
        by_damage={what: _ended(result for result in results if what in result.damage.split(", ")) for what in damages},
        slowest=tuple(sorted(results, key=lambda result: -result.seconds)[:5]),
        peak_gib=round(peak, 3),
    )
    if arguments.output is not None:
        write_record(record, arguments.output)
    else:
        print(json.dumps(dataclasses.asdict(record), indent=1))
    sys.exit(1 if record.faults else 0)


if __name__ == "__main__":
    main()
