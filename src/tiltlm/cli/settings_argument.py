"""All settings as an argument of a command."""

from __future__ import annotations

from typing import Annotated

import tyro

from tiltlm.config import Config

Settings = Annotated[Config, tyro.conf.arg(name="")]
"""All settings, as flags `--section.option`."""
