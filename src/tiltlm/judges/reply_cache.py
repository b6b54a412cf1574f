"""Replies of language models, kept by all that decides them: what was asked before is not asked again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tiltlm.errors import ConfigError
from tiltlm.judges.chat_requests import Reply
from tiltlm.storage.cache import REPLIES, REPLY_SUFFIX, writable_cache_folder

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY, text TEXT NOT NULL, finished INTEGER NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS about (address TEXT NOT NULL, model TEXT NOT NULL);
"""


class ReplyCache:
    """The replies of one model at one address, in an SQLite file. One thread uses it."""

    def __init__(self, address: str, model: str, folder: Path | None = None) -> None:
        """folder: where it lies; None: in the cache folder.

        Raises:
            ConfigError: it cannot be written, or is damaged.
        """
        self._path = (folder or writable_cache_folder(REPLIES)) / f"{_name(address, model)}{REPLY_SUFFIX}"
        self._address, self._model = address, model
        try:
            with closing(self._open()) as connection, connection:
                connection.executescript(_TABLES)
                if connection.execute("SELECT COUNT(*) FROM about").fetchone()[0] == 0:
                    connection.execute("INSERT INTO about VALUES (?, ?)", (address, model))
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def key(self, body: Mapping[str, object]) -> bytes:
        """The digest of a whole request: address, model, texts, template, temperature and limits."""
        whole = json.dumps([self._address, body], sort_keys=True)
        return hashlib.sha256(whole.encode()).digest()

    def get(self, key: bytes) -> Reply | None:
        """The reply to a request that was made before; None where there was none."""
        try:
            with closing(self._open()) as connection:
                row = connection.execute(
                    "SELECT text, finished, prompt_tokens, completion_tokens FROM replies WHERE key = ?", (key,)
                ).fetchone()
        except sqlite3.Error as error:
            raise self._damaged(error) from error
        return None if row is None else Reply(row[0], bool(row[1]), row[2], row[3])

    def put(self, key: bytes, reply: Reply) -> None:
        """Keeps a reply, on the disk when this returns."""
        values = (key, reply.text, reply.finished, reply.prompt_tokens, reply.completion_tokens)
        try:
            with closing(self._open()) as connection, connection:
                connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", values)
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)

    def _damaged(self, error: sqlite3.Error) -> ConfigError:
        return ConfigError(
            f"{self._path}, where replies of language models are kept, cannot be used ({error}): free the disk, or "
            "remove the file."
        )


def _name(address: str, model: str) -> str:
    return hashlib.sha256(json.dumps([address, model]).encode()).hexdigest()[:32]
