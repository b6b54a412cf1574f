"""`python -m tiltlm.cli.commands`."""

import sys

from tiltlm.cli.commands import main

sys.exit(main())
