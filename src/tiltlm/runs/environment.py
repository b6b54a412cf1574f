"""Under what circumstances a run was made."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tiltlm.text.masking import masked_command
from tiltlm.version import __version__

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """`environment.json`: how and where the run was started."""

    command: tuple[str, ...]
    versions: dict[str, str | None]
    device: str | None = None
    precision: str | None = None
    git_commit: str | None = None
    started: str
    platform: str | None = None


def describe_environment(command: tuple[str, ...], device: str, precision: str) -> Environment:
    """Versions, machine, the code's git commit, and the command line, in which secrets are masked."""
    return Environment(
        command=masked_command(command),
        # Our own from the code that runs: what is installed from a checkout is known by what it was then.
        versions={
            "python": platform.python_version(),
            "tiltlm": __version__,
            **{name: _version(name) for name in PACKAGES},
        },
        device=device,
        precision=precision,
        git_commit=_git_commit(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        platform=platform.platform(),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit this code lies in, with `-dirty` where it was changed since; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None if described.returncode == 0 else None


def processor_name() -> str:
    """The processor's name; Python's own `platform.processor` is empty on many Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def peak_memory_gib() -> float | None:
    """The program's largest resident memory in GiB; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        # On Linux `ru_maxrss` would also count the process that started this program, up to its exec.
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
