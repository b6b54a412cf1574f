"""Tokens of large data while they are made, part by part: what a run that was cut short has made is found again."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from tiltlm.data.tokens.text_checks import CHECKED, TextChecks
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.data.tokens.token_store import DamagedError, checksum, map_columns, unwrapped, wrapped, write_columns
from tiltlm.runs.data_account import DroppedRow


@dataclass(frozen=True, slots=True, eq=False)
class Tokenized:
    """What became of examples: those ready for training, and those dropped, with reasons.

    checked: of each usable example, CHECKED of text_checks.py. places: int64, its number among those given.
    """

    examples: TokenColumns
    checked: np.ndarray
    places: np.ndarray
    dropped: Sequence[DroppedRow] = ()

    @staticmethod
    def joined(parts: Sequence[Tokenized]) -> Tokenized:
        """What became of the examples of several parts, one after another; copies their tokens."""
        if len(parts) == 1:
            return parts[0]
        return Tokenized(
            TokenColumns.joined([part.examples for part in parts]) if parts else TokenColumns.of(()),
            np.concatenate([np.empty(0, dtype=CHECKED), *(part.checked for part in parts)]),
            np.concatenate([np.empty(0, dtype=np.int64), *(part.places for part in parts)]),
            [dropped for part in parts for dropped in part.dropped],
        )

    def take(self, numbers: Sequence[int] | np.ndarray) -> Tokenized:
        """Those of the usable examples that have these numbers among them; nothing is dropped."""
        taken = np.asarray(numbers, dtype=np.int64)
        return Tokenized(self.examples.take(taken), self.checked[taken], self.places[taken])


class TokenParts:
    """Parts in a folder, each named by what it is of.

    folder: made when the first part is kept. of: says of which examples, tokenizer and settings numbers are.
    """

    def __init__(self, folder: Path, of: str) -> None:
        self._folder = folder
        self._of = of

    def of_split(self, split: str) -> TokenParts:
        """The parts of one split, whose numbers are its own."""
        return TokenParts(self._folder, f"{self._of} {split}")

    def get(self, numbers: np.ndarray, checks: TextChecks) -> Tokenized | None:
        """What became of the examples with these numbers, mapped; None where it is not kept, or damaged."""
        name = self._name(numbers)
        try:
            kept = json.loads(unwrapped((self._folder / f"{name}.json").read_bytes()))
            tokens = self._folder / f"{name}.arrow"
            if checksum(tokens) != kept["checksum"]:
                return None
            columns = map_columns(tokens)
        except (OSError, ValueError, DamagedError):
            return None
        checked = np.frombuffer(bytearray.fromhex(kept["checked"]), dtype=CHECKED)
        checks.renumber(checked, [tuple(remarks) for remarks in kept["remarks"]], kept["asks"])
        dropped = [DroppedRow(*row) for row in kept["dropped"]]
        return Tokenized(columns, checked, np.array(kept["places"], dtype=np.int64), dropped)

    def put(self, numbers: np.ndarray, part: Tokenized, checks: TextChecks) -> Tokenized:
        """Keeps a part, and gives it back mapped from its file; as it is where it cannot be written."""
        name, aside = self._name(numbers), f".{secrets.token_hex(4)}"
        kept = {
            "places": part.places.tolist(),
            "checked": part.checked.tobytes().hex(),
            "remarks": checks.remarks,
            "asks": checks.asks,
            "dropped": [astuple(row) for row in part.dropped],
        }
        tokens, record = (self._folder / f"{name}{ending}" for ending in (".arrow", ".json"))
        written = self._folder / f"{name}{aside}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_columns(part.examples, written)
            kept["checksum"] = checksum(written)
            written.replace(tokens)
            written.write_bytes(wrapped(json.dumps(kept).encode("ascii")))
            written.replace(record)
        except OSError:
            with suppress(OSError):
                written.unlink(missing_ok=True)
            return part
        return self.get(numbers, checks) or part

    def clear(self) -> None:
        """Removes all parts: what they came to is kept elsewhere. What is mapped stays readable."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _name(self, numbers: np.ndarray) -> str:
        return hashlib.blake2b(self._of.encode() + numbers.astype("<i8").tobytes(), digest_size=16).hexdigest()
