"""The reference is data: its log-probabilities are computed once and kept, addressed by content (architecture, idea 4).

A value's address is made of all that computes it: the reference's weights and configuration, the revision of the
scorer, the kind of device, the arithmetic, the layout and the attention; and of the token ids and where scoring
starts. Changing beta, the loss, the learning rate, the seed or the batch size finds the same values again; changing a
weight or a token never does. Versions of torch and transformers and the device's model are not part of it: their
values differ by rounding alone, and the start-up check compares them with the policy's.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.distributed.shares import whole
from tiltlm.errors import ModelError
from tiltlm.model.scorer import SCORER_REVISION, Scorer
from tiltlm.model.scoring import fill_from_others, passes
from tiltlm.plan.batches import MicroBatch
from tiltlm.storage.cache import REFERENCE_SUFFIX

KEYS_AT_ONCE = 500
"""Keys in one query: SQLite takes at least 999 variables."""


def fingerprint(model: PreTrainedModel, ranks: Ranks = ALONE) -> str:
    """SHA-256 of the model's weights (names, shapes, dtypes, bytes) and configuration, as hexadecimal digits.

    ranks: over which it may be shared out.
    """
    config = model.config.to_dict()
    for irrelevant in ("_name_or_path", "transformers_version"):
        config.pop(irrelevant, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    weights = sorted(model.state_dict().items())
    for (name, tensor), own in zip(weights, _digests([tensor for _, tensor in weights], ranks), strict=True):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + own)
    return digest.hexdigest()


def _digests(tensors: Sequence[Tensor], ranks: Ranks) -> list[bytes]:
    """SHA-256 of each tensor's bytes: by all processors, or by ranks in turn, which gather one at a time."""
    if not ranks.several:
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            return list(threads.map(_digest, tensors))
    own: dict[int, bytes] = {}
    for number, tensor in enumerate(tensors):
        full = whole(tensor)
        if number % ranks.count == ranks.rank:
            own[number] = _digest(full)
    every = {number: digest for some in ranks.gathered(own) for number, digest in some.items()}
    return [every[number] for number in range(len(tensors))]


def _digest(tensor: Tensor) -> bytes:
    """SHA-256 of a tensor's bytes."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data).digest()


def _layout_name(scorer: Scorer) -> str:
    layout = scorer.layout
    if not layout.trees:
        return "rows"
    return "blocks" if layout.blocks else "runs" if layout.runs else "trees"


def reference_address(scorer: Scorer, precision: torch.dtype, ranks: Ranks = ALONE) -> str:
    """What computes a reference's values, as the name of their file: weights, arithmetic, device, layout, attention,
    and a temperature other than 1."""
    parts: tuple[str, ...] = (
        fingerprint(scorer.model, ranks)[:32],
        str(precision).removeprefix("torch."),
        scorer.device.type,
        _layout_name(scorer),
        scorer.model.config.get_text_config()._attn_implementation or "own",
        f"r{SCORER_REVISION}",
    )
    if scorer.transform.temperature != 1:
        parts = (*parts, f"t{scorer.transform.temperature!r}")
    # An attention's name may be a hub id, with a slash.
    return "-".join(re.sub(r"[^A-Za-z0-9_.]", "_", part) for part in parts)


_KEEP = "INSERT INTO token_logps VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
_CRC_BYTES = 4
"""A CRC-32 stands before the values of a sequence: of its key and of them, so none passes for another's."""


