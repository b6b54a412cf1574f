"""Where things that can be computed again are kept between runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tiltlm.errors import ConfigError

REFERENCE, TOKENS, MODELS, REPLIES, ANSWERS = "reference", "tokens", "models", "replies", "answers"
"""Sub-folders of the cache: reference log-probabilities, tokenized data, the embedded model, replies of judges, and
answers of references to held-out prompts."""
TRAIN_FILE, EVAL_FILE, ACCOUNT_FILE = "train.arrow", "eval.arrow", "account.json"
"""The files of tokenized data, in a folder of TOKENS."""
REFERENCE_SUFFIX = REPLY_SUFFIX = ".sqlite"
EMBEDDED_PREFIX, GIVEN_PREFIX, UNFINISHED_PREFIX = "smollm2-135m-instruct-", "given-", "unfinished-"
"""How the names of folders begin: in MODELS the embedded model and one that a program gave; one that is being made."""


def cache_folder() -> Path:
    """`$TILTLM_CACHE`, else `tiltlm` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`).

    Raises:
        ConfigError: there is no such folder for this user.
    """
    if chosen := os.environ.get("TILTLM_CACHE"):
        return Path(chosen).expanduser()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tiltlm"
    except RuntimeError as error:
        raise ConfigError("this user has no home folder to keep the cache in: set TILTLM_CACHE to a folder.") from error


def writable_cache_folder(name: str = "") -> Path:
    """The cache folder, or a folder in it, made if it is not there.

    Raises:
        ConfigError: it cannot be made or written; the message says how to choose another.
    """
    folder = cache_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Tried, not asked: permissions alone do not tell of a full or read-only disk.
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"1")
    except OSError as error:
        chosen = "TILTLM_CACHE" if os.environ.get("TILTLM_CACHE") else "the cache folder"
        raise ConfigError(
            f"{chosen} cannot be used: {folder}: {error.strerror or error}. "
            "Set TILTLM_CACHE to a folder that can be written."
        ) from error
    return folder


def move_into_place(made: Path, folder: Path) -> None:
    """Gives a folder that was made aside its name in the cache, in one move, so that nobody ever sees half of it."""
    try:
        made.replace(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first, with the same content
            raise
