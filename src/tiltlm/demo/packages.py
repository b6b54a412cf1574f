"""Packages that not every run needs: the extras of the distribution."""

from __future__ import annotations

import importlib.util

from tiltlm.errors import PackageError


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f'pip install "tiltlm[{extra}]"'


INSTALL = install("demo")
SENTIMENT = ("vaderSentiment",)
"""What the known reward `vader` needs."""
ADAPTERS = ("peft",)
"""What an adapter needs."""
QUANTISED = ("bitsandbytes", "accelerate")
"""What a quantised base of an adapter needs."""
GGUF = ("accelerate", "gguf")
"""What transformers needs to read the embedded model's file."""


def require(packages: tuple[str, ...], purpose: str, extra: str = "demo") -> None:
    """Makes sure, without importing them, that packages are there.

    extra: the extra of the distribution that holds them.

    Raises:
        PackageError: one is not installed, with what installs it.
    """
    missing = [package for package in packages if not is_installed((package,))]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise PackageError(f"{purpose} needs {' and '.join(missing)}, which {verb} not installed: {install(extra)}")


def is_installed(packages: tuple[str, ...]) -> bool:
    """Whether all of them are there, without importing them."""
    return all(importlib.util.find_spec(package) is not None for package in packages)
