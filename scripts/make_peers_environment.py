"""Makes an environment of its own with the peers whose losses ours are compared with: TRL and Liger, on the CPU.

    python scripts/make_peers_environment.py FOLDER
    FOLDER/bin/python scripts/compare_with_peers.py
    FOLDER/bin/python -m pytest tests/peers

They are no dependency of tiltlm: what they need of other versions stays in FOLDER. Versions are those of
requirements.txt and benchmarks/peers/environment.txt; tiltlm itself is this checkout.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINNED = ROOT / "requirements.txt"
PEERS = ROOT / "benchmarks" / "peers" / "environment.txt"
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"


def torch_options(pip_settings: str) -> list[str]:
    """Where torch comes from, for pip: its builds for CPUs, which are a tenth as large as those for GPUs.

    pip_settings: what `pip config list` prints. A folder of wheels in it is this machine's own word on which build
        suits it.
    """
    return [] if "find-links" in pip_settings else ["--index-url", CPU_BUILDS]


def torch_pin(pinned: str) -> str:
    """The line of requirements.txt that pins torch."""
    return next(line for line in pinned.splitlines() if line.startswith("torch=="))


def make(folder: Path) -> Path:
    """Makes the environment; returns its interpreter.

    Raises:
        FileExistsError: the folder is there. An environment is made anew, never mended.
        CalledProcessError: pip failed, and has said why.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there: remove it, or name another folder.")
    venv.create(folder, with_pip=True)
    python = folder.resolve() / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [str(python), "-m", "pip"]
    settings = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True).stdout
    install = [*pip, "install", "--quiet"]
    subprocess.run(
        [*install, "--no-deps", *torch_options(settings), torch_pin(PINNED.read_text(encoding="utf-8"))], check=True
    )
    subprocess.run([*install, "--requirement", str(PINNED)], check=True)
    subprocess.run([*install, "--no-deps", "--requirement", str(PEERS)], check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([str(python), "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    Path(site, "tiltlm_checkout.pth").write_text(f"{ROOT / 'src'}\n", encoding="utf-8")
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to make it; it must not be there")
    try:
        python = make(parser.parse_args().folder)
    except FileExistsError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"pip failed with exit code {error.returncode}; what it says stands above.")
    print(f"made: {python} scripts/compare_with_peers.py")


if __name__ == "__main__":
    main()
