"""The version of this code."""

__version__ = "0.4.0"
