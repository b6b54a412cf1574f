"""`python -m src.inference`: the same as `tiltlm compare`; without arguments the newest run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tiltlm.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
