"""The commands."""

from tiltlm.cli.commands import main

__all__ = ["main"]
