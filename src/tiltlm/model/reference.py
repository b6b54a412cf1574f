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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from tiltlm.data.tokens.packing import micro_batches, pack_pairs
from tiltlm.data.tokens.token_columns import TokenizedExample, TokenizedSequence
from tiltlm.errors import ModelError, NonFiniteError
from tiltlm.model.loading import arithmetic
from tiltlm.model.scorer import SCORER_REVISION, PairScorer, sequence_logps
from tiltlm.records import ReferencedPair
from tiltlm.storage.cache import REFERENCE_SUFFIX

PAIRS_AT_ONCE = 64
"""Pairs scored between two writes to disk: what an interruption may cost."""


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 of the model's weights (names, shapes, dtypes, bytes) and configuration, as hexadecimal digits."""
    config = model.config.to_dict()
    for irrelevant in ("_name_or_path", "transformers_version"):
        config.pop(irrelevant, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def reference_address(scorer: PairScorer, precision: torch.dtype) -> str:
    """What computes a reference's values, as the name of their file: weights, arithmetic, device, layout, attention."""
    parts = (
        fingerprint(scorer.model)[:32],
        str(precision).removeprefix("torch."),
        scorer.device.type,
        "trees" if scorer.trees else "rows",
        scorer.model.config.get_text_config()._attn_implementation or "own",
        f"r{SCORER_REVISION}",
    )
    # An attention's name may be a hub id, with a slash.
    return "-".join(re.sub(r"[^A-Za-z0-9_.]", "_", part) for part in parts)


class ReferenceCache:
    """Sequence log-probabilities at one `reference_address`, in an SQLite file that processes may share.

    Raises:
        ModelError: the file is there, and cannot be read or written.
    """

    def __init__(self, folder: Path, address: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{address}{REFERENCE_SUFFIX}"
        try:
            self._connection = sqlite3.connect(self.path, timeout=60)
            with self._connection:
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS logps (key BLOB PRIMARY KEY, logp REAL) WITHOUT ROWID"
                )
        except sqlite3.Error as error:
            raise ModelError(
                f"the file of reference log-probabilities {self.path} cannot be used ({error}): remove it "
                "(tiltlm cache --clear reference), or name another place for the cache (TILTLM_CACHE)."
            ) from error

    def get(self, sequence: TokenizedSequence) -> float | None:
        """log pi_ref(y|x) in nats, or None where it was never computed."""
        row = self._connection.execute("SELECT logp FROM logps WHERE key = ?", (_key(sequence),)).fetchone()
        return None if row is None else float(row[0])

    def put(self, values: Sequence[tuple[TokenizedSequence, float]]) -> None:
        """Keeps values, in one transaction."""
        rows = [(_key(sequence), logp) for sequence, logp in values]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO logps VALUES (?, ?)", rows)

    def close(self) -> None:
        self._connection.close()


def _key(sequence: TokenizedSequence) -> bytes:
    content = sequence.first_scored.to_bytes(4, "little") + sequence.ids.astype("<i4").tobytes()
    return hashlib.sha256(content).digest()


def missing_pairs(pairs: Sequence[TokenizedExample], cache: ReferenceCache) -> list[TokenizedExample]:
    """Pairs of which at least one side is not in the cache."""
    return [pair for pair in pairs if cache.get(pair.chosen) is None or cache.get(pair.rejected) is None]


def fill_cache(
    scorer: PairScorer,
    pairs: Sequence[TokenizedExample],
    cache: ReferenceCache,
    precision: torch.dtype,
    token_budget: int,
    advance: Callable[[int], None],
) -> None:
    """Computes and keeps the log-probabilities of pairs; `advance(n)` is called as n more are done.

    Raises:
        NonFiniteError: the reference gives NaN or infinite log-probabilities, naming the pairs.
    """
    for group, values in scored(scorer, pairs, precision, token_budget):
        sides = [(pair.chosen, pair.rejected) for pair in group]
        cache.put([item for pair in zip(sides, values, strict=True) for item in zip(*pair, strict=True)])
        advance(len(group))


def scored(
    scorer: PairScorer, pairs: Sequence[TokenizedExample], precision: torch.dtype, token_budget: int
) -> Iterator[tuple[list[TokenizedExample], list[tuple[float, float]]]]:
    """Pairs, some at a time, with their (chosen, rejected) log-probabilities under a model that is not trained.

    Raises:
        NonFiniteError: log-probabilities are NaN or infinite, naming the pairs.
    """
    # Longest first: if memory runs out it does so at once, and the time left is never underestimated.
    order = sorted(pairs, key=lambda pair: -len(pair.chosen.ids) - len(pair.rejected.ids))
    for start in range(0, len(order), PAIRS_AT_ONCE):
        for group in micro_batches(order[start : start + PAIRS_AT_ONCE], token_budget, scorer.trees):
            batch = pack_pairs(group, scorer.trees).to(scorer.device)
            with torch.inference_mode(), arithmetic(scorer.device, precision):
                logps, _ = sequence_logps(scorer(batch), batch)
            flat = logps.tolist()
            values = list(zip(flat[0::2], flat[1::2], strict=True))
            bad = [pair.id for pair, logp in zip(group, values, strict=True) if not _finite(logp)]
            if bad:
                raise NonFiniteError(
                    f"the model gives non-finite log-probabilities for {', '.join(bad[:10])}. "
                    "The model's weights or its arithmetic (model.precision) are at fault."
                )
            yield group, values


def _finite(values: Sequence[float]) -> bool:
    return all(abs(value) < float("inf") for value in values)


def with_reference(pairs: Sequence[TokenizedExample], cache: ReferenceCache) -> list[ReferencedPair]:
    """Joins pairs with their cached values; every pair must be in the cache."""
    joined = []
    for pair in pairs:
        chosen, rejected = cache.get(pair.chosen), cache.get(pair.rejected)
        if chosen is None or rejected is None:
            raise KeyError(f"{pair.id} is not in the reference cache {cache.path}")
        joined.append(ReferencedPair(pair, chosen, rejected))
    return joined
