"""Columns to which examples are added one at a time, without keeping an object for any of them."""

from __future__ import annotations

from array import array

import numpy as np

from tiltlm.data.tokens.names import Names, encoded_name
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, scores_of

# The types of columns, as `array` calls them.
_INT8, _INT32, _INT64 = "b", "i", "q"


class ColumnsBuilder:
    """What TokenColumns hold, growing."""

    def __init__(self) -> None:
        self._ids, self._first_scored, self._tokens_cut, self._prompt_tokens_cut = (array(_INT32) for _ in range(4))
        self._bounds, self._members, self._name_bounds = (array(_INT64, [0]) for _ in range(3))
        self._labels, self._ended = array(_INT8), array(_INT8)
        self._scores = array("f")
        self._names = bytearray()

    def add(self, example: TokenizedExample) -> None:
        """Takes in an example; what it holds is copied."""
        for sequence in example.sequences:
            self._ids.frombytes(sequence.ids.astype(np.int32, copy=False).tobytes())
            self._bounds.append(len(self._ids))
            self._first_scored.append(sequence.first_scored)
            self._tokens_cut.append(sequence.tokens_cut)
            self._ended.append(sequence.ended)
        self._labels.extend(example.labels)
        self._scores.extend(scores_of(example))
        self._members.append(len(self._labels))
        self._prompt_tokens_cut.append(example.prompt_tokens_cut)
        self._names += encoded_name(example.id)
        self._name_bounds.append(len(self._names))

    def columns(self) -> TokenColumns:
        """The columns of all that was taken in, which share its memory: nothing can be added from then on."""
        import pyarrow

        buffers = [None, pyarrow.py_buffer(self._name_bounds), pyarrow.py_buffer(self._names)]
        names = pyarrow.Array.from_buffers(pyarrow.large_binary(), len(self._name_bounds) - 1, buffers)
        return TokenColumns(
            ids=as_numpy(self._ids),
            bounds=as_numpy(self._bounds),
            first_scored=as_numpy(self._first_scored),
            tokens_cut=as_numpy(self._tokens_cut),
            ended=as_numpy(self._ended),
            labels=as_numpy(self._labels),
            scores=np.frombuffer(self._scores, dtype=np.float32),
            members=as_numpy(self._members),
            prompt_tokens_cut=as_numpy(self._prompt_tokens_cut),
            names=Names(names),
        )


def as_numpy(values: array[int]) -> np.ndarray:
    """The same memory as a numpy array."""
    return np.frombuffer(values, dtype=f"i{values.itemsize}")
