"""The cache of tokenized examples, found again by content: what was read, and all that makes tokens of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import is_dataclass
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import tokenizers
import transformers

from tiltlm.data.examples import Example, Text
from tiltlm.data.selection import Account, ReadData, Selection
from tiltlm.data.tokens.token_parts import TokenParts
from tiltlm.data.tokens.token_store import DamagedError, checksum, map_columns, unwrapped, wrapped, write_columns
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.storage.cache import ACCOUNT_FILE, EVAL_FILE, TRAIN_FILE, UNFINISHED_PREFIX

REVISION = 4
"""Grows with every change of what the same data, tokenizer and settings come to: tokens, draws, notes, what
they look like."""

_types: Callable[[Any], dict[str, Any]] = cache(get_type_hints)

# Settings by which the same examples come to other tokens or to others of them.
_SETTINGS = (
    "eval_fraction",
    "max_train_pairs",
    "max_eval_pairs",
    "max_length",
    "max_prompt_length",
    "long_completions",
    "eos",
)


def cache_key(read: ReadData, tokenizer: ExampleTokenizer) -> str:
    """A digest of all that a selection depends on, in hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    settings = {name: getattr(read.data, name) for name in _SETTINGS}
    looked_at_by = [version(name) for name in ("ftfy", "regex", "rensa")]
    versions = [REVISION, transformers.__version__, tokenizers.__version__, *looked_at_by]
    made_by = [*versions, tokenizer_state(tokenizer)]
    digest.update(
        _bytes([made_by, settings, _deciding_seed(read), read.needs.unit, read.needs.mismatched, read.needs.scores])
    )
    if read.times is not None:
        digest.update(read.times.astype("<i8").tobytes())
    for examples in (read.train, read.held_out):
        digest.update(_bytes(len(examples)))
        for example in examples:
            digest.update(_bytes(_plain(example)))
    return digest.hexdigest()


def _deciding_seed(read: ReadData) -> int | None:
    """The seed, where something is drawn by it."""
    limits = ((read.train, read.data.max_train_pairs), (read.held_out, read.data.max_eval_pairs))
    limited = any(limit is not None and len(examples) > limit for examples, limit in limits)
    return read.seed if limited or not read.held_out else None


def tokenizer_state(tokenizer: ExampleTokenizer) -> list[object]:
    """All of a tokenizer that decides on tokens: its own serialisation, special tokens, and how chats are written."""
    own = tokenizer.tokenizer
    own("")  # so that no padding or truncation of an earlier call is in its state
    template = own.chat_template
    # A template may write the date.
    today = date.today().isoformat() if "strftime_now" in json.dumps(template) else None
    special = {name: str(token) for name, token in own.special_tokens_map.items()}
    state = [own.backend_tokenizer.to_str(), special, own.split_special_tokens]
    return [*state, sorted(tokenizer.terminators), template, today]


def _plain(example: Example) -> list[object]:
    texts = [_plain_text(text) for text in (example.prompt, *example.completions)]
    return [example.id, texts, example.labels, example.tools, example.scores, example.ended]


def _plain_text(text: Text) -> object:
    return text if isinstance(text, str) else [[m.role, m.content, m.further] for m in text]


def _bytes(value: object) -> bytes:
    """JSON in ASCII, with an end that no JSON holds."""
    return json.dumps(value, sort_keys=True).encode("ascii") + b"\n"


class TokenCache:
    """Selections of tokenized examples in a folder, each in a folder of its own that is named by its key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Selection | None:
        """The selection of a key, mapped from its files; None if there is none, or if it is damaged."""
        folder = self._folder / key
        try:
            account = json.loads(unwrapped((folder / ACCOUNT_FILE).read_bytes()))
            files = [folder / name for name in (TRAIN_FILE, EVAL_FILE)]
            if [checksum(file) for file in files] != account["checksums"]:
                return None
            train, held_out = (map_columns(file) for file in files)
            return Selection(train, held_out, _built(Account, account["account"]))
        except (OSError, DamagedError, ValueError, KeyError, TypeError):
            return None

    def unfinished(self, key: str) -> TokenParts:
        """Where the parts of a selection are kept until it is whole."""
        return TokenParts(self._folder / f"{UNFINISHED_PREFIX}{key[:8]}", key)

    def put(self, key: str, selection: Selection) -> Selection:
        """Writes a selection, and gives it back mapped from its files; where they cannot be written as it is, noted."""
        unfinished: Path | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished = self._folder / f"{UNFINISHED_PREFIX}{secrets.token_hex(4)}"
            unfinished.mkdir()
            files = [unfinished / name for name in (TRAIN_FILE, EVAL_FILE)]
            for columns, file in zip((selection.train, selection.eval), files, strict=True):
                write_columns(columns, file)
            account = {
                "checksums": [checksum(file) for file in files],
                "account": dataclasses.asdict(selection.account),
            }
            (unfinished / ACCOUNT_FILE).write_bytes(wrapped(json.dumps(account).encode("ascii")))
            # What is there is damaged, or has just been written by another run.
            shutil.rmtree(self._folder / key, ignore_errors=True)
            unfinished.replace(self._folder / key)
        except OSError as error:
            if unfinished is not None:
                shutil.rmtree(unfinished, ignore_errors=True)
            return self.get(key) or _noted(selection, f"The tokens are not kept in the cache ({error}).")
        return self.get(key) or selection


def _noted(selection: Selection, note: str) -> Selection:
    account = dataclasses.replace(selection.account, notes=(*selection.account.notes, note))
    return dataclasses.replace(selection, account=account)


def _built(kind: Any, value: Any) -> Any:
    """A declared type from the plain values of its JSON. Not by `runs.schema`, which cannot hold half a surrogate."""
    if isinstance(kind, type) and is_dataclass(kind):
        types = _types(kind)
        return kind(**{name: _built(types[name], part) for name, part in value.items()})
    inner = get_args(kind)
    if get_origin(kind) is tuple:
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_built(one, part) for one, part in zip(kinds, value, strict=True))
    if value is not None and type(None) in inner:
        return _built(inner[0], value)
    return value
