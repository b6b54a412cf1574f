"""Where things that can be computed again are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

REFERENCE, MODELS = "reference", "models"
"""Sub-folders of the cache: reference log-probabilities, and the embedded model."""
REFERENCE_SUFFIX = ".sqlite"
EMBEDDED_PREFIX, UNFINISHED_PREFIX = "smollm2-135m-instruct-", "unfinished-"
"""How the names of folders in MODELS begin: the embedded model, and one that is being made."""


def cache_folder() -> Path:
    """`$TILTLM_CACHE`, else `tiltlm` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`)."""
    if chosen := os.environ.get("TILTLM_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tiltlm"
