"""What lies in the cache, in words, and how it is removed: `tiltlm cache`.

Only what tiltlm wrote is ever listed or removed: files and folders of its own names, and in such a folder only files of
names that belong there.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tiltlm.errors import ConfigError, TiltlmError
from tiltlm.storage.cache import (
    ACCOUNT_FILE,
    ANSWERS,
    EMBEDDED_PREFIX,
    EVAL_FILE,
    GIVEN_PREFIX,
    MODELS,
    REFERENCE,
    REFERENCE_SUFFIX,
    REPLIES,
    REPLY_SUFFIX,
    TOKENS,
    TRAIN_FILE,
    UNFINISHED_PREFIX,
)

_REFERENCE_NAME = re.compile(rf"(?P<model>[0-9a-f]{{32}})-(?P<how>[\w.-]+){re.escape(REFERENCE_SUFFIX)}")
_ANSWERS_NAME = re.compile(r"[0-9a-f]{32}\.jsonl")
_REPLIES_NAME = re.compile(rf"[0-9a-f]{{32}}{re.escape(REPLY_SUFFIX)}")
_SIDECARS = ("-journal", "-wal", "-shm")
"""Endings of the files that SQLite keeps beside its own while it writes."""
_MODEL_NAME = re.compile(rf"({re.escape(EMBEDDED_PREFIX)}|{re.escape(GIVEN_PREFIX)})[0-9a-f]{{12}}[\w.-]*")
_UNFINISHED_NAME = re.compile(rf"{re.escape(UNFINISHED_PREFIX)}[a-z0-9_]{{8}}")
_TEMPLATES = "additional_chat_templates"
"""The folder in which transformers keeps all of a tokenizer's chat templates but the first."""
_MODEL_FILE = re.compile(
    r"model.*\.safetensors(\.index\.json)?|(generation_|tokenizer_)?config\.json|chat_template\.jinja|"
    r"tokenizer\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|"
    rf"{_TEMPLATES}(/[\w.-]+\.jinja)?"
)
_TOKENS_NAME = re.compile(r"[0-9a-f]{32}")
_TOKENS_PART = re.compile(r"[0-9a-f]{32}\.([0-9a-f]{8}|arrow|json)")
_TOKENS_FILES = frozenset({TRAIN_FILE, EVAL_FILE, ACCOUNT_FILE})
_TITLES = {
    REFERENCE: "reference log-probabilities",
    TOKENS: "tokenized data",
    MODELS: "models, converted or given from Python",
    REPLIES: "replies of language models that judge answers",
    ANSWERS: "answers of references to held-out prompts",
}
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing in the cache.

    path: its file or folder. also: files that belong to it. size: in bytes. foreign: names in it that tiltlm did not
    write, which keep it from being removed.
    """

    path: Path
    also: tuple[Path, ...]
    words: str
    size: int
    foreign: tuple[str, ...] = ()


def describe_cache(root: Path) -> Iterator[str]:
    """Where the cache is, what is in it and how large that is, line by line.

    Raises:
        ConfigError: the cache is a file, or cannot be read.
    """
    yield f"The cache is in {root} (TILTLM_CACHE names another place)."
    total = 0
    for part, title in _TITLES.items():
        kept = cache_contents(root, part)
        total += sum(one.size for one in kept)
        yield f"{title}: {_size(sum(one.size for one in kept)) if kept else 'nothing'}"
        yield from (f"  {one.words}, {_size(one.size)}" for one in kept)
    if total:
        yield f"{_size(total)} in all. To remove it: tiltlm cache --clear all (or {', '.join(_TITLES)})."


def clear_cache(root: Path, which: str) -> Iterator[str]:
    """Removes a part, saying what before it does.

    Args:
        which: `reference`, `tokens`, `models`, `replies`, `answers` or `all`.

    Raises:
        ConfigError: the cache is a file, or cannot be read.
        TiltlmError: something cannot be removed.
    """
    kept = [one for part in _TITLES if which in (part, "all") for one in cache_contents(root, part)]
    ours = [one for one in kept if not one.foreign]
    for one in kept:
        if one.foreign:
            yield f"kept {one.path}: tiltlm did not write {', '.join(one.foreign[:3])} there. Move that away first."
    if not ours:
        yield f"There is nothing to remove in {root}."
        return
    for one in ours:
        yield f"removing {one.path} ({one.words}, {_size(one.size)})"
        _remove(one)
    yield f"{_size(sum(one.size for one in ours))} freed."


def cache_contents(root: Path, part: str) -> list[Kept]:
    """What tiltlm keeps in a sub-folder of the cache (see `_TITLES`), in the order of names.

    Raises:
        ConfigError: the cache is a file, or cannot be read.
    """
    folder = root / part
    try:
        if root.exists() and not root.is_dir():
            raise ConfigError(f"the cache {root} is a file: name a folder with TILTLM_CACHE.")
        # A link leads to what somebody else keeps, under whatever name.
        paths = sorted(path for path in folder.iterdir() if not path.is_symlink()) if folder.is_dir() else []
        found = (_KINDS[part](path) for path in paths)
        return [one for one in found if one is not None]
    except OSError as error:
        raise ConfigError(f"the cache {folder} cannot be read ({error.strerror or error}).") from error


def _reference(path: Path) -> Kept | None:
    name = _REFERENCE_NAME.fullmatch(path.name)
    if name is None or not path.is_file():
        return None
    also = tuple(side for ending in _SIDECARS if (side := path.with_name(path.name + ending)).is_file())
    words = f"model {name['model'][:12]}, {name['how'].replace('-', ', ')}: {_values(path)}"
    return Kept(path, also, words, _bytes((path, *also)))


def _replies(path: Path) -> Kept | None:
    if not _REPLIES_NAME.fullmatch(path.name) or not path.is_file():
        return None
    also = tuple(side for ending in _SIDECARS if (side := path.with_name(path.name + ending)).is_file())
    try:
        with closing(_opened(path)) as connection:
            ((address, model),) = connection.execute("SELECT address, model FROM about").fetchall()
            replies = int(connection.execute("SELECT COUNT(*) FROM replies").fetchone()[0])
            words = f"{model} at {address}: {replies:,} {'reply' if replies == 1 else 'replies'}"
    except (sqlite3.Error, ValueError):
        words = f"{path.name[:12]}: damaged"
    return Kept(path, also, words, _bytes((path, *also)))


def _answers(path: Path) -> Kept | None:
    if not _ANSWERS_NAME.fullmatch(path.name) or not path.is_file():
        return None
    with path.open("rb") as file:
        prompts = sum(1 for _ in file)
    return Kept(
        path, (), f"{path.name[:12]}: answers to {prompts:,} {'prompt' if prompts == 1 else 'prompts'}", _bytes((path,))
    )


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, timeout=5)


def _values(path: Path) -> str:
    """How many values a reference file holds, in words, or why that is not known."""
    try:
        with closing(_opened(path)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "token_logps" not in tables:
                return "of another version of tiltlm" if "logps" in tables else "damaged"
            values = int(connection.execute("SELECT COUNT(*) FROM token_logps").fetchone()[0])
    except sqlite3.Error:
        return "damaged"
    return "1 value" if values == 1 else f"{values:,} values"


def _model(path: Path) -> Kept | None:
    if not path.is_dir():
        return None
    files = [file for file in path.rglob("*") if not file.is_dir() or file.is_symlink()]
    if _UNFINISHED_NAME.fullmatch(path.name):
        return Kept(path, (), f"{path.name}, a conversion that was cut short or is running", _bytes(files))
    if not _MODEL_NAME.fullmatch(path.name):
        return None
    foreign = tuple(
        sorted(
            name
            for file in path.rglob("*")
            if not _MODEL_FILE.fullmatch(name := file.relative_to(path).as_posix())
            or file.is_symlink()
            or file.is_dir() != (name == _TEMPLATES)
        )
    )
    return Kept(path, (), path.name, _bytes(files), foreign)


def _tokens(path: Path) -> Kept | None:
    if not path.is_dir():
        return None
    files = sorted(path.iterdir())
    unfinished = _UNFINISHED_NAME.fullmatch(path.name) is not None
    foreign = tuple(
        file.name
        for file in files
        if not _is_file(file) or not (file.name in _TOKENS_FILES or (unfinished and _TOKENS_PART.fullmatch(file.name)))
    )
    if unfinished:
        return Kept(path, (), f"{path.name}, tokens that are being written or were cut short", _bytes(files), foreign)
    if not _TOKENS_NAME.fullmatch(path.name):
        return None
    return Kept(path, (), f"data {path.name[:12]}", _bytes(files), foreign)


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


_KINDS: dict[str, Callable[[Path], Kept | None]] = {
    REFERENCE: _reference,
    TOKENS: _tokens,
    MODELS: _model,
    REPLIES: _replies,
    ANSWERS: _answers,
}


def _remove(one: Kept) -> None:
    try:
        if one.path.is_dir():
            shutil.rmtree(one.path)
        for file in (one.path, *one.also):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise TiltlmError(f"{one.path} cannot be removed ({error.strerror or error}).") from error


def _bytes(files: Sequence[Path]) -> int:
    return sum(file.lstat().st_size for file in files)


def _size(size: float) -> str:
    """`816 bytes`, `16.4 kB`, `542 MB`, in powers of a thousand as disks are sold."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    digits = 0 if unit == 0 or size >= 99.95 else 1
    return f"{size:.{digits}f} {_UNITS[unit]}"
