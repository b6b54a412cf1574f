"""Errors a user can cause. Each message says what is wrong, where, and how to mend it."""


class TiltlmError(Exception):
    """Something outside the program is wrong; the message is written for the person who runs it."""


class ConfigError(TiltlmError):
    """A setting is unknown, misspelt, out of range, or has no effect where it is used."""


class DataError(TiltlmError):
    """Preference data cannot be found or read, or nothing usable is left of it."""


class ModelError(TiltlmError):
    """A model or tokenizer cannot be found, loaded, or used for what was asked."""


class JudgeError(TiltlmError):
    """A judge of answers cannot be had, or fails at its work."""


class SelfCheckError(TiltlmError):
    """A start-up check on the first real batch failed; training on would give wrong numbers."""


class NonFiniteError(TiltlmError):
    """A loss or gradient is NaN or infinite; the weights were not changed by that step."""


class OutOfMemoryError(TiltlmError):
    """The memory of the machine or of its device did not suffice."""


class RunError(TiltlmError):
    """A run's folder is in the way, missing, or incomplete."""


class RankError(TiltlmError):
    """Of the processes of one job another ended, or gave no answer in time."""


class PackageError(TiltlmError):
    """A package that only some runs need is not installed."""