class ReferenceCache:
    """Log-probabilities of scored tokens at one `reference_address`, in an SQLite file that processes may share.

    Raises:
        ModelError: the file is there, and cannot be read or written.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self.path = folder / f"{address}{REFERENCE_SUFFIX}"
        self._open()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(self.path, timeout=60)
            with self._connection:
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS token_logps (key BLOB PRIMARY KEY, logps BLOB) WITHOUT ROWID"
                )
        except sqlite3.Error as error:
            raise ModelError(
                f"the file of reference log-probabilities {self.path} cannot be used ({error}): remove it "
                "(tiltlm cache --clear reference), or name another place for the cache (TILTLM_CACHE)."
            ) from error

    def join(self, columns: TokenColumns) -> tuple[np.ndarray, np.ndarray]:
        """The values of all scored tokens of the columns, and which examples lack some.

        Returns:
            float32 values in nats, shape (scored tokens,), NaN where they are missing; and numbers of the examples
            that have a sequence that was never computed, shape (missing,).
        """
        keys = _keys(columns)
        places: dict[bytes, list[int]] = {}
        for number, key in enumerate(keys):
            places.setdefault(key, []).append(number)
        values = np.full(int(columns.scored_starts[-1]), np.nan, dtype=np.float32)
        missing = np.ones(columns.sequences, dtype=bool)
        damaged: list[tuple[bytes]] = []
        for key, stored in self._find(list(places)):
            for number in places[key]:
                own = values[columns.scored_starts[number] : columns.scored_starts[number + 1]]
                if len(stored) == _CRC_BYTES + own.nbytes and stored == _sealed(key, stored[_CRC_BYTES:]):
                    own[:] = np.frombuffer(stored, dtype="<f4", offset=_CRC_BYTES)
                    missing[number] = False
                else:
                    damaged.append((key,))
        if damaged:  # they make room for those that are computed anew
            with self._connection:
                self._connection.executemany("DELETE FROM token_logps WHERE key = ?", damaged)
        example_of = np.repeat(np.arange(len(columns)), np.diff(columns.members))
        return values, np.unique(example_of[missing])

    def _find(self, keys: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
        # In the order of the keys, which is that of the file.
        keys = sorted(keys)
        for start in range(0, len(keys), KEYS_AT_ONCE):
            some = keys[start : start + KEYS_AT_ONCE]
            marks = ",".join("?" * len(some))
            yield from self._connection.execute(f"SELECT key, logps FROM token_logps WHERE key IN ({marks})", some)

    def put(self, columns: TokenColumns, sequences: Iterable[int], values: np.ndarray) -> None:
        """Keeps the values of some sequences, in one transaction. `values` are those of all scored tokens.

        What is there stays: a value that was computed beside other examples differs by rounding.
        """
        starts = columns.scored_starts
        keyed = ((_key(columns, n), values[starts[n] : starts[n + 1]].astype("<f4").tobytes()) for n in sequences)
        rows = [(key, _sealed(key, logps)) for key, logps in keyed]
        if not self.path.exists():  # the cache was cleared meanwhile, and SQLite writes to no file without a name
            self.close()
            self._open()
        with self._connection:
            self._connection.executemany(_KEEP, rows)

    def close(self) -> None:
        self._connection.close()


def _sealed(key: bytes, logps: bytes) -> bytes:
    """Values as they are kept."""
    return zlib.crc32(logps, zlib.crc32(key)).to_bytes(_CRC_BYTES, "little") + logps


def _keys(columns: TokenColumns) -> list[bytes]:
    return [_key(columns, number) for number in range(columns.sequences)]


def _key(columns: TokenColumns, number: int) -> bytes:
    ids = columns.ids[columns.bounds[number] : columns.bounds[number + 1]]
    content = int(columns.first_scored[number]).to_bytes(4, "little") + ids.astype("<i4").tobytes()
    return hashlib.sha256(content).digest()


def fill_cache(
    scorer: Scorer,
    columns: TokenColumns,
    cache: ReferenceCache,
    precision: torch.dtype,
    token_budget: int,
    advance: Callable[[int], None],
    ranks: Ranks = ALONE,
) -> np.ndarray:
    """Computes and keeps what the cache lacks of the columns; gives the values of all their scored tokens.

    Each forward pass is kept as soon as it is done, so an interruption loses no other. Which examples are computed
    together depends on the columns alone, not on what is there already: a pass that was interrupted and goes on keeps
    the same values, to the bit, as one that was not.

    advance: called with how many more of the lacking examples are done.
    ranks: processes that share out the forward passes. Each keeps its own as they are done, where it has the cache of
        the first one; all have all of them in the end, as has the first one's cache.

    Raises:
        NonFiniteError: the reference gives NaN or infinite log-probabilities, naming the examples.
    """
    values, lacking = ranks.from_first(lambda: cache.join(columns))
    missing = np.zeros(len(columns), dtype=bool)
    missing[lacking] = True
    every, places = range(len(columns)), list[np.ndarray]()

    def wanted(batch: MicroBatch) -> bool:
        return bool(missing[batch.examples].any())

    def keep(examples: np.ndarray) -> None:
        own = (range(columns.members[e], columns.members[e + 1]) for e in examples)
        cache.put(columns, (number for some in own for number in some), values)

    for batch, logps_S in passes(scorer, columns, every, precision, token_budget, wanted=wanted, ranks=ranks):
        values[batch.places] = logps_S.cpu().numpy()
        places.append(batch.places)
        if ranks.beside_first:
            keep(batch.examples)
        advance(int(missing[batch.examples].sum()) * ranks.count)
    fill_from_others(values, places, ranks)
    if ranks.several and ranks.first:
        keep(lacking)
    return values


def reference_values(
    scorer: Scorer,
    columns: TokenColumns,
    cache: ReferenceCache,
    precision: torch.dtype,
    token_budget: int,
    advance: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """The reference's log-probabilities of all scored tokens, from the cache or computed now, float32, in nats."""
    computed = fill_cache(scorer, columns, cache, precision, token_budget, advance)
    # Of equal sequences, computed in different places, the cache has the values of one; it may have been cleared since.
    kept, _ = cache.join(columns)
    return np.where(np.isnan(kept), computed, kept)
