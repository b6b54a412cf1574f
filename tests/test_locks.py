"""What is installed is locked: each package to one version and to the hashes of its files; and audited."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tiltlm.model.embedded import PACKAGE, VERSION, WHEEL_SHA256

ROOT = Path(__file__).parents[1]
LOCKS = {path.stem: path for path in sorted((ROOT / "locks").glob("*.txt"))}
EXTRAS = {"packages": ("demo",), "development": ("demo", "dev"), "documentation": ("demo", "docs")}
AUDIT = runpy.run_path(str(ROOT / "scripts" / "audit_dependencies.py"))


def blocks(name: str) -> list[list[str]]:
    """A lock's requirements, each as its line and those of its hashes."""
    lines = [line.removesuffix("\\").strip() for line in LOCKS[name].read_text(encoding="utf-8").splitlines()]
    found: list[list[str]] = []
    for line in lines:
        if line.startswith("--hash"):
            found[-1].append(line)
        elif line and not line.startswith("#"):
            found.append([line])
    return found


def pins(lines: list[str]) -> dict[str, set[str]]:
    """Versions by name: one of each, or one for each of several versions of Python."""
    found: dict[str, set[str]] = {}
    for line in lines:
        one = Requirement(line)
        (version,) = one.specifier
        assert version.operator == "==" and "*" not in version.version and one.url is None
        versions = found.setdefault(canonicalize_name(one.name), set())
        assert version.version not in versions and (not versions or one.marker is not None)
        versions.add(version.version)
    return found


def locked(*names: str) -> dict[str, set[str]]:
    return pins([block[0] for name in names for block in blocks(name)])


def test_every_package_is_locked_to_one_version_and_to_hashes() -> None:
    assert set(LOCKS) == {"packages", "torch", "development", "documentation", "embedded_model"}
    locked(*LOCKS)  # in no two of them, and each with its version
    for name in LOCKS:
        for _, *hashes in blocks(name):
            assert hashes
            assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes)


def test_a_package_may_have_a_version_for_each_python() -> None:
    text = """\
a==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:00
    # via b
a==2.0 ; python_full_version >= '3.12' \\
    --hash=sha256:11
"""
    read = runpy.run_path(str(ROOT / "scripts" / "make_locks.py"))["read_locked"](text)
    assert [(one.name, one.hashes, one.needed_by) for one in read] == [
        ("a", ("--hash=sha256:00",), ("b",)),
        ("a", ("--hash=sha256:11",), ()),
    ]


@pytest.mark.parametrize("path", [*LOCKS.values(), ROOT / "requirements.txt"], ids=lambda path: path.name)
def test_locks_name_no_place_and_no_build_of_ones_own(path: Path) -> None:
    """They hold wherever there is a package index: no address, no folder, no option, no local version."""
    for line in path.read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or not re.search(r"://|file:|^-|/|@|\+", line.strip().removeprefix("--hash"))


@pytest.mark.parametrize("lock", EXTRAS)
def test_locks_agree_with_the_project(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = [
        *project["dependencies"],
        *(one for extra in EXTRAS[lock] for one in project["optional-dependencies"][extra]),
    ]
    versions = locked("packages", "torch", lock) if lock != "packages" else locked("packages", "torch")
    for need in map(Requirement, needs):
        if need.name != "tiltlm":
            for version in versions[canonicalize_name(need.name)]:
                assert need.specifier.contains(version), f"{need} is not {version}: run `make lock`"


def test_the_assignments_requirements_are_the_locks_without_hashes() -> None:
    """Nor do they name the libraries of torch's GPU builds, which a machine may have or not."""
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert pins(lines) == locked("packages") | {"torch": locked("torch")["torch"]}


def test_the_embedded_model_is_pinned_alike_everywhere() -> None:
    ((line, *hashes),) = blocks("embedded_model")
    assert line == f"{PACKAGE}=={VERSION}"
    assert f"--hash=sha256:{WHEEL_SHA256}" in hashes


@pytest.mark.parametrize("name", ["Makefile", "Dockerfile"])
def test_nothing_is_installed_without_its_hash(name: str) -> None:
    """But the package itself, without its dependencies or a fetched builder, and torch where pip is told of another."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    installs = [line.strip() for line in re.findall(r"pip install[^\n;&]*", text)]
    assert installs
    own = ("--no-deps --no-build-isolation --editable .", "--no-deps $$(grep '^torch==' requirements.txt)")
    for line in installs:
        assert re.search(r"--require-hashes --no-deps --only-binary :all:", line) or line.endswith(own)
    assert set(re.findall(r"locks/(\w+)\.txt", text)) >= {"packages", "torch", "embedded_model"}


# The audit


def answered(monkeypatch: pytest.MonkeyPatch, stdout: str, stderr: str) -> tuple[list[str], str]:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1 if stderr else 0, stdout, stderr)

    monkeypatch.setattr(subprocess, "run", run)
    vulnerabilities: Callable[[], tuple[list[str], str]] = AUDIT["vulnerabilities"]
    return vulnerabilities()


def test_known_vulnerabilities_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = {"id": "PYSEC-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
    packages = [
        {"name": "good", "version": "1.0", "vulns": []},
        {"name": "bad", "version": "1.0", "vulns": [fault]},
        {"name": "unknown", "skip_reason": "not found"},
    ]
    found, words = answered(monkeypatch, json.dumps({"dependencies": packages, "fixes": []}), "Found 1")
    assert found == ["bad 1.0: PYSEC-1, mended in 2.0"]
    assert words.startswith("audited: 2 packages, 1 known vulnerabilities; not audited: 1 packages")


@pytest.mark.parametrize(
    "words",
    [
        "Traceback ...\nrequests.exceptions.ProxyError: HTTPSConnectionPool(host='pypi.org', port=443)",
        "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed",
    ],
)
def test_without_a_network_the_audit_says_so_and_fails_nothing(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    found, said = answered(monkeypatch, "", words)
    assert found == []
    assert said.startswith("not audited: no network")


def test_an_audit_that_fails_otherwise_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="no such option"):
        answered(monkeypatch, "", "pip-audit: no such option")


def test_another_version_than_the_locked_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "packages.txt").write_text("# all\nrich==0.1 \\\n    --hash=sha256:00\nno-such-package==1.0\n")
    monkeypatch.setitem(AUDIT["unlike_the_locks"].__globals__, "LOCKS", tmp_path)
    installed, missing = AUDIT["unlike_the_locks"]()
    assert installed.startswith("rich ") and installed.endswith("and rich==0.1 locked")
    assert missing == "no-such-package==1.0 is locked and not installed"


def test_make_check_audits() -> None:
    assert re.search(r"^check:.* audit$", (ROOT / "Makefile").read_text(), re.MULTILINE)
