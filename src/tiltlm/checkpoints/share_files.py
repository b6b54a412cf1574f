"""What ranks share out of a trainer's state, in files: PyTorch's distributed checkpoints, as safetensors.

Imported where several ranks, or one that goes on from theirs, have such files: it takes a fifth of a second.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from tiltlm.distributed.ranks import Ranks

FILE_BYTES = 1 << 29
"""About how large a file is: one at a time is in memory once more while it is written."""


def begin_shares(tensors: Mapping[str, Tensor], folder: Path, group: ProcessGroup) -> Future[Any]:
    """Begins to write tensors that are shared out, by their names, of which it has a copy once this returns; all ranks
    do.

    group: for what the ranks tell each other meanwhile.
    """
    ranks = dist.get_world_size(group)
    starts = itertools.accumulate((own.nbytes for own in tensors.values()), initial=0)
    places = {name: 1 + start // (FILE_BYTES * ranks) for name, start in zip(tensors, starts, strict=False)}
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=places, save_distributed=True)
    # What it would copy ahead from a GPU is copied already, and its threads would open the first one.
    writer.per_thread_copy_ahead = 0
    begun = async_save(dict(tensors), storage_writer=writer, process_group=group)
    assert isinstance(begun, Future)
    return begun


def written(begun: Future[Any]) -> None:
    """Returns once all ranks have written theirs.

    Raises:
        OSError: one of them could not.
    """
    with _as_os_error():
        begun.result()


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except CheckpointException as error:  # no Exception, though nothing but one
        raise OSError("; ".join(f"rank {rank}: {what[0]}" for rank, what in error.failures.items())) from error


def files_of_rank(folder: Path, rank: int) -> list[str]:
    """The names of the files that a rank wrote: none where others had all that it has."""
    return sorted(path.name for path in folder.glob(f"shard-{rank + 1:05d}-*.safetensors"))


def read_shares(folder: Path, into: Mapping[str, Tensor], others: Collection[str], ranks: Ranks) -> dict[str, Tensor]:
    """The tensors by their names.

    Args:
        into: tensors into which they are read, by the same names; of several ranks it says who wants which part. Those
            that are not there are read into new ones, whole.
        others: names of what else is in files beside them.
        ranks: those that read them together.

    Raises:
        OSError: they cannot be read.
    """
    reader = HuggingFaceStorageReader(str(folder))
    wanted = {
        name: into[name] if name in into else torch.empty(tuple(stored.size), dtype=stored.properties.dtype)
        for name, stored in reader.read_metadata().state_dict_metadata.items()
        if isinstance(stored, TensorStorageMetadata) and name not in others
    }
    with warnings.catch_warnings(), _as_os_error():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it is in one process
        load(wanted, storage_reader=reader, no_dist=not ranks.several)
    return wanted
