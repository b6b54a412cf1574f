"""Packages that only the demo needs: the extra `demo` of the distribution."""

from __future__ import annotations

import importlib.util

from tiltlm.errors import PackageError

INSTALL = 'pip install "tiltlm[demo]"'
SENTIMENT = ("vaderSentiment",)
"""What the known reward `vader` needs."""
GGUF = ("accelerate", "gguf")
"""What transformers needs to read the embedded model's file."""


def require(packages: tuple[str, ...], purpose: str, install: str = INSTALL) -> None:
    """Makes sure, without importing them, that packages are there.

    Raises:
        PackageError: one is not installed, with what installs it.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise PackageError(f"{purpose} needs {' and '.join(missing)}, which {verb} not installed: {install}")
