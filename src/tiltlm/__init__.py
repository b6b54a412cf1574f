"""tiltlm: Direct Preference Optimization of language models, small, fast and honest."""

__version__ = "0.2.0"
