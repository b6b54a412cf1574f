"""Secrets (passwords in addresses, tokens, keys) never stand in a message or a record.

They are known by where they stand (`https://user:password@host`, `--api-key KEY`), by their shape (`hf_...`), and by
the environment: what a variable of a secret's name holds (`HF_TOKEN`, `WANDB_API_KEY`) is masked wherever it appears.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

MASK = "***"

_NAMES = r"token|key|apikey|secret|password|passwd|pwd|credential|credentials|signature|sig|auth|authorization|bearer"
# `https://user:password@host`, `https://token@host`
_USER = re.compile(r"(?<=://)[^\s/?#@'\"]+@")
# `?token=...`, `&X-Amz-Signature=...`
_QUERY = re.compile(rf"([?&;](?:[\w.-]*[_.-])?(?:{_NAMES})=)[^\s&;#'\"\\]+", re.IGNORECASE)
# Tokens known by their shape: Hugging Face, OpenAI and Anthropic, GitHub, GitLab, Slack, AWS, JSON Web Tokens.
# Long enough not to be a name such as `hf_datasets`.
_SHAPES = re.compile(
    r"\b(?:hf_|api_org_|gh[pousr]_)(?:[A-Za-z0-9]{16,}|(?=\w*\d)(?=\w*[A-Z])[A-Za-z0-9]{8,})"
    r"|\b(?:sk-|github_pat_|glpat-)[\w-]*[A-Za-z0-9]{16,}[\w-]*|\bxox[abprs]-[\w-]{10,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
)
_BEARER = re.compile(r"(\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}")
# `--hub.token`, `--api-key`, `--wandb_api_key`; not `--comparison.max-new-tokens`.
_FLAG = re.compile(rf"--?(?:.*[._-])?(?:{_NAMES})", re.IGNORECASE)
_ASSIGNED = re.compile(rf"((?<!\S)--?(?:[\w.-]*[._-])?(?:{_NAMES})[= ])[^\s'\"`,]+", re.IGNORECASE)
# `HF_TOKEN`, `AWS_SECRET_ACCESS_KEY`, `AWS_ACCESS_KEY_ID`, `MYSQL_PWD`, `PGPASSWORD`; not `PWD`, which is a folder.
_VARIABLE = re.compile(
    r".*(?:PASSWORD|PASSWD|PASSPHRASE|SECRET).*|(?:.*_)?(?:TOKEN|KEY|KEY_ID|APIKEY|CREDENTIALS?)|.+_(?:PASS|PWD)",
    re.IGNORECASE,
)
_SHORTEST = 8
"""Characters of a variable's value from which on it is taken for a secret: shorter ones are words and numbers."""
_PASSWORD_IN_ADDRESS = re.compile(r"(?<=://)[^\s/?#@:]*:([^\s/?#@]+)@")


def masked(text: str) -> str:
    """The text with every secret in it replaced by `***`."""
    if len(text) >= _SHORTEST and (known := _secrets_of(tuple(os.environ.items()))) is not None:
        text = known.sub(MASK, text)
    text = _USER.sub(f"{MASK}@", text)
    text = _QUERY.sub(rf"\g<1>{MASK}", text)
    text = _BEARER.sub(rf"\g<1>{MASK}", text)
    text = _ASSIGNED.sub(rf"\g<1>{MASK}", text)
    return _SHAPES.sub(MASK, text)


@lru_cache(maxsize=4)
def _secrets_of(environment: tuple[tuple[str, str], ...]) -> re.Pattern[str] | None:
    """Finds what variables of secrets' names hold, and passwords of the addresses that any holds; None: there are none.

    A variable that names a file or folder is no secret itself.
    """
    values = {value.strip() for name, value in environment if _VARIABLE.fullmatch(name) and not _is_place(value)}
    for _, value in environment:
        values.update(_PASSWORD_IN_ADDRESS.findall(value))
    # Of two that begin alike the longer one is masked whole.
    secrets = sorted((value for value in values if len(value) >= _SHORTEST), key=lambda value: (-len(value), value))
    return re.compile("|".join(map(re.escape, secrets))) if secrets else None


def _is_place(value: str) -> bool:
    try:
        return value.startswith(("/", "~", ".")) and Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def masked_command(words: Sequence[str]) -> tuple[str, ...]:
    """A command line without its secrets: values of flags such as `--api-key`, and secrets within other words."""
    shown: list[str] = []
    hide_next = False
    for word in words:
        name, given, _ = word.partition("=")
        is_secret = _FLAG.fullmatch(name) is not None
        if hide_next and not word.startswith("--"):
            shown.append(MASK)
        elif is_secret and given:
            shown.append(f"{name}={MASK}")
        else:
            shown.append(masked(word))
        hide_next = is_secret and not given
    return tuple(shown)


def masked_values(value: object) -> object:
    """Parsed JSON with the secrets of its texts masked."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: masked_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked_values(item) for item in value]
    return value
