"""`python -m tiltlm`."""

import sys

from tiltlm.cli import main

sys.exit(main())
