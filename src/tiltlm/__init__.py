"""tiltlm: Direct Preference Optimization of language models, small, fast and honest."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("tiltlm")
except PackageNotFoundError:  # run from a checkout that is not installed, as `python -m src.main` may be
    __version__ = "0.2.0"
