"""`python -m src.main`: the same as `tiltlm train`; without arguments the demo."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tiltlm.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
