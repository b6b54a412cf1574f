"""JSON values out of a text that arrives in pieces, told apart also where some of them are broken."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tiltlm.data.files.encodings import LONGEST

# A value that ends this near to the end of what has been read may only be cut off there.
_NEAR = 16


def _object(items: list[tuple[str, object]]) -> dict[str, object]:
    """An object of its keys and values. Of a key that appears twice the last value would hide the other."""
    found = dict(items)
    if len(found) < len(items):
        keys = [key for key, _ in items]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key `{twice}` appears twice in an object")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_object)
# Everything json.loads raises: JSONDecodeError and over-long integers are ValueErrors; nesting has its limit.
JSON_ERRORS = (ValueError, RecursionError)

_FIRST_KEY = re.compile(r'\{\s*("[^"\\]*(?:\\.[^"\\]*)*")')
# Where an object may begin as long as no first key is known.
_ANY_OBJECT = re.compile(r'(?<=[,\r\n])[ \t]*\{\s*"[^"]*"\s*:')
# A text, which may be cut off, or a sign that opens or closes.
_SIGNS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Item:
    """A value as it stands in the text: the line it starts on, its text, and the value or what is wrong with it."""

    line: int
    source: str
    value: object
    wrong: str | None = None


class Items:
    """Values of a text that arrives in pieces, holding little more of it than one value.

    After a value that is broken the next one is found again: by its first key, which the rows of a file share.
    """

    def __init__(self, pieces: Iterator[str]) -> None:
        self.pieces = pieces
        self.buffer = next(pieces, "").removeprefix("\ufeff")
        self.at = 0
        self.line = 1
        self.first_keys: set[str] = set()

    def of_list(self) -> Iterator[Item]:
        self._skip_space()
        self._move(self.at + 1)
        closed = self._skip_space() and self.buffer[self.at] == "]"
        self._move(self.at + int(closed))
        while not closed:
            item, closed = self._next(delimiters=",]")
            yield item
        self._skip_space()
        if self.at < len(self.buffer):
            yield Item(self.line, "", None, "there is more text after the end of the list")

    def in_succession(self) -> Iterator[Item]:
        while self._skip_space():
            # A list without its brackets has commas between the objects.
            if self.first_keys and self.buffer[self.at] == ",":
                self._move(self.at + 1)
                continue
            item, _ = self._next(delimiters="")
            yield item

    def _next(self, delimiters: str) -> tuple[Item, bool]:
        """The next value, and whether it is the last one."""
        self._skip_space()
        line = self.line
        while True:
            try:
                value, end = DECODER.raw_decode(self.buffer, self.at)
                after = self._after(end)
                # Without its delimiter even a whole-looking item may be cut off.
                if delimiters and self.buffer[after : after + 1] not in tuple(delimiters):
                    raise json.JSONDecodeError("Expecting ',' or ']'", self.buffer, after)
            except JSON_ERRORS as error:
                if self._may_be_cut(error) and self._more():
                    continue
                return self._broken(line, error, delimiters)
            source = self.buffer[self.at : end]
            if key := _FIRST_KEY.match(source):
                self.first_keys.add(key[1])
            last = bool(delimiters) and self.buffer[after] == "]"
            self._move(after + 1 if delimiters else end)
            return Item(line, source, value), last

    def _after(self, end: int) -> int:
        while end < len(self.buffer) and self.buffer[end] in _SPACE:
            end += 1
        return end

    def _may_be_cut(self, error: Exception) -> bool:
        if not isinstance(error, json.JSONDecodeError):
            return False
        unfinished = error.msg.startswith("Unterminated string") or error.pos > len(self.buffer) - _NEAR
        return unfinished and len(self.buffer) - self.at <= LONGEST

    def _broken(self, line: int, error: Exception, delimiters: str) -> tuple[Item, bool]:
        """What is wrong with the value, and whether nothing comes after it; moves on to the next one."""
        if key := _FIRST_KEY.match(self.buffer, self.at):
            self.first_keys.add(key[1])
        if not isinstance(error, json.JSONDecodeError):
            # Its signs are in order, so its end is known.
            end = self._end_of_value(delimiters)
            if end is not None:
                last = self.buffer[end - 1 : end] == "]" if delimiters else False
                self._move(end)
                return Item(line, "", None, str(error)), last
            message = str(error)
        else:
            message = f"{error.msg} at line {self.line + self.buffer.count(chr(10), self.at, error.pos)}"
        found = self._find_next()
        further = f"reading goes on at line {self.line}" if found else "nothing is read from here on"
        return Item(line, "", None, f"{message}; {further}"), not found

    def _end_of_value(self, delimiters: str) -> int | None:
        """Where the list or object ends that begins here, its delimiter included; None where that cannot be told."""
        while True:
            end = _balanced_end(self.buffer, self.at)
            if end is not None and not delimiters:
                return end
            after = self._after(end) if end is not None else len(self.buffer)
            if after < len(self.buffer):
                return after + 1 if self.buffer[after] in delimiters else None
            if len(self.buffer) - self.at > LONGEST or not self._more():
                return None

    def _find_next(self) -> bool:
        """Moves to the next value that begins with a first key known so far."""
        keys = "|".join(re.escape(key) for key in self.first_keys)
        start = re.compile(rf"\{{\s*(?:{keys})\s*:") if keys else _ANY_OBJECT
        self._move(min(self.at + 1, len(self.buffer)))
        while True:
            if match := start.search(self.buffer, self.at):
                self._move(match.start())
                return True
            # The beginning of the next one may be cut off, too.
            self._move(max(self.at, len(self.buffer) - 200))
            if not self._more():
                self._move(len(self.buffer))
                return False

    def _more(self) -> bool:
        """Takes in another piece; False where there is none."""
        piece = next((piece for piece in self.pieces if piece), "")
        self.buffer, self.at = self.buffer[self.at :] + piece, 0
        return bool(piece)

    def _skip_space(self) -> bool:
        """Moves over white space; False at the end of the text."""
        while True:
            self._move(self._after(self.at))
            if self.at < len(self.buffer):
                return True
            if not self._more():
                return False

    def _move(self, to: int) -> None:
        self.line += self.buffer.count("\n", self.at, to)
        self.at = to


def _balanced_end(text: str, at: int) -> int | None:
    """Behind the sign that closes the list or object which begins here; None if none does, or none begins."""
    if text[at : at + 1] not in ("[", "{"):
        return None
    depth = 0
    for sign in _SIGNS.finditer(text, at):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(sign[0], 0)
        if depth == 0:
            return sign.end()
    return None
