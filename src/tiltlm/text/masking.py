"""Secrets (passwords in addresses, tokens, keys) never stand in a message or a record."""

from __future__ import annotations

import re
from collections.abc import Sequence

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


def masked(text: str) -> str:
    """The text with every secret in it replaced by `***`."""
    text = _USER.sub(f"{MASK}@", text)
    text = _QUERY.sub(rf"\g<1>{MASK}", text)
    text = _BEARER.sub(rf"\g<1>{MASK}", text)
    text = _ASSIGNED.sub(rf"\g<1>{MASK}", text)
    return _SHAPES.sub(MASK, text)


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
